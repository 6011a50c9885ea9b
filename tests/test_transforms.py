"""Decoding of every mode, exact crops, filters without aliasing, and the range of the pixels."""

import io
import struct
import warnings
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from evqgan.core.errors import InputError
from evqgan.data import transforms


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(height=24, width=40, seed=0):
    """A smooth colour image, so that JPEG keeps it."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_decode_returns_the_pixels(format):
    pixels = photo()
    np.testing.assert_array_equal(
        transforms.decode(encode(Image.fromarray(pixels), format)), pixels
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decode_of_jpeg_is_pillows(mode):
    data = encode(Image.fromarray(photo()).convert(mode), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    decoded = transforms.decode(data)
    assert decoded.shape == (24, 40, 3) and decoded.dtype == np.uint8
    assert abs(decoded - expected).max() <= 1  # two builds of libjpeg may round differently


def test_grey_and_palette_become_rgb():
    grey = photo()[..., 0]
    np.testing.assert_array_equal(
        transforms.decode(encode(Image.fromarray(grey))), np.stack([grey] * 3, -1)
    )
    palette = Image.fromarray(photo()).convert("P")
    np.testing.assert_array_equal(
        transforms.decode(encode(palette)), np.asarray(palette.convert("RGB"))
    )
    bits = Image.fromarray(grey).convert("1")
    np.testing.assert_array_equal(transforms.decode(encode(bits)), np.asarray(bits.convert("RGB")))


def test_transparency_lies_over_white():
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :2] = (10, 20, 30, 255)
    pixels[:, 2:4] = (0, 0, 0, 0)
    pixels[:, 4:] = (0, 0, 0, 51)
    decoded = transforms.decode(encode(Image.fromarray(pixels)))
    assert (
        (decoded[:, :2] == (10, 20, 30)).all()
        and (decoded[:, 2:4] == 255).all()
        and (decoded[:, 4:] == 204).all()
    )
    grey = Image.fromarray(np.stack([np.full((4, 6), 90), np.full((4, 6), 0)], -1).astype(np.uint8))
    assert (transforms.decode(encode(grey)) == 255).all()
    keyed = encode(Image.fromarray(pixels[..., :3]), transparency=(10, 20, 30))
    assert (transforms.decode(keyed)[:, :2] == 255).all() and (
        transforms.decode(keyed)[:, 2:] == 0
    ).all()


def test_sixteen_bits_become_eight():
    levels = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    decoded = transforms.decode(encode(Image.fromarray(levels)))
    np.testing.assert_array_equal(decoded, np.repeat(np.round(levels / 257)[..., None], 3, -1))
    assert decoded.min() == 0 and decoded.max() == 255


def test_sixteen_bit_colour_becomes_eight():
    colour = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in colour)

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert abs(transforms.decode(data).astype(int) - colour / 257).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(format, orientation):
    """The pixels a camera stores for a scene and an orientation tag decode to the scene."""
    scene = np.zeros((16, 32, 3), np.uint8)
    scene[:8, :16], scene[:8, 16:], scene[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.transpose(1, 0, 2),
        6: np.rot90(scene),
        7: scene[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(scene, -1),
    }[orientation]
    exif = Image.Exif()
    exif[transforms.ORIENTATION] = orientation
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    data = encode(
        Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif.tobytes(), **options
    )
    decoded = transforms.decode(data)
    assert decoded.shape == scene.shape
    assert abs(decoded.astype(int) - scene).max() < 16


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow on the cut TIFF
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_cut_file_is_refused(format):
    data = encode(Image.fromarray(photo(64, 64)), format)
    for length in (0, 10, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(
            InputError, match=r"expected an image, got .* bytes that do not decode"
        ) as caught:
            transforms.decode(data[:length])
        assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


def test_damaged_and_foreign_bytes_are_refused():
    data = bytearray(encode(Image.fromarray(photo(64, 64))))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    for bad in (bytes(data), b"<html>not found</html>", bytes(100)):
        with pytest.raises(InputError, match="do not decode"):
            transforms.decode(bad)


def test_bytes_after_the_end_of_a_jpeg_do_not_matter():
    data = encode(Image.fromarray(photo()), "JPEG")
    np.testing.assert_array_equal(
        transforms.decode(data + b"a film of two seconds" * 9), transforms.decode(data)
    )


def test_a_decompression_bomb_is_refused_before_it_unfolds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = encode(Image.new("1", (20_000, 5_000)))
        assert len(data) < 100_000
        with pytest.raises(InputError, match="at most 89,478,485 pixels, got 20000x5000"):
            transforms.decode(data)
        with pytest.raises(InputError, match="at most 89,478,485 pixels, got more than twice"):
            transforms.decode(encode(Image.new("1", (50_000, 5_000))))


def test_floating_point_pixels_are_refused():
    with pytest.raises(InputError, match="unknown range"):
        transforms.decode(encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("most", [255, 70_000])
def test_32_bits_that_may_be_8_or_more_than_16_are_refused(most):
    levels = np.arange(16, dtype=np.int32).reshape(4, 4) * most // 15
    for read in (
        lambda: transforms.of_pil(Image.fromarray(levels)),
        lambda: transforms.decode(encode(Image.fromarray(levels), "TIFF")),
    ):
        with pytest.raises(InputError, match=f"32-bit pixels of unknown range, 0 to {most}: save"):
            read()


def test_an_image_in_memory_has_the_limit_of_a_file():
    with pytest.raises(InputError, match="at most 89,478,485 pixels, got 20000x5000"):
        transforms.of_pil(Image.new("1", (20_000, 5_000)))


def test_arrays_pass_and_wrong_ones_are_refused():
    assert transforms.as_rgb(np.ones((3, 5), np.uint8)).shape == (3, 5, 3)
    assert transforms.as_rgb(np.ones((3, 5, 1), np.uint8)).shape == (3, 5, 3)
    for wrong in (np.ones((3, 5, 3)), np.ones((3, 5, 4), np.uint8), np.ones((0, 5, 3), np.uint8)):
        with pytest.raises(InputError, match="expected an image uint8"):
            transforms.as_rgb(wrong)


def test_shrinking_averages():
    """Stripes of one pixel become their mean, not stripes of another width: no aliasing."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (transforms.resize(stripes, (16, 16)) == 100).all()
    assert transforms.resize(stripes, (64, 64)) is stripes


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (5, 7), (64, 64), (33, 1000)])
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_cover_just_covers(shape, size):
    covered = transforms.cover(photo(*shape), size).shape[:2]
    assert all(have >= want for have, want in zip(covered, size, strict=True))
    assert any(have == want for have, want in zip(covered, size, strict=True))
    ratio = max(want / have for have, want in zip(shape, size, strict=True))
    assert all(abs(new - old * ratio) <= 1 for new, old in zip(covered, shape, strict=True))


@pytest.mark.parametrize("shape", [(64, 64), (70, 161), (333, 130), (16, 40), (9, 12), (31, 500)])
def test_the_crop_of_adm_is_that_of_pillow(shape):
    """Bit for bit: halved by a box while it can be, then bicubic, then the centre."""
    image = photo(*shape)

    def scaled(picture, side):
        width, height = picture.size
        if min(width, height) // (2 * side):
            box = picture.resize((width // 2, height // 2), resample=Image.BOX)
            return scaled(box, side)
        share = side / min(width, height)
        return picture.resize((round(width * share), round(height * share)), resample=Image.BICUBIC)

    picture = scaled(Image.fromarray(image), 16)
    left, top = ((length - 16) // 2 for length in picture.size)
    expected = np.asarray(picture.crop((left, top, left + 16, top + 16)))
    np.testing.assert_array_equal(transforms.adm_crop(image, 16), expected)
    if shape == (64, 64):  # two halvings alone: means of neighbours, rounded, along each axis
        for axis in (1, 0, 1, 0):
            pairs = [np.take(image, range(i, image.shape[axis], 2), axis) for i in range(2)]
            image = ((pairs[0].astype(int) + pairs[1] + 1) // 2).astype(np.uint8)
        np.testing.assert_array_equal(expected, image)


def test_crops_are_parts_of_the_image():
    image = np.arange(9 * 12, dtype=np.uint8).reshape(9, 12, 1).repeat(3, -1)
    np.testing.assert_array_equal(transforms.centre_crop(image, (5, 6)), image[2:7, 3:9])
    rng = np.random.default_rng(0)
    corners = {tuple(transforms.random_crop(image, (8, 9), rng)[0, 0, :1]) for _ in range(200)}
    # Every place occurs, the last ones too.
    assert corners == {(12 * y + x,) for y in range(2) for x in range(4)}
    np.testing.assert_array_equal(transforms.random_crop(image, (9, 12), rng), image)


def test_random_resized_crop_takes_shares_of_the_area():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    rng = np.random.default_rng(0)
    widths = []
    for _ in range(300):
        crop = transforms.random_resized_crop(ramp, (20, 20), rng, 0.5)
        assert crop.shape == (20, 20, 3)
        widths.append((int(crop[0, -1, 0]) - int(crop[0, 0, 0])) * 20 / 19)
    shares = (np.array(widths) / 100) ** 2  # the largest square of 100 x 200 is 100 wide
    assert (
        0.45 < shares.min() < 0.55
        and 0.95 < shares.max() < 1.05
        and abs(shares.mean() - 0.75) < 0.05
    )
    whole = transforms.random_resized_crop(ramp[:, :100], (20, 20), rng, 1.0)
    np.testing.assert_array_equal(
        whole, transforms.resize(np.ascontiguousarray(ramp[:, :100]), (20, 20))
    )


def test_flip_is_one_in_two():
    image = photo()
    rng = np.random.default_rng(0)
    flips = [transforms.random_flip(image, rng) for _ in range(200)]
    mirrored = sum(bool((flip == image[:, ::-1]).all()) for flip in flips)
    assert (
        70 < mirrored < 130 and mirrored + sum(bool((flip == image).all()) for flip in flips) == 200
    )


@pytest.mark.parametrize("module", [np, jnp])
def test_scale_and_unscale_are_inverse(module):
    levels = module.arange(256, dtype="uint8").reshape(4, 64)
    scaled = transforms.scale(levels)
    assert scaled.dtype == "float32" and isinstance(scaled, type(levels))
    assert float(scaled.min()) == -1 and float(scaled.max()) == 1
    np.testing.assert_array_equal(transforms.unscale(scaled), levels)
    np.testing.assert_array_equal(
        transforms.unscale(module.asarray([-3.0, 0.0, 3.0])), [0, 128, 255]
    )
    np.testing.assert_array_equal(
        transforms.unscale(jnp.asarray([-1.0, 1.0], "bfloat16")), [0, 255]
    )
