"""Mask-predict and block-raster decoding: MaskGIT's arithmetic, and what every sampler must keep."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.generators import decoding

CODES = 11


def keys(batch, seed=0):
    return jax.random.split(jax.random.key(seed), batch)


def fixed_logits(number, seed=1):
    """A logits function that depends on all tokens, as a model's does."""
    table = jax.random.normal(jax.random.key(seed), (CODES + 1, number, CODES))

    def tokens_to_logits(tokens):
        mean = jnp.mean(jax.nn.one_hot(tokens, CODES + 1), axis=1)
        return jnp.einsum("bv,vnc->bnc", mean, table)

    return tokens_to_logits


def recorded(function, log):
    """`function`, noting every input in `log` as NumPy."""

    def run(*inputs):
        jax.debug.callback(lambda *x: log.append([np.asarray(i) for i in x]), *inputs, ordered=True)
        return function(*inputs)

    return run


def recordings(golden):
    found = sorted(golden.glob("maskgit_transformer*.npz"))
    assert found, f"no maskgit_transformer*.npz in {golden}"
    return [np.load(path, allow_pickle=False) for path in found]


def test_number_masked_is_the_recorded_one(golden):
    for record in recordings(golden):
        config = json.loads(str(record["config"]))
        steps = config["decode"]["num_iter"]
        unknown = jnp.asarray((record["in/start"] == -1).sum(-1))  # MaskGIT's mask id while decoding
        now = unknown
        for t in range(
            steps - 1
        ):  # after the last step MaskGIT masks one again and reads what was before; we mask none
            count = decoding.number_masked(t, steps, unknown, now, config["decode"]["method"])
            np.testing.assert_array_equal(count, record["out/trace_mask_len"][t].astype(int))
            np.testing.assert_array_equal(count, record["out/trace_masked_after"][t])
            now = count
        np.testing.assert_array_equal(decoding.number_masked(steps - 1, steps, unknown, now), 0)


def test_schedule_is_the_recorded_one(golden):
    for record in recordings(golden):
        ratio = record["in/schedule_ratio"]
        np.testing.assert_allclose(
            np.clip(decoding.cosine(ratio), 1e-6, 1), record["out/schedule/cosine/256"], rtol=1e-6, atol=1e-7
        )
        np.testing.assert_allclose(
            np.clip(decoding.linear(ratio), 1e-6, 1), record["out/schedule/uniform/256"], rtol=1e-6, atol=1e-7
        )


def test_lowest_is_the_recorded_random_top_k(golden):
    for record in recordings(golden):
        count, log_p = jnp.asarray(record["in/topk_mask_len"][:, 0]), np.log(record["in/topk_probs"])
        for temperature in (0, 3):
            confidence = jnp.asarray(log_p + temperature * record["in/topk_gumbel_noise"])
            np.testing.assert_array_equal(
                decoding.lowest(confidence, count), record[f"out/topk_masking_T{temperature}"].astype(bool)
            )


def maskgit(tokens_to_logits, tokens, keys, steps, choice_temperature):
    """MaskGIT's decoding written out step by step, as its code does it: sort, cut off, read before re-masking."""
    tokens = np.array(tokens)
    start = (tokens == CODES).sum(-1)
    for t in range(steps):
        logits = np.asarray(tokens_to_logits(jnp.asarray(tokens)), np.float32)
        split = [jax.random.split(jax.random.fold_in(key, t)) for key in keys]
        noise = np.stack([jax.random.gumbel(k[0], logits.shape[1:]) for k in split])
        choice = np.stack([jax.random.gumbel(k[1], logits.shape[1:2]) for k in split])
        unknown = tokens == CODES
        sampled = np.where(unknown, (logits + noise).argmax(-1), tokens)
        ratio = (t + 1) / steps
        log_p = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), sampled[..., None], -1)[..., 0]
        confidence = np.where(unknown, log_p + choice_temperature * (1 - ratio) * choice, np.inf)
        count = np.floor(start * np.clip(np.cos(np.pi / 2 * ratio), 1e-6, 1))
        count = np.maximum(1, np.minimum(unknown.sum(-1) - 1, count)).astype(int)
        cut_off = np.take_along_axis(np.sort(confidence, -1), count[:, None], -1)
        tokens = np.where(confidence < cut_off, CODES, sampled)
    return sampled


@pytest.mark.parametrize("temperature", [0.0, 4.5])
def test_one_block_without_extension_is_maskgit(temperature):
    """Paper, Sec. 4.4: W_s = latent size degrades into MaskGIT."""
    h = w = 6
    logits = fixed_logits(h * w)
    ids, mask = jnp.zeros((3, h, w), jnp.int32), jnp.ones((3, h, w), bool)
    ours = decoding.block_raster(
        lambda grid, block: logits, ids, mask, keys(3), window=6, codes=CODES, steps=5, choice_temperature=temperature
    )
    block_keys = [jax.random.fold_in(key, 0) for key in keys(3)]
    theirs = maskgit(logits, np.full((3, h * w), CODES), block_keys, 5, temperature)
    np.testing.assert_array_equal(np.asarray(ours).reshape(3, -1), theirs)


def test_window_of_one_is_autoregression():
    """Paper, Sec. 4.4: W_s = 1 performs as an autoregressive method: each token in raster order, given all before."""
    log = []

    def context(grid, block):
        recorded(lambda *_: None, log)(grid, block)
        return lambda tokens: jnp.zeros((2, 1, CODES))

    ids, mask = jnp.zeros((2, 3, 4), jnp.int32), jnp.ones((2, 3, 4), bool)
    out = np.asarray(decoding.block_raster(context, ids, mask, keys(2), window=1, codes=CODES, steps=8))
    assert [int(block) for _, block in log] == list(range(12))
    for grid, block in log:
        np.testing.assert_array_equal(grid.reshape(2, -1)[:, :block], out.reshape(2, -1)[:, :block])
        assert (grid.reshape(2, -1)[:, block:] == CODES).all()


@pytest.mark.parametrize("steps", [1, 3, 8, 40])
def test_every_masked_token_is_filled_exactly_once(steps):
    log = []
    rng = np.random.default_rng(0)
    tokens = np.where(rng.random((4, 12)) < 0.6, CODES, rng.integers(0, CODES, (4, 12))).astype(np.int32)
    tokens[3] = 2  # nothing to do here
    logits = recorded(fixed_logits(12), log)
    out = np.asarray(decoding.mask_predict(logits, jnp.asarray(tokens), keys(4), codes=CODES, steps=steps))
    states = [state for (state,) in log] + [out]
    assert len(states) == steps + 1
    for before, after in itertools.pairwise(states):
        known = before != CODES
        np.testing.assert_array_equal(after[known], before[known])  # once filled, a token stays
        assert ((after == CODES).sum(-1) <= (before == CODES).sum(-1)).all()
    assert ((out >= 0) & (out < CODES)).all()


def test_confidence_decides_over_several_steps():
    """The first step must not fill the whole block (with argmax or anything else)."""
    log = []
    tokens = jnp.full((2, 64), CODES, jnp.int32)
    decoding.mask_predict(recorded(fixed_logits(64), log), tokens, keys(2), codes=CODES, steps=8)
    masked = [int((state == CODES).sum()) // 2 for (state,) in log]
    assert masked == [64, 62, 59, 53, 45, 35, 24, 12]  # floor(64 cos(pi t / 16))


def test_sampling_is_random_and_temperature_zero_is_not():
    tokens = jnp.full((1, 16), CODES, jnp.int32)
    run = lambda seed, t: np.asarray(  # noqa: E731
        decoding.mask_predict(
            fixed_logits(16), tokens, keys(1, seed), codes=CODES, temperature=t, choice_temperature=0.0
        )
    )
    assert (run(0, 1.0) != run(1, 1.0)).any()
    np.testing.assert_array_equal(run(0, 0.0), run(1, 0.0))


def raster(ids, mask, log=None, batch_keys=None, steps=3):
    """block_raster over 2x2 blocks with logits that depend on the whole grid and on the block."""
    table = jax.random.normal(jax.random.key(5), (ids.shape[1] * ids.shape[2], CODES + 1, 4 * CODES))
    batch_keys = keys(len(ids)) if batch_keys is None else batch_keys

    def context(grid, block):
        if log is not None:
            recorded(lambda *_: None, log)(grid, block)
        one_hot = jax.nn.one_hot(grid.reshape(grid.shape[0], -1), CODES + 1)
        seen = jnp.einsum("bnv,nvc->bc", one_hot, table).reshape(-1, 4, CODES) + block
        return lambda tokens: seen + jax.nn.one_hot(tokens, CODES)

    return decoding.block_raster(context, ids, mask, batch_keys, window=2, codes=CODES, steps=steps)


def test_nothing_of_a_later_block_is_visible_to_an_earlier_one():
    log = []
    out = np.asarray(raster(jnp.ones((2, 4, 6), jnp.int32), jnp.ones((2, 4, 6), bool), log))
    blocks = lambda grid: np.asarray(decoding.blocks_of(jnp.asarray(grid), 2))  # noqa: E731
    assert [int(block) for _, block in log] == list(range(6))
    for grid, block in log:
        assert (blocks(grid)[:, block:] == CODES).all()
        np.testing.assert_array_equal(blocks(grid)[:, :block], blocks(out)[:, :block])


def test_known_tokens_never_change_and_blocks_without_work_are_skipped():
    log = []
    ids = jax.random.randint(jax.random.key(0), (2, 4, 6), 0, CODES)
    mask = np.zeros((2, 4, 6), bool)
    mask[0, 1:3, 1:3] = True
    mask[1, 3, 5] = True
    out = np.asarray(raster(ids, jnp.asarray(mask), log))
    np.testing.assert_array_equal(out[~mask], np.asarray(ids)[~mask])
    assert (out < CODES).all() and (out >= 0).all()
    assert [int(block) for _, block in log] == [0, 1, 3, 4, 5]


def test_an_image_does_not_depend_on_its_batch():
    ids, mask = jnp.zeros((5, 4, 4), jnp.int32), jnp.ones((5, 4, 4), bool)
    together = raster(ids, mask)
    alone = raster(ids[:1], mask[:1], batch_keys=keys(5)[3:4])
    np.testing.assert_array_equal(together[3:4], alone)


def test_one_compilation_serves_all_blocks():
    traced = []

    def context(grid, block):
        traced.append(block)
        return lambda tokens: jnp.zeros((*tokens.shape, CODES))

    counts = []
    for side in (4, 16):
        traced.clear()
        ids = jnp.zeros((1, side, side), jnp.int32)
        jax.jit(lambda ids: decoding.block_raster(context, ids, ids == 0, keys(1), window=2, codes=CODES))(ids)
        counts.append(len(traced))
    assert counts[0] == counts[1] <= 2


def test_blocks_and_back():
    grid = jnp.arange(2 * 4 * 6).reshape(2, 4, 6)
    blocks = decoding.blocks_of(grid, 2)
    np.testing.assert_array_equal(blocks[0, 1], [2, 3, 8, 9])
    np.testing.assert_array_equal(decoding.grid_of(blocks, 4, 6, 2), grid)
    with pytest.raises(ValueError, match="cannot be cut"):
        decoding.block_raster(None, grid, grid > 0, keys(2), window=4, codes=CODES)
