"""Pictures keep every pixel of what they are made of."""

import numpy as np
import pytest
from PIL import Image

from evqgan.core import pictures
from evqgan.core.errors import InputError


def some(number, height=5, width=7):
    return np.random.default_rng(0).integers(0, 200, (number, height, width, 3)).astype(np.uint8)


def test_a_grid_holds_the_images_in_reading_order():
    images = some(5)
    picture = pictures.grid(images, columns=3, gap=2)
    assert picture.shape == (2 * 5 + 2, 3 * 7 + 2 * 2, 3) and picture.dtype == np.uint8
    for i, image in enumerate(images):
        top, left = i // 3 * 7, i % 3 * 9
        np.testing.assert_array_equal(picture[top : top + 5, left : left + 7], image)
    assert (picture[7:, 18:] == 255).all() and (picture[5:7] == 255).all()


@pytest.mark.parametrize(
    "number, shape", [(1, (5, 7)), (4, (12, 16)), (10, (3 * 5 + 4, 4 * 7 + 6))]
)
def test_a_grid_is_square_by_default(number, shape):
    assert pictures.grid(some(number)).shape[:2] == shape


def test_rows_and_columns_take_different_sizes():
    small, large = some(1)[0], some(1, 8, 9)[0]
    side = pictures.row([small, large], gap=1)
    np.testing.assert_array_equal(side[:5, :7], small)
    np.testing.assert_array_equal(side[:, 8:], large)
    below = pictures.column([small, large], gap=1)
    np.testing.assert_array_equal(below[:5, :7], small)
    np.testing.assert_array_equal(below[6:], large)


def test_the_error_map_is_zero_where_pictures_agree_and_does_not_wrap():
    a, b = some(2)
    b[:, :3] = a[:, :3]
    a[0, 6], b[0, 6], a[1, 6], b[1, 6] = 0, 255, 3, 1
    error = pictures.error_map(a, b)
    assert (error[:, :3] == 0).all() and (error[0, 6] == 255).all() and (error[1, 6] == 8).all()
    np.testing.assert_array_equal(error, pictures.error_map(b, a))


def test_bars_are_as_high_as_their_numbers():
    picture = pictures.bars([1, 2, 4, 0], height=96, width=512)
    assert picture.shape == (96, 512, 3) and picture.dtype == np.uint8
    heights = (picture == pictures.INK).all(axis=-1).sum(axis=0)
    np.testing.assert_array_equal(heights[64::128], [24, 48, 96, 0])
    many = pictures.bars(np.arange(2000), height=50, width=100)
    heights = (many == pictures.INK).all(axis=-1).sum(axis=0)
    assert (np.diff(heights) >= 0).all() and heights[-1] == 50 and heights[0] < 2
    assert not (pictures.bars([0, 0]) == pictures.INK).any()


def test_a_label_leaves_the_picture_as_it_is():
    image = some(1)[0]
    labelled = pictures.label(image, "input and reconstruction")
    np.testing.assert_array_equal(labelled[-5:, :7], image)
    band = labelled[:-5]
    assert band.min() < 128 and (band[0] == 255).all() and (band[:, -1] == 255).all()


def test_labels_are_equally_high_and_as_wide_as_told():
    image = some(1)[0]
    bands = [pictures.label(image, text)[:-5] for text in ("ace", "Åg", "jp ", "")]
    assert {band.shape[0] for band in bands} == {bands[0].shape[0]}
    assert pictures.label(image, "a long name").shape[1] == pictures.width_of("a long name") > 7


def test_a_whole_picture_is_told_from_a_damaged_one(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    assert not pictures.is_whole(file)
    pictures.save_png(file, some(1)[0], {"mode": "sample"})
    whole = file.read_bytes()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)  # a large one of ours is no bomb
    assert pictures.is_whole(file)
    changed = bytearray(whole)
    changed[-20] ^= 1
    for damaged in (b"", whole[:20], whole[: len(whole) // 2], whole[:-8], bytes(changed)):
        file.write_bytes(damaged)
        assert not pictures.is_whole(file)


def test_a_saved_picture_comes_back(tmp_path):
    image = some(1)[0]
    pictures.save_png(tmp_path / "samples" / "x.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples" / "x.png")), image)
    with pytest.raises(InputError, match=r"cannot write .*x\.png"):
        pictures.save_png(tmp_path / "samples" / "x.png" / "x.png", image)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.uint8)]
)
def test_what_is_no_uint8_rgb_picture_is_refused(wrong, tmp_path):
    for function in (
        lambda: pictures.row([wrong]),
        lambda: pictures.save_png(tmp_path / "x.png", wrong),
    ):
        with pytest.raises(ValueError, match="expected a uint8 image"):
            function()
    assert not list(tmp_path.iterdir())
