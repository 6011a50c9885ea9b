"""What the generator trains on: moments of sampling and editing, or the paper's masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.generators import masking, multigrained
from evqgan.generators.blocks import NOWHERE, blocks_of, layout, turns

CODES = 23
MODEL = multigrained.Model(codes=CODES, latent=(6, 8), window=2, extend=1, layers=1, width=8, heads=2, code_width=4)
RING, TARGET = layout(6, 8, 2, 1)


def drawn(masks, targets, batch=400, seed=1):
    ids = jax.random.randint(jax.random.key(0), (batch, 6, 8), 0, CODES)
    run = jax.jit(lambda ids, key: masking.corrupt(MODEL, ids, key, masks, targets))
    inputs, target, is_masked = jax.tree.map(np.asarray, run(ids, jax.random.key(seed)))
    return np.asarray(ids), inputs, target, is_masked


def test_a_moment_of_sampling_knows_what_came_before_and_nothing_else():
    """By the definition, example by example: known is what was never hidden, and hidden blocks whose turn is over."""
    run = jax.jit(lambda key: masking.as_in_sampling(MODEL, key, 400, 3, edits=True))
    hidden, known, block = (np.asarray(x) for x in run(jax.random.key(0)))
    hidden, known = (np.asarray(blocks_of(jnp.asarray(x), 2)) for x in (hidden, known))
    orders, used = [turns(6, 8, 2, 1, order) for order in ("raster", "wavefront")], []
    for i in range(400):
        target = block[i, 0]
        agrees = [(known[i] == (~hidden[i] | (turn < turn[target])[:, None])).all() for turn in orders]
        assert any(agrees) and hidden[i, target].any()
        used.append(agrees)
        still_open = (~known[i]).any(axis=-1)
        assert still_open[block[i]].all() and len(set(block[i])) == min(3, still_open.sum())
    used, whole = np.array(used), hidden.all(axis=(1, 2))
    assert 0.4 < whole.mean() < 0.6  # EDITS
    assert 0.07 < (~used[whole, 0]).mean() < 0.19  # WAVEFRONTS, and for half of the blocks the two orders know the same
    counts = np.bincount(block[whole, 0], minlength=12) / whole.sum()
    np.testing.assert_allclose(counts, 1 / 12, atol=0.06)


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
    grid = inputs["grid"].reshape(400, -1)
    inside = RING[block] != NOWHERE
    in_ring = np.take_along_axis(grid[:, None].repeat(2, 1), np.maximum(RING[block], 0), -1)
    np.testing.assert_array_equal(inputs["ring"][inside], in_ring[inside])
    assert (inputs["ring"][~inside] == CODES).all()
    np.testing.assert_array_equal(target, np.take_along_axis(ids.reshape(400, 1, 48).repeat(2, 1), TARGET[block], -1))
    np.testing.assert_array_equal(inputs["target"], np.where(is_masked, CODES, target))
    known = grid != CODES
    np.testing.assert_array_equal(grid[known], ids.reshape(400, -1)[known])
    # Masked are exactly ceil(gamma n) of the target's n hidden tokens, at least one.
    open_tokens = np.take_along_axis(~known[:, None].repeat(2, 1), TARGET[block], -1)
    assert (is_masked <= open_tokens).all() and (is_masked.sum(-1) >= 1).all()
    if masks == "raster":
        assert (open_tokens.all(-1)).all()
        visible = (np.asarray(blocks_of(jnp.asarray(inputs["grid"]), 2)) != CODES).all(-1)
        np.testing.assert_array_equal(visible, np.arange(12) < block[:, :1])
        # ceil(4 cos(pi r / 2)), r uniform: 4 where cos > 3/4, and so on.
        count = is_masked.sum(-1)
        edges = np.arccos(np.array([1, 0.75, 0.5, 0.25, 0])) * 2 / np.pi
        found = np.bincount(count.ravel(), minlength=5)[:0:-1] / count.size
        np.testing.assert_allclose(found, np.diff(edges), atol=0.06)


def test_paper_masks_are_one_uniform_mask_and_independent_blocks():
    ids, inputs, _, is_masked = drawn("paper", 0)
    blocks = np.asarray(blocks_of(jnp.asarray(inputs["grid"]), 2))
    hidden = (blocks == CODES).all(-1)
    assert ((blocks == CODES).any(-1) == hidden).all() and (hidden.sum(1) >= 1).all()  # whole blocks
    np.testing.assert_allclose(hidden.mean(), 2 / np.pi, atol=0.06)  # the mean of cos(pi r / 2)
    assert np.take_along_axis(hidden, inputs["block"], 1).all()  # targets are masked there
    # One token mask for an image: targets and rings show the same tokens masked.
    token_mask = np.full((400, 48), -1)
    for i in range(400):
        for k in range(12):
            at = TARGET[inputs["block"][i, k]]
            assert (np.isin(token_mask[i, at], [-1]) | (token_mask[i, at] == is_masked[i, k])).all()
            token_mask[i, at] = is_masked[i, k]
        for k in range(12):
            at = RING[inputs["block"][i, k]]
            told = (at != NOWHERE) & (token_mask[i, np.maximum(at, 0)] >= 0)
            expected = np.where(token_mask[i, at] == 1, CODES, ids[i].reshape(-1)[at])
            np.testing.assert_array_equal(inputs["ring"][i, k][told], expected[told])
    everything = token_mask >= 0
    np.testing.assert_allclose(token_mask[everything].mean(), 2 / np.pi, atol=0.06)


def test_random_mask_takes_exactly_the_share_of_the_candidates():
    candidates = jax.random.bernoulli(jax.random.key(0), 0.6, (50, 10))
    found = np.asarray(masking.random_mask(jax.random.key(1), candidates, jnp.linspace(0.02, 1, 50)))
    n = np.asarray(candidates).sum(-1)
    np.testing.assert_array_equal(found.sum(-1), np.ceil(np.float32(np.linspace(0.02, 1, 50)) * n))
    assert (found <= np.asarray(candidates)).all()
    assert not masking.random_mask(jax.random.key(1), jnp.zeros((2, 4), bool), jnp.ones(2)).any()


def test_all_targets_of_a_whole_image_are_all_its_open_blocks():
    _, inputs, _, _ = drawn("raster", 0, batch=100)
    for grid, block in zip(inputs["grid"], inputs["block"], strict=True):
        unknown = (np.asarray(blocks_of(jnp.asarray(grid[None]), 2))[0] == CODES).any(-1)
        assert set(block) == set(np.flatnonzero(unknown))  # fewer than slots: some come again


def test_unknown_masks_are_named():
    with pytest.raises(InputError, match="matched, raster, paper, not 'cosine'"):
        masking.corrupt(MODEL, jnp.zeros((1, 6, 8), jnp.int32), jax.random.key(0), "cosine", 1)
