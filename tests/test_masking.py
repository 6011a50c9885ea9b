"""What the generator trains on: moments of sampling and editing, or the paper's masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.generators import masking, multigrained
from evqgan.generators.blocks import NOWHERE, blocks_of, ring_and_target, step_of_block
from evqgan.generators.multigrained_network import GLOBAL_TOKENS

CODES = 23
KEYS = {
    "codes": CODES,
    "latent": (6, 8),
    "window": 2,
    "extend": 1,
    "layers": 1,
    "width": 8,
    "heads": 2,
}
MODELS = {
    name: multigrained.Model(**KEYS, code_width=4, global_tokens=name) for name in GLOBAL_TOKENS
}
RING, TARGET = ring_and_target(6, 8, 2, 1)


def drawn(masks, targets, batch=400, seed=1, tokens="masked", **keywords):
    ids = jax.random.randint(jax.random.key(0), (batch, 6, 8), 0, CODES)
    run = jax.jit(
        lambda ids, key: masking.corrupt(MODELS[tokens], ids, key, masks, targets, **keywords)
    )
    inputs, target, is_masked = jax.tree.map(np.asarray, run(ids, jax.random.key(seed)))
    return np.asarray(ids), inputs, target, is_masked


def of_blocks(grid):
    return np.asarray(blocks_of(jnp.asarray(grid), 2))


def test_what_is_generated_and_when():
    run = jax.jit(lambda key: masking.draw_generations(MODELS["ordered"], key, 800, 0.5, 0.25))
    hidden, rank = (np.asarray(x) for x in run(jax.random.key(0)))
    whole = hidden.all(axis=(1, 2))
    assert 0.45 < whole.mean() < 0.6  # a rectangle may be the whole image
    orders = [step_of_block(6, 8, 2, 1, order) + 1 for order in ("raster", "wavefront")]
    some = of_blocks(hidden).any(-1)
    agrees = np.array(
        [
            [(r == np.where(s, order, 0)).all() for order in orders]
            for r, s in zip(rank, some, strict=True)
        ]
    )
    assert agrees.any(axis=1).all() and 0.18 < (~agrees[whole, 0]).mean() < 0.32


@pytest.mark.parametrize("number", [1, 5, 12])
def test_every_block_once_in_as_many_moments_as_there_are_blocks(number):
    """Uniform, without repetition within an image, evenly over any run of images."""
    every = jnp.ones((24, 12), bool)
    seen = np.zeros(12)
    for seed in range(20):
        block, real = (
            np.asarray(x) for x in masking.draw_blocks(jax.random.key(seed), every, number)
        )
        assert real.all() and all(len(set(row)) == number for row in block)
        counts = np.bincount(block.ravel(), minlength=12)
        assert (counts == 2 * number).all()
        seen += np.bincount(block[:1, 0], minlength=12)
    assert (seen > 0).sum() > 5  # where the circle begins is random


def test_where_candidates_are_few_the_rest_is_not_real():
    candidates = np.array(jax.random.bernoulli(jax.random.key(0), 0.3, (200, 12)))
    candidates[:, 3] = True
    block, real = (
        np.asarray(x) for x in masking.draw_blocks(jax.random.key(1), jnp.asarray(candidates), 4)
    )
    np.testing.assert_array_equal(real.sum(1), np.minimum(candidates.sum(1), 4))
    for row, ok, these in zip(block, real, candidates, strict=True):
        assert these[row[ok]].all() and len(set(row)) == 4


@pytest.mark.parametrize("tokens", GLOBAL_TOKENS)
def test_a_moment_of_sampling_knows_what_came_before_and_nothing_else(tokens):
    """By the definition, target by target.

    Known is what was never hidden, and blocks whose turn is over.
    """
    ids, inputs, _, is_masked = drawn("matched", 12, tokens=tokens, edits=0.5, wavefronts=0.25)
    _, ordered, *_ = drawn("matched", 12, tokens="ordered", edits=0.5, wavefronts=0.25)
    rank, block = ordered["rank"], inputs["block"]
    now = np.take_along_axis(rank, block, 1)
    for i in range(400):
        for k in range(12):
            real = now[i, k] > 0
            assert is_masked[i, k].any() == real  # a block that was given teaches nothing
            if not real:
                continue
            before = rank[i] < now[i, k]
            if tokens == "masked":
                shown = of_blocks(inputs["grid"][i, k][None])[0]
                np.testing.assert_array_equal(shown[before], of_blocks(ids[i][None])[0][before])
                assert (shown[rank[i] >= now[i, k]] == CODES).any(axis=1).all()
    if tokens == "ordered":
        # Whole: attention hides what is not made yet.
        np.testing.assert_array_equal(inputs["grid"][:, 0], ids)


def test_rectangles_are_rectangles_of_all_sizes():
    drawn = np.asarray(masking.random_rectangle(jax.random.key(0), 500, 6, 8))
    rows, columns = drawn.any(axis=2), drawn.any(axis=1)
    np.testing.assert_array_equal(drawn, rows[:, :, None] & columns[:, None])
    for side, length in ((rows, 6), (columns, 8)):
        sizes = side.sum(axis=1)
        assert set(sizes) == set(range(1, length + 1))
        assert (np.abs(np.diff(side.astype(int), axis=1)).sum(axis=1) <= 2).all()  # in one piece
    assert drawn.any(axis=0).all()


@pytest.mark.parametrize("masks", ["matched", "raster"])
def test_targets_are_partly_masked_and_all_else_is_known_or_not(masks):
    ids, inputs, target, is_masked = drawn(masks, 2)
    block = inputs["block"]
    grid = inputs["grid"].reshape(400, 2, -1)
    inside = RING[block] != NOWHERE
    in_ring = np.take_along_axis(grid, np.maximum(RING[block], 0), -1)
    np.testing.assert_array_equal(inputs["ring"][inside], in_ring[inside])
    assert (inputs["ring"][~inside] == CODES).all()
    np.testing.assert_array_equal(
        target, np.take_along_axis(ids.reshape(400, 1, 48).repeat(2, 1), TARGET[block], -1)
    )
    np.testing.assert_array_equal(inputs["target"], np.where(is_masked, CODES, target))
    known = grid != CODES
    np.testing.assert_array_equal(grid[known], ids.reshape(400, 1, -1).repeat(2, 1)[known])
    # Masked are exactly ceil(gamma n) of the target's n hidden tokens.
    # It is at least one, of those that have any.
    open_tokens = np.take_along_axis(~known, TARGET[block], -1)
    real = is_masked.any(-1)
    assert (is_masked <= open_tokens)[real].all() and real.mean() > 0.8
    if masks == "raster":
        assert real.all() and open_tokens.all()
        visible = np.stack(
            [(of_blocks(inputs["grid"][:, k]) != CODES).all(-1) for k in range(2)], axis=1
        )
        np.testing.assert_array_equal(visible, np.arange(12) < block[..., None])
        # ceil(4 cos(pi r / 2)), r uniform: 4 where cos > 3/4, and so on.
        count = is_masked.sum(-1)
        edges = np.arccos(np.array([1, 0.75, 0.5, 0.25, 0])) * 2 / np.pi
        found = np.bincount(count.ravel(), minlength=5)[:0:-1] / count.size
        np.testing.assert_allclose(found, np.diff(edges), atol=0.06)


def test_paper_masks_are_one_uniform_mask_and_independent_blocks():
    ids, inputs, _, is_masked = drawn("paper", 0)
    # One X_G an image; the model hides each target's own block.
    assert (inputs["grid"] == inputs["grid"][:, :1]).all()
    blocks = of_blocks(inputs["grid"][:, 0])
    hidden = (blocks == CODES).all(-1)
    # Whole blocks.
    assert ((blocks == CODES).any(-1) == hidden).all() and (hidden.sum(1) >= 1).all()
    np.testing.assert_allclose(hidden.mean(), 2 / np.pi, atol=0.06)  # the mean of cos(pi r / 2)
    assert (np.sort(inputs["block"], axis=1) == np.arange(12)).all()  # Eq. 2: every block once
    # One token mask for an image: targets and rings show the same tokens masked.
    token_mask = np.full((400, 48), -1)
    for i in range(400):
        for k in range(12):
            token_mask[i, TARGET[inputs["block"][i, k]]] = is_masked[i, k]
        for k in range(12):
            at = RING[inputs["block"][i, k]]
            told = at != NOWHERE
            expected = np.where(token_mask[i, at] == 1, CODES, ids[i].reshape(-1)[at])
            np.testing.assert_array_equal(inputs["ring"][i, k][told], expected[told])
    assert (token_mask >= 0).all()
    np.testing.assert_allclose(token_mask.mean(), 2 / np.pi, atol=0.06)


def test_random_mask_takes_exactly_the_share_of_the_candidates():
    candidates = jax.random.bernoulli(jax.random.key(0), 0.6, (50, 10))
    found = np.asarray(
        masking.random_mask(jax.random.key(1), candidates, jnp.linspace(0.02, 1, 50))
    )
    n = np.asarray(candidates).sum(-1)
    np.testing.assert_array_equal(found.sum(-1), np.ceil(np.float32(np.linspace(0.02, 1, 50)) * n))
    assert (found <= np.asarray(candidates)).all()
    assert not masking.random_mask(jax.random.key(1), jnp.zeros((2, 4), bool), jnp.ones(2)).any()


def test_wrong_settings_are_named():
    model, ids, rng = MODELS["ordered"], jnp.zeros((1, 6, 8), jnp.int32), jax.random.key(0)
    for keywords, message in (
        ({"masks": "paper"}, 'needs generator.global_tokens = "masked"'),
        ({"targets": 13}, r"0 \(all\) or up to the 12 blocks, got 13"),
    ):
        with pytest.raises(InputError, match=message):
            masking.corrupt(model, ids, rng, **{"masks": "matched", "targets": 1, **keywords})
