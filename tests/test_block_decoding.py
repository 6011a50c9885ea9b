"""Decoding block by block: its degenerate cases, what a block sees, and what must stay."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_mask_predict import CODES, fixed_logits, keys, written_out

from evqgan.generators.block_decoding import block_by_block
from evqgan.generators.blocks import Layout, blocks_of, ring_and_target
from evqgan.generators.halton import halton_rank
from evqgan.generators.mask_predict import MaskPredict


def noted(log, *inputs):
    """Note the inputs in `log` as NumPy, when they are computed."""
    jax.debug.callback(lambda *x: log.append([np.asarray(i) for i in x]), *inputs, ordered=True)


@dataclasses.dataclass
class FromContext:
    """A `BlockModel` that carries nothing, by its function `context`."""

    context: Callable
    layout: Layout
    codes: int = CODES

    def begin(self):
        return ()

    def complete(self, carry, grid, blocks):
        return carry


def decoded(context, ids, mask, keys, steps=3, sampler=None, *, window, extend=0, **how):
    """`block_by_block`, compiled whole."""
    model = FromContext(context, Layout(*ids.shape[1:], window, extend))
    settings = MaskPredict(steps=steps, **(sampler or {}))
    run = jax.jit(lambda *given: block_by_block(model, *given, settings, **how))
    made = run(jnp.asarray(ids), jnp.asarray(mask), keys)
    jax.effects_barrier()
    return made


def whole(batch, h, w):
    """ids and mask of images of which nothing is known."""
    return np.ones((batch, h, w), np.int32), np.ones((batch, h, w), bool)


def test_one_block_without_extension_is_maskgit():
    """Paper, Sec. 4.4: W_s = latent size degrades into MaskGIT."""
    logits = fixed_logits(36)
    ours = decoded(lambda *_: logits, *whole(3, 6, 6), keys(3), steps=5, window=6).tokens
    block_keys = jax.vmap(jax.random.fold_in, (0, None))(keys(3), 0)
    theirs = written_out(logits, np.full((3, 36), CODES), block_keys, 5, 4.5)
    np.testing.assert_array_equal(np.asarray(ours).reshape(3, -1), theirs)


def test_window_of_one_is_autoregression():
    """Paper, Sec. 4.4: with W_s = 1 each token comes in raster order, given all before."""
    log = []

    def context(_, grid, blocks):
        noted(log, grid, blocks[0])
        return lambda tokens: jnp.zeros((2, 1, CODES))

    out = np.asarray(decoded(context, *whole(2, 3, 4), keys(2), steps=8, window=1).tokens)
    assert [int(block) for _, block in log] == list(range(12))
    for grid, block in log:
        np.testing.assert_array_equal(grid.reshape(2, -1)[:, :block], out.reshape(2, -1)[:, :block])
        assert (grid.reshape(2, -1)[:, block:] == CODES).all()


def fill(ids, mask, log=None, batch_keys=None, **how):
    """Fill 2 x 2 blocks by logits that depend on the whole grid and on the block."""
    shape = (ids.shape[1] * ids.shape[2], CODES + 1, 4 * CODES)
    table = np.float32(np.random.default_rng(5).standard_normal(shape))

    def context(_, grid, blocks):
        if log is not None:
            noted(log, grid, blocks)
        one_hot = jax.nn.one_hot(grid.reshape(grid.shape[0], -1), CODES + 1)
        seen = jnp.einsum("bnv,nvc->bc", one_hot, table).reshape(-1, 1, 4, CODES)
        seen = (seen + blocks[None, :, None, None]).reshape(-1, 4, CODES)
        return lambda tokens: seen + jax.nn.one_hot(tokens, CODES)

    batch_keys = keys(len(ids)) if batch_keys is None else batch_keys
    return decoded(context, ids, mask, batch_keys, window=2, **how)


def test_nothing_of_a_later_block_is_visible_to_an_earlier_one():
    log = []
    made = fill(*whole(2, 4, 6), log, keep_history=True)
    out = np.asarray(made.tokens)
    blocks = functools.partial(blocks_of, window=2)
    assert [int(block[0]) for _, block in log] == list(range(6))
    for grid, (block,) in log:
        assert (blocks(grid)[:, block:] == CODES).all()
        np.testing.assert_array_equal(blocks(grid)[:, :block], blocks(out)[:, :block])
    history = np.asarray(made.history)  # each step adds a block, and the last one is the result
    assert history.shape == (6, 2, 4, 6)
    assert [(state == CODES).sum() for state in history] == [2 * 4 * k for k in (5, 4, 3, 2, 1, 0)]
    np.testing.assert_array_equal(history[-1], out)


def test_known_tokens_never_change_and_blocks_without_work_are_skipped():
    log = []
    ids = np.random.default_rng(0).integers(0, CODES, (2, 4, 6)).astype(np.int32)
    mask = np.zeros((2, 4, 6), bool)
    mask[0, 1:3, 1:3] = True
    mask[1, 3, 5] = True
    made = fill(ids, mask, log)
    out = np.asarray(made.tokens)
    assert made.history is None
    np.testing.assert_array_equal(out[~mask], ids[~mask])
    assert (out < CODES).all() and (out >= 0).all()
    assert [int(block[0]) for _, block in log] == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("sampler", [{}, {"choice": "halton", "remask": 0.5}])
def test_an_image_does_not_depend_on_its_batch(sampler):
    together = fill(*whole(5, 4, 4), sampler=sampler).tokens
    alone = fill(*whole(1, 4, 4), batch_keys=keys(5)[3:4], sampler=sampler).tokens
    np.testing.assert_array_equal(together[3:4], alone)


def test_the_halton_order_is_of_each_block():
    log = []

    def context(_, grid, blocks):
        def tokens_to_logits(tokens):
            noted(log, tokens)
            return jnp.zeros((1, 16, CODES))

        return tokens_to_logits

    sampler = {"choice": "halton", "schedule": "linear"}
    decoded(context, *whole(1, 4, 8), keys(1), steps=16, window=4, sampler=sampler)
    masked = [np.flatnonzero(tokens[0] == CODES) for (tokens,) in log]
    order = np.argsort(halton_rank(4, 4))
    assert [set(m) for m in masked] == [set(order[k:]) for k in range(16)] * 2


def test_one_compilation_serves_all_blocks():
    traced = []

    def context(_, grid, block):
        traced.append(block)
        return lambda tokens: jnp.zeros((*tokens.shape, CODES))

    counts = []
    for side in (4, 16):
        traced.clear()
        decoded(context, *whole(1, side, side), keys(1), steps=2, window=2)
        counts.append(len(traced))
    assert counts[0] == counts[1] <= 2


def test_wavefront_waits_for_all_that_raster_order_has_in_a_blocks_window():
    log = []
    out = np.asarray(fill(*whole(2, 8, 8), log, extend=1, order="wavefront").tokens)
    assert ((out >= 0) & (out < CODES)).all()
    assert len(log) == 10 and max(len(set(block.tolist())) for _, block in log) == 2
    ring, _ = ring_and_target(8, 8, 2, 1)
    at = np.arange(64).reshape(8, 8)
    number = (at // 16 * 4 + at % 8 // 2).reshape(-1)
    for grid, blocks in log:
        flat = grid.reshape(2, -1)
        others = [np.flatnonzero(np.isin(number, np.setdiff1d(blocks, block))) for block in blocks]
        for block, other in zip(blocks, others, strict=True):
            earlier = ring[block][(ring[block] >= 0) & (number[ring[block]] < block)]
            np.testing.assert_array_equal(flat[:, earlier], out.reshape(2, -1)[:, earlier])
            assert not np.isin(ring[block], other).any()


def test_a_grid_that_blocks_do_not_fill_is_refused():
    with pytest.raises(ValueError, match="cannot be cut"):
        decoded(None, *whole(2, 4, 6), keys(2), window=4)
