"""Editing: nothing of the hidden pixels comes back, and known pixels stay.

Canvases of any size are filled whole.
"""

import copy
import functools
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import workdirs
from scipy import ndimage

import evqgan
from evqgan.core.errors import InputError
from evqgan.data import generated
from evqgan.generators import Traits
from evqgan.generators.autoregressive import check_suffix
from evqgan.inference import editing, tiling
from evqgan.inference.class_names import Classes
from evqgan.inference.planning import checked_edit_labels

LEFT = np.zeros((32, 32), bool)
LEFT[5:20, :13] = True  # touches tokens 1 to 4 by 0 to 3, the last ones in part
MADE = 63  # the code a Painter makes


@pytest.fixture(scope="module")
def model():
    return evqgan.load(workdirs.trained())


def picture(index=0, shape=(32, 32)):
    return generated.draw(index, 3, shape)


class Painter:
    """A model whose token is the grey of its 4 x 4 pixels, 4 levels a code.

    It makes code MADE, as white as can be. It remembers what it was asked: masks, seeds, and how
    many images at once.
    """

    size, factor, grid, depth = (32, 32), 4, (8, 8), 1
    classes, sampler = 0, {}

    def __init__(self, fills="any"):
        self.generator = types.SimpleNamespace(traits=Traits(fills=fills))
        self.masks, self.seeds, self.batches = [], [], set()
        self.runner = types.SimpleNamespace(clock=lambda: 0.0)

    def known_classes(self, what):
        return Classes(self.classes, (), "a painter")

    def check_settings(self, changes):
        assert not changes

    def check_mask(self, mask):
        assert mask.shape[1:] == (8, 8) and mask.dtype == bool and mask.any()

    def to_ids(self, images):
        assert images.shape[1:] == (32, 32, 3) and images.dtype == np.uint8
        self.batches.add(len(images))
        return (images[..., :1].reshape(-1, 8, 4, 8, 4, 1).mean(axis=(2, 4)) // 4).astype(np.int32)

    def to_images(self, ids):
        assert ids.shape[1:] == (8, 8, 1)
        self.batches.add(len(ids))
        return (ids * 4).repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3).astype(np.uint8)

    def fill(self, ids, mask, labels, seed, changes):
        assert (
            ids.shape[1:] == (8, 8, 1)
            and mask.shape == ids.shape[:-1]
            and mask.any()
            and not changes
        )
        self.batches.add(len(ids))
        self.masks.append(mask[0])
        self.seeds.append(seed)
        return np.where(mask[..., None], MADE, ids)


class Echo(Painter):
    """A Painter that makes of each token the mean of those that its window knows."""

    def fill(self, ids, mask, labels, seed, changes):
        return np.where(mask[..., None], int(ids[~mask].mean()) if (~mask).any() else 7, ids)


def grey_tokens(shape, seed=0):
    """An image [H,W,3] of 4 x 4 squares, of greys darker than MADE.

    A Painter encodes and decodes these greys as they are.
    """
    squares = np.random.default_rng(seed).integers(0, 50, [-(-side // 4) for side in shape]) * 4
    whole = squares.repeat(4, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]]
    return np.repeat(whole[..., None], 3, axis=-1).astype(np.uint8)


def test_holes_take_the_colour_of_the_nearest_pixel():
    image = picture()
    image[LEFT] = 255
    painted = editing.painted_over(image, LEFT)
    np.testing.assert_array_equal(painted[~LEFT], image[~LEFT])
    np.testing.assert_array_equal(painted[10, 12], image[10, 13])
    np.testing.assert_array_equal(painted[6, 2], image[4, 2])
    assert (editing.painted_over(image, np.ones_like(LEFT)) == 128).all()  # nothing is near


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (4, 9), (64, 31)])
def test_every_token_with_a_hidden_pixel_is_touched_and_no_other(shape):
    rng = np.random.default_rng(0)
    mask = rng.random(shape) < 0.02
    grid = tiling.touched(mask, 4, (8, 8))
    assert grid.shape == tuple(max(8, -(-side // 4)) for side in shape)
    for y, x in np.ndindex(*grid.shape):
        pixels = mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        assert grid[y, x] == (pixels.any() or not pixels.size)


def test_what_a_generator_cannot_fill_is_refused_before_anything_is_made():
    """A generator that completes from a prefix fills no box and no column.

    It fills the lower part, also of a canvas of three windows.
    """
    model = Painter("suffix")
    model.check_mask = functools.partial(check_suffix, name="gpt")
    image = grey_tokens((32, 32))
    lower = np.zeros((32, 32), bool)
    lower[16:] = True
    assert (
        editing.edit(model, image[None], lower, margin=0, feather=0)[0][lower] == MADE * 4
    ).all()
    assert len(model.masks) == 1
    made = editing.outpaint(model, image[None], 0, 0, 0, 40)
    assert made.shape == (1, 72, 32, 3) and len(model.masks) == 4
    for refused in (LEFT, lower.T, ~lower):
        with pytest.raises(InputError, match="the gpt generator makes tokens in raster order"):
            editing.edit(model, image[None], refused)
    for grown in ((0, 0, 8, 0), (0, 0, 40, 0), (8, 0, 0, 0), (0, 8, 0, 0)):
        with pytest.raises(InputError, match="raster order"):
            editing.outpaint(model, image[None], *grown)
    assert len(model.masks) == 4


class Counter(Painter):
    """A Painter of raster order: a token is one more than the last one before it in its window."""

    check_mask = staticmethod(functools.partial(check_suffix, name="gpt"))

    def fill(self, ids, mask, labels, seed, changes):
        super().fill(ids, mask, labels, seed, changes)
        check_suffix(mask, "gpt")
        flat = ids.reshape(-1).copy()
        for i in np.flatnonzero(mask):
            flat[i] = flat[i - 1] + 1 if i else 0
        return flat.reshape(ids.shape)


@pytest.mark.parametrize("shape, first", [((16, 20), 5), ((8, 20), 1), ((9, 9), 8), ((8, 12), 7)])
def test_the_lower_part_of_a_wider_picture_is_made_in_raster_order(shape, first):
    """Whatever is made sees all that its window has to its left and above, and stays."""
    unknown = np.zeros(shape, bool)
    unknown[first:] = True
    ids = np.zeros((1, *shape, 1), np.int32)
    counter = Counter("suffix")
    holes = editing.holes_in(counter, unknown)
    editing.fill(counter, ids, holes, np.zeros(1, np.int32), 3, {})
    assert counter.seeds[0] == 3 and counter.seeds[1:] == [[3, n] for n in range(1, len(holes))]
    assert (ids[0, :first] == 0).all()
    for row in ids[0, first:, :, 0]:  # each token was made after the one on its left
        np.testing.assert_array_equal(np.diff(row), 1)


def test_a_panorama_grows_downwards_with_a_generator_of_raster_order():
    model = Counter("suffix")
    image = grey_tokens((32, 80))
    made = editing.outpaint(model, image[None], 0, 0, 0, 20, margin=0, feather=0)
    assert made.shape == (1, 52, 80, 3)
    np.testing.assert_array_equal(made[0, :32], image)
    assert len(model.masks) == 5 * 4  # rows of tokens, windows a row


@pytest.mark.parametrize("margin", [0, 1, 3])
def test_the_margin_counts_diagonals_and_knows_no_tokens_beyond_the_border(margin):
    grid = np.zeros((9, 12), bool)
    grid[2, 3] = True
    wide = tiling.dilated(grid, margin)
    y, x = np.indices(grid.shape)
    np.testing.assert_array_equal(wide, np.maximum(abs(y - 2), abs(x - 3)) <= margin)
    assert not tiling.dilated(np.zeros((3, 3), bool), margin).any()


@pytest.mark.parametrize("feather", [0, 2, 2.5])
def test_feathers_fall_from_hidden_to_known_pixels(feather):
    weight = editing.feathered(LEFT, feather)
    assert (weight[LEFT] == 1).all()
    distance = ndimage.distance_transform_edt(~LEFT)
    np.testing.assert_array_equal(weight > 0, distance < feather + 1)
    np.testing.assert_allclose(
        weight[10, 12:16], np.clip(1 - np.arange(4) / (feather + 1), 0, 1), atol=1e-6
    )
    assert (editing.feathered(np.ones_like(LEFT), feather) == 1).all()


@pytest.mark.parametrize(
    "length, size", [(8, 8), (9, 8), (12, 8), (15, 8), (100, 8), (31, 6), (7, 1), (20, 5)]
)
def test_tiles_cover_and_their_weights_sum_to_one(length, size):
    starts = tiling.tiles(length, size)
    assert starts[0] == 0 and starts[-1] == length - size and sorted(set(starts)) == starts
    assert max(np.diff(starts), default=0) <= max(size // 2, 1)
    total, steps = np.zeros(length), []
    for start, weights in zip(starts, tiling.ramps(starts, size, length), strict=True):
        assert (weights > 0).all()
        total[start : start + size] += weights
        steps.extend(abs(np.diff(weights)))
    np.testing.assert_allclose(total, 1, atol=1e-6)
    # No edge shows.
    assert min(len(starts) - 1, size // 4) == 0 or max(steps) <= 2 / (size // 2 + 1)


@pytest.mark.parametrize("seed", range(30))
def test_windows_make_everything_from_what_is_known(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(2, 6, 2) * 2)
    canvas = tuple(side + rng.integers(0, 20) for side in size)
    if seed % 2:
        unknown = rng.random(canvas) < rng.choice([0.02, 0.5, 0.98])
        unknown[0, 0] = False
    else:
        known = tuple(rng.integers(1, side + 1) for side in canvas)
        top, left = (
            rng.integers(0, side - own + 1) for side, own in zip(canvas, known, strict=True)
        )
        unknown = np.ones(canvas, bool)
        unknown[top : top + known[0], left : left + known[1]] = False
    left = unknown.copy()
    for y, x in tiling.windows(unknown, size):
        part = left[y : y + size[0], x : x + size[1]]
        assert part.shape == size and part.any() and not part.all()
        part[:] = False
    assert not left.any()


def test_windows_go_half_a_window_at_a_time():
    unknown = np.ones((8, 101), bool)
    unknown[:, 40:48] = False
    corners = tiling.windows(unknown, (8, 8))
    # Outwards; the last one flush with the end.
    assert corners[:2] == [(0, 36), (0, 44)] and corners[-1] == (0, 93)
    assert {x for _, x in corners} == {*range(0, 40, 4), *range(44, 93, 4), 93}
    around = np.ones((24, 24), bool)
    around[8:16, 8:16] = False
    assert len(tiling.windows(around, (8, 8))) <= 24  # all places half a window apart are 25
    assert tiling.windows(np.ones((8, 8), bool), (8, 8)) == [(0, 0)]
    assert len(tiling.windows(np.ones((8, 16), bool), (8, 8))) == 3


def test_a_hole_of_half_a_window_is_filled_at_once_from_all_sides():
    unknown = np.zeros((40, 40), bool)
    unknown[11:15, 21:25] = True
    assert tiling.windows(unknown, (8, 8)) == [(9, 19)]


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_those_of_windows(seed):
    grid = np.random.default_rng(seed).integers(0, 9, (7, 11))
    found = tiling.sums(grid, (3, 4))
    assert found.shape == (5, 8)
    for y, x in np.ndindex(*found.shape):
        assert found[y, x] == grid[y : y + 3, x : x + 4].sum()


@pytest.mark.parametrize("shape", [(32, 32), (35, 50), (20, 9), (90, 41)])
@pytest.mark.parametrize("num", [1, 3])
def test_images_of_any_size_are_edited(shape, num):
    painter, image, mask = Painter(), grey_tokens(shape), np.zeros(shape, bool)
    mask[6:12, 2:7] = True
    made = editing.edit(painter, image[None], mask, num=num, margin=0, feather=0)
    expected = np.where(mask[..., None], np.uint8(4 * MADE), image)
    np.testing.assert_array_equal(made, [expected] * num)
    assert painter.batches == {num}  # one size to compile for, and all the device ever holds


def test_an_image_of_one_pixel_is_edited_by_the_defaults():
    image, mask = np.zeros((1, 1, 1, 3), np.uint8), np.ones((1, 1), bool)
    assert editing.edit(Painter(), image, mask).shape == (1, 1, 1, 3)
    with pytest.raises(InputError, match="a feather of 2 pixels reaches beyond the image of 1x1"):
        editing.edit(Painter(), image, mask, feather=2)


@pytest.mark.parametrize(
    "shape, margins",
    [
        ((32, 32), (0, 0, 0, 9)),
        ((32, 32), (300, 0, 5, 0)),
        ((13, 22), (3, 31, 2, 1)),
        ((32, 32), (40, 41, 42, 43)),
        ((5, 6), (1, 1, 1, 1)),
    ],
)
def test_images_grow_on_any_side_by_any_amount(shape, margins):
    painter, image, (left, top, right, bottom) = Painter(), grey_tokens(shape), margins
    made = editing.outpaint(painter, image[None], *margins, num=2, margin=1, feather=0)
    expected = np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=4 * MADE)
    # Every pixel beyond the image is made, the image is as it was.
    np.testing.assert_array_equal(made, [expected] * 2)
    assert painter.batches == {2}
    assert painter.seeds == [0, *([0, n] for n in range(1, len(painter.seeds)))]


def test_windows_see_what_earlier_ones_made():
    """Each token is made once, and no window makes one that is known."""
    painter = Painter()
    editing.outpaint(painter, grey_tokens((32, 32))[None], 64, 0, 0, 0, margin=0)
    assert [mask.sum() for mask in painter.masks] == [32] * 4
    assert all(mask[:, :4].all() and not mask[:, 4:].any() for mask in painter.masks)


def test_the_margin_is_made_anew_and_the_rest_is_encoded():
    image, mask = grey_tokens((32, 32)), np.zeros((32, 32), bool)
    mask[13:18, 13:15] = True
    for margin, inside in ((0, np.s_[3:5, 3:4]), (1, np.s_[2:6, 2:5]), (2, np.s_[1:7, 1:6])):
        painter, expected = Painter(), np.zeros((8, 8), bool)
        expected[inside] = True
        editing.edit(painter, image[None], mask, margin=margin)
        np.testing.assert_array_equal(painter.masks, [expected])


@pytest.mark.parametrize(
    "side, factor, margin, feather", [(32, 4, 0, 2), (256, 16, 1, 8), (256, 8, 1, 4)]
)
def test_margin_and_feather_follow_the_grid(side, factor, margin, feather):
    model = types.SimpleNamespace(grid=(side // factor, side // factor), factor=factor)
    assert editing.extent(model, None, None) == (margin, feather)
    assert editing.extent(model, 3, 0) == (3, 0)


@pytest.mark.parametrize("feather", [0, 3])
def test_known_pixels_stay_outside_the_feather(feather):
    painter, image = Painter(), grey_tokens((40, 64))
    mask = np.zeros((40, 64), bool)
    mask[10:30, 7:33] = True
    made = editing.edit(painter, image[None], mask, margin=2, feather=feather)[0]
    near = (ndimage.distance_transform_edt(~mask) < feather + 1) & ~mask
    np.testing.assert_array_equal(made[~near & ~mask], image[~near & ~mask])
    assert (made[mask] == 4 * MADE).all()
    assert near.any() == bool(feather)
    # Between known and made.
    assert (made[near] > image[near]).all() and (made[near] < 4 * MADE).all()


def test_overlapping_tiles_agree():
    """Tokens and pixels are those of the whole image, wherever a tile begins and ends."""
    painter, image = Painter(), grey_tokens((60, 84))
    ids = editing.encode(painter, image, np.ones((15, 21), bool), 2)
    np.testing.assert_array_equal(ids[1, ..., 0] * 4, image[::4, ::4, 0])
    tiles = editing.tiles_over(painter, (15, 21), np.ones((60, 84), bool))
    made = editing.decode(painter, ids, tiles, image.shape)
    np.testing.assert_allclose(made, [image] * 2, atol=1e-4)


@pytest.mark.parametrize("at, tiles", [((5, 780), 2), ((100, 400), 4)])
def test_only_tiles_that_matter_are_encoded_and_decoded(at, tiles):
    """What an edit costs goes by its hole, not by the picture around it."""
    painter, image = Painter(), grey_tokens((200, 800))
    mask = np.zeros((200, 800), bool)
    mask[at] = True
    calls = []
    for name in ("to_ids", "to_images"):
        do = getattr(painter, name)
        setattr(painter, name, lambda x, do=do, name=name: calls.append(name) or do(x))
    made = editing.edit(painter, image[None], mask, margin=0, feather=0)[0]
    assert made[at].tolist() == [4 * MADE] * 3
    np.testing.assert_array_equal(made[~mask], image[~mask])
    assert calls.count("to_ids") <= 25 and calls.count("to_images") == tiles
    # The window sees the picture around the hole as it is.
    whole = editing.encode(Painter(), image, np.ones((50, 200), bool), 1)
    np.testing.assert_array_equal(whole[0, ..., 0] * 4, image[::4, ::4, 0])


@pytest.mark.parametrize("shape, at", [((96, 160), np.s_[30:70, 50:120]), ((64, 64), np.s_[:9])])
def test_windows_and_tiles_see_no_token_that_was_not_encoded(shape, at, monkeypatch):
    image, mask = grey_tokens(shape), np.zeros(shape, bool)
    mask[at] = True

    def edited(encode):
        monkeypatch.setattr(editing, "encode", encode)
        return editing.edit(Echo(), image[None], mask, margin=1, feather=3)

    encode = editing.encode
    everything = edited(lambda *given: encode(*given[:2], np.ones_like(given[2]), given[3]))
    np.testing.assert_array_equal(edited(encode), everything)


@pytest.mark.parametrize(
    "shape, margin, feather", [((32, 32), None, None), ((32, 32), 0, 0), ((45, 60), 0, 3)]
)
def test_hidden_pixels_cannot_matter(model, shape, margin, feather):
    image, mask = picture(shape=shape), np.zeros(shape, bool)
    mask[9:22, 2:17] = True
    made = model.edit(image, mask, 1, num=2, margin=margin, feather=feather)
    rng = np.random.default_rng(0)
    for hidden in (0, 255, rng.integers(0, 256, image[mask].shape)):
        other = image.copy()
        other[mask] = hidden
        np.testing.assert_array_equal(
            model.edit(other, mask, 1, num=2, margin=margin, feather=feather), made
        )
    assert (made[:, mask] != image[mask]).any()
    other = image.copy()
    other[~mask] = 255 - other[~mask]
    assert (
        model.edit(other, mask, 1, num=2, margin=margin, feather=0)[:, mask] != made[:, mask]
    ).any()


def test_results_are_many_and_depend_on_the_seed_alone(model):
    made = model.edit(picture(), LEFT, 1, num=3)
    assert made.shape == (3, 32, 32, 3) and made.dtype == np.uint8
    assert (made[0] != made[1]).any() and (made[1] != made[2]).any() and (made[0] != made[2]).any()
    np.testing.assert_array_equal(model.edit(picture(), LEFT, "bee", num=3), made)
    assert (model.edit(picture(), LEFT, 1, num=3, seed=1) != made).any()
    grown = model.outpaint(picture(), 40, 3, 0, 0, 1, num=2)
    assert (grown[0] != grown[1]).any()
    np.testing.assert_array_equal(model.outpaint(picture(), 40, 3, 0, 0, 1, num=2), grown)


def test_all_hidden_is_generation(model):
    everything = np.ones((32, 32), bool)
    np.testing.assert_array_equal(
        model.edit(picture(), everything, 4, num=4, seed=5), model.generate(4, [4], seed=5)
    )


def test_windows_draw_of_their_own(model):
    """A flat picture that grows far.

    Were the randomness of windows the same, so would be what they make.
    """
    flat = np.full((32, 32, 3), 128, np.uint8)
    model, made = copy.copy(model), []

    def fill(*args, **how):
        made.append(type(model).fill(model, *args, **how))
        return made[-1]

    model.fill = fill
    model.outpaint(flat, 0, 0, 128, 0, 1, feather=0)
    assert len({part[0, :, 4:].tobytes() for part in made}) == len(made) > 4
    # And no mask token is left.
    assert min(map(np.min, made)) >= 0 and max(map(np.max, made)) < model.codes


def test_edits_are_of_the_class_and_with_the_sampler_asked_for(model):
    def sampler_of(settings):
        assert settings == model.settings({"temperature": 0.5})
        return lambda state, ids, mask, labels, *rest: jnp.where(
            mask[..., None], labels[:, None, None, None], ids
        )

    model = copy.copy(model)
    model._sampler_of = functools.cache(sampler_of)
    made = model.edit(picture(), LEFT, "jay", num=3, margin=7, feather=0, temperature=0.5)
    np.testing.assert_array_equal(made[:, LEFT], model.decode(np.full((3, 8, 8, 1), 9))[:, LEFT])
    with pytest.raises(
        InputError, match=r"there is no class 'zzz': .*, or a name: one of ant, bee, cat"
    ):
        model.edit(picture(), LEFT, "zzz")


def test_a_panorama_compiles_nothing_and_tells_how_far_it_is(caplog):
    def compiled(use):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            use()
        return [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]

    model, told = evqgan.load(workdirs.trained(), batch_size=2), []
    assert compiled(lambda: model.edit(picture(), LEFT, 1, num=2))  # or this test sees nothing
    grow = functools.partial(model.outpaint, picture(2), 70, 20, 21, 3, 2, num=2, seed=1)
    assert not compiled(lambda: grow(progress=lambda *now: told.append(now)))
    assert not compiled(
        lambda: model.edit(picture(1, (64, 96)), np.ones((64, 96), bool), 2, num=2, feather=5)
    )
    done, total, seconds = zip(*told, strict=True)
    assert done == tuple(range(1, total[0] + 1)) and set(total) == {done[-1]}
    assert sorted(seconds) == list(seconds) and seconds[0] > 0


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"mask": np.ones((32, 28), bool)},
            r"of the image's size, 32x32, got 28x32 \(width x height\)",
        ),
        (
            {"mask": np.ones((32, 32, 3), bool)},
            r"got an array of the shape \[32, 32, 3\]: give one channel",
        ),
        ({"mask": np.zeros((32, 32), bool)}, "the mask hides nothing"),
        ({"mask": np.full((32, 32), np.nan)}, "got float64 with infinite ones or NaN"),
        ({"mask": np.arange(3) * np.ones((32, 32, 1))}, "got float64 with 2 values beside 0"),
        ({"image": np.zeros((2, 32, 32, 3), np.uint8)}, "expected one image to edit, got 2"),
        ({"label": None}, "editing needs a label, .*--label.*: a whole number from 0 to 9"),
        (
            {"margin": 10**9},
            "a margin of 1,000,000,000 tokens, 4 pixels each, reaches beyond the image of 32x32",
        ),
        (
            {"feather": 10**9},
            r"a feather of 1,000,000,000 pixels reaches beyond the image of 32x32",
        ),
        ({"num": 10**12}, r"1,000,000,000,000 results would take [\d,.]+ GiB, and there are"),
        ({"num": 0}, "expected at least one image to generate, a whole number, got 0"),
        (
            {"seed": -1},
            "expected a seed that is a whole number from 0 to 9223372036854775807, got -1",
        ),
        ({"margin": -1}, "expected a margin that is a whole number of tokens from 0, got -1"),
        ({"margin": 0.5}, "expected a margin that is a whole number of tokens from 0, got 0.5"),
        ({"guidance": 1.5}, "guidance is 1.5, but the generator was trained without"),
        ({"labels": [3]}, "there is no keyword 'labels': did you mean 'label'"),
        ({"label": "10"}, "there is no class '10': expected a whole number from 0 to 9$"),
        *(
            ({"label": several}, "expected one class for an edit, .* got .*: edit once for each")
            for several in ([3, 5], (3,), np.array([3, 5]), ["cat"], {3})
        ),
        ({"feather": -1}, "expected a feather that is a number of pixels from 0, got -1"),
        (
            {"feather": float("nan")},
            "expected a feather that is a number of pixels from 0, got nan",
        ),
        ({"fether": 1}, "there is no keyword 'fether': did you mean 'feather'"),
    ],
)
def test_edits_that_cannot_be_are_refused(model, changes, message):
    given = {"image": picture(), "mask": LEFT, "label": 1} | changes
    with pytest.raises(InputError, match=message) as error:
        model.edit(**given)
    assert "\n" not in str(error.value) and str(error.value).count("expected") < 2
    if "label" in changes:
        with pytest.raises(InputError, match=message):
            model.outpaint(picture(), left=4, label=changes["label"])


@pytest.mark.parametrize("number, refused", [(0, False), (1, False), (2, True)])
def test_where_there_is_one_class_an_edit_is_of_that_class(number, refused):
    asked = Classes(number, (), "w"), (32, 32), None, 3, 0
    if refused:
        with pytest.raises(InputError, match="editing needs a label"):
            checked_edit_labels(*asked)
    else:
        assert checked_edit_labels(*asked).tolist() == [0, 0, 0]


def test_what_an_edit_costs_is_known_before_it_begins(monkeypatch):
    painter, image = Painter(), grey_tokens((32, 32))[None]
    with pytest.raises(
        InputError, match="an image of 1000000032x32 .*, in 1 way, would take 953.7 GiB"
    ):
        editing.outpaint(painter, image, 10**9, 0, 0, 0)
    monkeypatch.setattr(editing, "MAX_WINDOWS", 3)
    with pytest.raises(
        InputError,
        match="this takes 4 windows to fill, which are more than 3: ask for less, or lift",
    ):
        editing.outpaint(painter, image, 64, 0, 0, 0, margin=0)
    assert not painter.seeds
    editing.outpaint(painter, image, 64, 0, 0, 0, margin=0, force=True)
    assert painter.seeds


@pytest.mark.parametrize("margins", [(-4, 0, 4, 0), (0, 0, 0, 0), (1.5, 0, 0, 0), (True, 0, 0, 0)])
def test_margins_that_cannot_be_are_refused(model, margins):
    with pytest.raises(
        InputError, match="expected margins in whole pixels from 0 on, one of them more, got"
    ):
        model.outpaint(picture(), *margins, 1)


@pytest.mark.parametrize("name, what", [("margin", "a margin that is"), ("feather", "a feather")])
def test_true_is_no_number_of_tokens_or_pixels(model, name, what):
    with pytest.raises(InputError, match=f"expected {what}.*got True"):
        model.outpaint(picture(), 4, label=1, **{name: True})
