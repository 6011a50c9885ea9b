"""Mask-predict and block-raster decoding: MaskGIT's arithmetic, and what every sampler must keep."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.generators import decoding
from evqgan.generators.blocks import blocks_of, layout

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
    ours = decoding.block_by_block(
        lambda *_: logits, ids, mask, keys(3), window=6, codes=CODES, steps=5, choice_temperature=temperature
    )
    block_keys = [jax.random.fold_in(key, 0) for key in keys(3)]
    theirs = maskgit(logits, np.full((3, h * w), CODES), block_keys, 5, temperature)
    np.testing.assert_array_equal(np.asarray(ours).reshape(3, -1), theirs)


def test_window_of_one_is_autoregression():
    """Paper, Sec. 4.4: W_s = 1 performs as an autoregressive method: each token in raster order, given all before."""
    log = []

    def context(_, grid, blocks):
        recorded(lambda *_: None, log)(grid, blocks[0])
        return lambda tokens: jnp.zeros((2, 1, CODES))

    ids, mask = jnp.zeros((2, 3, 4), jnp.int32), jnp.ones((2, 3, 4), bool)
    out = np.asarray(decoding.block_by_block(context, ids, mask, keys(2), window=1, codes=CODES, steps=8))
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


def fill(ids, mask, log=None, batch_keys=None, steps=3, **keywords):
    """block_by_block over 2x2 blocks with logits that depend on the whole grid and on the block."""
    table = jax.random.normal(jax.random.key(5), (ids.shape[1] * ids.shape[2], CODES + 1, 4 * CODES))
    batch_keys = keys(len(ids)) if batch_keys is None else batch_keys

    def context(_, grid, blocks):
        if log is not None:
            recorded(lambda *_: None, log)(grid, blocks)
        one_hot = jax.nn.one_hot(grid.reshape(grid.shape[0], -1), CODES + 1)
        seen = jnp.einsum("bnv,nvc->bc", one_hot, table).reshape(-1, 1, 4, CODES) + blocks[None, :, None, None]
        return lambda tokens: seen.reshape(-1, 4, CODES) + jax.nn.one_hot(tokens, CODES)

    return decoding.block_by_block(context, ids, mask, batch_keys, window=2, codes=CODES, steps=steps, **keywords)


def test_nothing_of_a_later_block_is_visible_to_an_earlier_one():
    log = []
    out = np.asarray(fill(jnp.ones((2, 4, 6), jnp.int32), jnp.ones((2, 4, 6), bool), log))
    blocks = lambda grid: np.asarray(blocks_of(jnp.asarray(grid), 2))  # noqa: E731
    assert [int(block[0]) for _, block in log] == list(range(6))
    for grid, (block,) in log:
        assert (blocks(grid)[:, block:] == CODES).all()
        np.testing.assert_array_equal(blocks(grid)[:, :block], blocks(out)[:, :block])


def test_known_tokens_never_change_and_blocks_without_work_are_skipped():
    log = []
    ids = jax.random.randint(jax.random.key(0), (2, 4, 6), 0, CODES)
    mask = np.zeros((2, 4, 6), bool)
    mask[0, 1:3, 1:3] = True
    mask[1, 3, 5] = True
    out = np.asarray(fill(ids, jnp.asarray(mask), log))
    np.testing.assert_array_equal(out[~mask], np.asarray(ids)[~mask])
    assert (out < CODES).all() and (out >= 0).all()
    assert [int(block[0]) for _, block in log] == [0, 1, 3, 4, 5]


def test_an_image_does_not_depend_on_its_batch():
    ids, mask = jnp.zeros((5, 4, 4), jnp.int32), jnp.ones((5, 4, 4), bool)
    together = fill(ids, mask)
    alone = fill(ids[:1], mask[:1], batch_keys=keys(5)[3:4])
    np.testing.assert_array_equal(together[3:4], alone)


def test_one_compilation_serves_all_blocks():
    traced = []

    def context(_, grid, block):
        traced.append(block)
        return lambda tokens: jnp.zeros((*tokens.shape, CODES))

    counts = []
    for side in (4, 16):
        traced.clear()
        ids = jnp.zeros((1, side, side), jnp.int32)
        jax.jit(lambda ids: decoding.block_by_block(context, ids, ids == 0, keys(1), window=2, codes=CODES))(ids)
        counts.append(len(traced))
    assert counts[0] == counts[1] <= 2


def test_wavefront_waits_for_all_that_raster_order_has_in_a_blocks_window():
    log = []
    ids, mask = jnp.ones((2, 8, 8), jnp.int32), jnp.ones((2, 8, 8), bool)
    out = np.asarray(fill(ids, mask, log, extend=1, order="wavefront"))
    assert ((out >= 0) & (out < CODES)).all()
    assert len(log) == 10 and max(len(set(block.tolist())) for _, block in log) == 2
    ring, _ = layout(8, 8, 2, 1)
    at = np.arange(64).reshape(8, 8)
    number = at // 16 * 4 + at % 8 // 2
    for grid, blocks in log:
        flat = grid.reshape(2, -1)
        for block in blocks:
            earlier = ring[block][(ring[block] >= 0) & (number.reshape(-1)[ring[block]] < block)]
            np.testing.assert_array_equal(flat[:, earlier], out.reshape(2, -1)[:, earlier])
            assert not np.isin(ring[block], np.flatnonzero(np.isin(number, np.setdiff1d(blocks, block)))).any()


def test_trace_shows_every_turn_and_ends_with_the_result():
    ids, mask = jnp.ones((2, 4, 6), jnp.int32), jnp.ones((2, 4, 6), bool)
    states, out = np.asarray(fill(ids, mask, trace=True)), np.asarray(fill(ids, mask))
    assert states.shape == (6, 2, 4, 6)
    assert [(state == CODES).sum() for state in states] == [2 * 4 * k for k in (5, 4, 3, 2, 1, 0)]
    np.testing.assert_array_equal(states[-1], out)


def test_top_k_and_top_p_keep_the_likeliest():
    logits = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.06, 0.04], [0.05, 0.05, 0.1, 0.7, 0.1]]))
    kept = lambda **keywords: np.isfinite(decoding.restrict(logits, **keywords)).tolist()  # noqa: E731
    assert kept() == [[True] * 5] * 2
    assert kept(top_k=2) == [[True, True, False, False, False], [False, False, True, True, True]]  # a tie stays
    assert kept(top_p=0.65) == [[True, True, False, False, False], [False, False, False, True, False]]
    assert kept(top_p=0.01) == [[True, False, False, False, False], [False, False, False, True, False]]
    # of the two that top_k leaves, the first has 4/7 of the probability
    assert kept(top_k=2, top_p=0.5)[0] == [True, False, False, False, False]
    np.testing.assert_array_equal(decoding.restrict(logits, top_k=99), logits)


def test_only_allowed_codes_are_sampled_and_their_shares_are_right():
    probabilities = jnp.array([0.5, 0.3, 0.15, 0.05])
    logits = jnp.broadcast_to(jnp.log(probabilities), (4000, 1, 4))
    tokens = jnp.full((4000, 1), 4, jnp.int32)

    def shares(**keywords):
        out = decoding.mask_predict(lambda _: logits, tokens, keys(4000), codes=4, steps=1, **keywords)
        return np.bincount(np.asarray(out)[:, 0], minlength=4) / 4000

    np.testing.assert_allclose(shares(), probabilities, atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.9), np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.03)
    squared = np.asarray(probabilities) ** 2
    np.testing.assert_allclose(shares(temperature=0.5), squared / squared.sum(), atol=0.03)
    assert shares(temperature=0.0)[0] == 1
    tokens = jnp.full((1, 16), CODES, jnp.int32)
    run = lambda **keywords: np.asarray(  # noqa: E731
        decoding.mask_predict(fixed_logits(16), tokens, keys(1), codes=CODES, steps=4, **keywords)
    )
    np.testing.assert_array_equal(run(final_temperature=1.0), run())
    assert (run(final_temperature=0.0) != run()).any()


def test_guidance_moves_away_from_what_is_likely_without_the_class():
    with_class, without = fixed_logits(16, 1), fixed_logits(16, 2)
    tokens = jnp.full((2, 16), CODES, jnp.int32)

    def run(logits, **keywords):
        return np.asarray(
            decoding.mask_predict(logits, tokens, keys(2), codes=CODES, steps=1, choice_temperature=0.0, **keywords)
        )

    pair = lambda t: (with_class(t), without(t))  # noqa: E731
    moved = lambda t: with_class(t) + 3 * (with_class(t) - without(t))  # noqa: E731
    np.testing.assert_array_equal(run(pair, guidance=3.0, guidance_schedule="constant"), run(moved))
    np.testing.assert_array_equal(run(pair, guidance=3.0), run(moved))  # in the last step the scale is full
    assert (run(moved) != run(with_class)).any()
    steps = jnp.linspace(0.1, 1, 10)
    for name, scale in decoding.GUIDANCE.items():
        shares = np.asarray(scale(steps))
        assert shares[-1] == 1 and (np.diff(shares) >= 0).all() and (shares >= 0).all(), name


@pytest.mark.parametrize("schedule", [*decoding.SCHEDULES, "pow1.5"])
def test_every_schedule_falls_from_all_to_none_and_fills_every_token(schedule):
    ratio = jnp.linspace(0.02, 1, 50)
    share = np.asarray(decoding.gamma(schedule, ratio, jnp.array(64)))
    assert (np.diff(share) <= 1e-6).all() and share[-1] <= 1e-5 and 0.0 < share[0] <= 1
    tokens = jnp.full((2, 64), CODES, jnp.int32)
    out = decoding.mask_predict(fixed_logits(64), tokens, keys(2), codes=CODES, steps=6, schedule=schedule)
    assert ((np.asarray(out) >= 0) & (np.asarray(out) < CODES)).all()


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"steps": 0}, "whole number from 1, not 0"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\], got 0 and 0.0"),
        ({"top_k": 2.5}, "top_k is a whole number from 0"),
        ({"temperature": -1.0}, "not negative"),
        ({"guidance": 1.0, "guidance_schedule": "up"}, "constant, linear, cosine"),
        ({"order": "spiral"}, "order is 'spiral'"),
    ],
)
def test_wrong_settings_end_in_one_line(keywords, message):
    ids = jnp.zeros((1, 4, 4), jnp.int32)
    with pytest.raises(InputError, match=message):
        fill(ids, ids == 0, **{"steps": 2, **keywords})


def test_a_grid_that_blocks_do_not_fill_is_refused():
    grid = jnp.zeros((2, 4, 6), jnp.int32)
    with pytest.raises(ValueError, match="cannot be cut"):
        decoding.block_by_block(None, grid, grid > 0, keys(2), window=4, codes=CODES)


def chain(depths, seed=2):
    """place and depth for `decoding.autoregress` whose logits are of a table by (place, depth, the code before)."""
    table = jax.random.normal(jax.random.key(seed), (12, depths, CODES, CODES)) * 3

    def place(carry, n, before):
        return carry + before.sum(), (n, before[:, -1])

    def depth(state, d, before):
        n, last = state
        given = jnp.where(d == 0, last, before)
        return state, table[n, d, given]

    return place, depth, table


@pytest.mark.parametrize("depths", [1, 3])
def test_codes_come_one_after_the_other_each_from_the_one_before(depths):
    place, depth, table = chain(depths)
    start = jnp.full((2, 12, depths), CODES)
    run = jax.jit(lambda ids: decoding.autoregress(place, depth, 0, ids, keys(2), codes=CODES, temperature=0.0))
    made, before = np.asarray(run(start)), np.zeros(2, int)
    for n, d in np.ndindex(12, depths):  # the places in order, at each its depths in order
        expected = np.asarray(table)[n, d, before].argmax(-1)
        np.testing.assert_array_equal(made[:, n, d], expected)
        before = expected
    known = start.at[:, :4].set(5)
    completed = np.asarray(run(known))
    assert (completed[:, :4] == 5).all() and (completed < CODES).all()
    assert (completed[0, 4, 0], made[0, 4, 0]) == (table[4, 0, 5].argmax(), made[0, 4, 0])


def test_each_image_is_drawn_by_its_own_key_and_as_its_logits_say():
    place, depth, table = chain(2)
    ids = jnp.full((6, 12, 2), CODES)
    run = jax.jit(lambda ids, keys, **k: decoding.autoregress(place, depth, 0, ids, keys, codes=CODES, **k))
    many = keys(6)
    made = run(ids, many)
    np.testing.assert_array_equal(run(ids[:2], many[4:]), made[4:])
    assert len({row.tobytes() for row in np.asarray(made)}) == 6
    number = 4000
    first = jax.jit(
        lambda k: decoding.autoregress(place, depth, 0, jnp.full((number, 1, 1), CODES), k, codes=CODES, top_k=3)
    )(keys(number, 7))[:, 0, 0]
    logits = np.asarray(table[0, 0, 0])
    allowed = np.argsort(-logits)[:3]
    chances = np.exp(logits[allowed]) / np.exp(logits[allowed]).sum()
    np.testing.assert_allclose([(first == code).mean() for code in allowed], chances, atol=0.03)
    assert set(np.unique(first)) <= set(allowed.tolist())


def test_rows_appear_one_after_the_other():
    start = jnp.full((1, 3, 2, 1), CODES).at[:, 0].set(4)
    grids = decoding.row_by_row(start, jnp.arange(6).reshape(1, 3, 2, 1), CODES)
    np.testing.assert_array_equal(grids[:, 0, :, 0, 0], [[0, CODES, CODES], [0, 2, CODES], [0, 2, 4]])


@pytest.mark.parametrize("settings", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}])
def test_settings_of_drawing_that_make_no_sense(settings):
    place, depth, _ = chain(1)
    with pytest.raises(InputError, match="the sampler's"):
        decoding.autoregress(place, depth, 0, jnp.full((1, 12, 1), CODES), keys(1), codes=CODES, **settings)


def test_only_what_follows_a_prefix_can_be_completed():
    mask = np.zeros((2, 3, 3), bool)
    mask[0, 1, 1:] = mask[0, 2] = mask[1] = True
    decoding.check_prefix(mask, "gpt")
    decoding.check_prefix(np.zeros((1, 2, 2), bool), "gpt")
    mask[0, 2, 0] = False
    with pytest.raises(InputError, match="the gpt generator makes tokens in raster order"):
        decoding.check_prefix(mask, "gpt")
