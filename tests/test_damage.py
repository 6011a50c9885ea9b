"""Damage that decoders paper over is found; whole files of all kinds are not taken for damaged."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from evqgan.core.errors import InputError
from evqgan.data import transforms

KINDS = ({}, {"optimize": True}, {"progressive": True}, {"quality": 95, "subsampling": 0})


def encode(pixels, format="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def photo(side=128):
    """A smooth colour image with some noise."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8))
    noise = rng.integers(-20, 20, (side, side, 3))
    return (
        (np.asarray(small.resize((side, side), Image.BICUBIC)) + noise)
        .clip(0, 255)
        .astype(np.uint8)
    )


def refused(data):
    with pytest.raises(InputError, match="do not decode") as caught:
        transforms.decode(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_jpeg_that_ends_too_early_is_refused_also_with_an_end_marker(kind):
    data = encode(photo(), **kind)
    transforms.decode(data)
    for share in (0.5, 0.75, 0.95):
        cut = data[: int(share * len(data))]
        refused(cut)
        refused(cut + b"\xff\xd9")
    buffer = io.BytesIO()
    Image.fromarray(photo()).convert("CMYK").save(buffer, "JPEG")
    transforms.decode(buffer.getvalue())
    refused(buffer.getvalue()[: len(buffer.getvalue()) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "progressive" not in kind], ids=str)
def test_a_jpeg_with_zeros_in_the_middle_is_refused(kind):
    data = encode(photo(), **kind)
    start = data.index(b"\xff\xda") + 20
    for at in np.linspace(start, len(data) - 300, 20).astype(int):
        for size in (40, 200):
            refused(data[:at] + bytes(size) + data[at + size :])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_flat_images_and_drawings_are_whole(kind):
    """Their pixels may be zeros in a file, too."""
    drawing = np.full((128, 160, 3), 255, np.uint8)
    drawing[40:60, 40:90] = (200, 30, 10)
    for pixels in (
        drawing,
        drawing[..., 0],
        *(np.full((256, 256, 3), level, np.uint8) for level in (0, 128, 255)),
    ):
        data = encode(pixels, **kind)
        assert (
            abs(transforms.decode(data).astype(int) - pixels.reshape(*pixels.shape[:2], -1)).mean()
            < 4
        )
        transforms.decode(data + bytes(99))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, colour, rows=None):
    """An 8-bit PNG of `pixels` with only the first `rows` rows; all checksums are right."""
    lines = b"".join(b"\0" + line.tobytes() for line in pixels[:rows])
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, colour, 0, 0, 0)
    data = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_a_png_of_too_few_rows_is_refused():
    opaque = np.dstack([photo(64), np.full((64, 64), 255, np.uint8)])
    for pixels, colour in ((photo(64), 2), (photo(64)[..., 0], 0), (opaque, 6)):
        assert transforms.decode(png(pixels, colour)).shape == (64, 64, 3)
        refused(png(pixels, colour, rows=40))
    assert "bytes" in refused(png(opaque, 6, rows=63))


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 13])
def test_the_passes_of_an_interlaced_png_are_counted(side):
    pixels = np.full((side, side + 2, 4), 7, np.uint8)
    lines = b""
    for left, top, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
    ):
        lines += b"".join(
            b"\0" + line.tobytes() for line in pixels[top::down, left::right] if line.size
        )
    lines += b"".join(b"\0" + line.tobytes() for line in pixels[1::2])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side + 2, side, 8, 6, 0, 0, 1))

    def data(body):
        return (
            b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
        )

    transforms.decode(data(lines))
    refused(data(lines[:-1]))


def test_a_flat_drawing_may_be_large():
    """Its few bytes are whole, and the limit on pixels bounds what it takes in memory."""
    for format in ("PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.new("1", (6000, 4000)).save(
            buffer, format, **({"compression": "group4"} if format == "TIFF" else {})
        )
        assert 256 * len(buffer.getvalue()) < 3 * 6000 * 4000
        assert transforms.decode(buffer.getvalue()).shape == (4000, 6000, 3)
