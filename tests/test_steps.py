"""The picture of images being filled: it begins with nothing and ends with the image.

It loses nothing in between.
"""

import itertools

import numpy as np
import pytest
import workdirs

import evqgan
from evqgan.inference import filmstrip


@pytest.fixture(scope="module")
def model():
    yield evqgan.load(workdirs.trained(), batch_size=4)


@pytest.mark.parametrize("turns, number", [(1, 2), (4, 5), (15, 16), (64, 16)])
def test_frames_go_from_nothing_to_the_image(turns, number):
    rng = np.random.default_rng(turns)
    turn = rng.permutation(64).reshape(8, 8) * turns // 64  # when each token is made
    states = np.where(np.arange(turns)[:, None, None] >= turn, 5, 64)[..., None]
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    frames = filmstrip.frames(states, image, 64)
    assert frames.shape == (number, 32, 32, 3) and frames.dtype == np.uint8
    assert (frames[0] == 128).all()
    np.testing.assert_array_equal(frames[-1], image)
    shown = [(frame == image).all(axis=-1) for frame in frames]
    for before, after in itertools.pairwise(shown):
        assert (after | ~before).all() and after.sum() > before.sum()
    grey = [(frame == 128).all(axis=-1) for frame in frames]
    for seen, hidden in zip(shown, grey, strict=True):
        assert (seen ^ hidden).mean() > 0.99  # but for pixels of the image that are grey themselves


def test_an_image_is_filled_block_by_block(model):
    made = model.sample(6, ["cat", 3], 7)
    states = model.history(made["labels"], made["numbers"], 7)
    assert states.shape == (6, 4, 8, 8, 1) and states.max() == model.codes
    np.testing.assert_array_equal(states[:, -1], made["ids"])
    # Windows of 4 x 4 tokens in reading order.
    for turn, (y, x) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
        block = states[:, :, y : y + 4, x : x + 4]
        assert (block[:, :turn] == model.codes).all() and (block[:, turn:] < model.codes).all()
        np.testing.assert_array_equal(
            block[:, turn:], np.repeat(block[:, turn : turn + 1], 4 - turn, axis=1)
        )


def test_the_picture_shows_the_first_images(model):
    made = model.sample(6, ["cat", 3], 7)
    picture = filmstrip.picture(model, made["labels"], made["numbers"], 7)
    assert picture.shape == (4 * 32 + 3 * 2, 5 * 32 + 4 * 2, 3) and picture.dtype == np.uint8
    for i in range(4):
        row = picture[i * 34 : i * 34 + 32]
        assert (row[:, :32] == 128).all()
        np.testing.assert_array_equal(row[:, -32:], made["images"][i])
        np.testing.assert_array_equal(row[:16, 34:50], made["images"][i, :16, :16])
        assert (row[16:, 34:66] == 128).all()
