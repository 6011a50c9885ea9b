"""Mask-predict decoding: MaskGIT's arithmetic, its schedules and settings."""

import functools
import itertools
import types
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.generators.guidance import GUIDANCE_SCHEDULES
from evqgan.generators.mask_predict import MaskPredict, image_noise, mask_predict
from evqgan.generators.mask_schedule import Named, gamma
from evqgan.generators.sampling import first_largest

CODES = 11


def keys(batch, seed=0):
    return jax.random.split(jax.random.key(seed), batch)


@functools.cache
def fixed_logits(number, seed=1):
    """A logits function that depends on all tokens, as a model's does."""
    table = np.random.default_rng(seed).standard_normal((CODES + 1, number, CODES))
    table = table.astype(np.float32)

    def tokens_to_logits(tokens):
        mean = jnp.mean(jax.nn.one_hot(tokens, CODES + 1), axis=1)
        return jnp.einsum("bv,vnc->bnc", mean, table)

    return tokens_to_logits


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5, 6))
def decoded(tokens_to_logits, tokens, keys, settings, codes=CODES, first=0, history=False):
    """`mask_predict`, compiled whole."""
    given = tokens_to_logits, tokens, keys, settings
    return mask_predict(*given, codes=codes, first=first, keep_history=history)


def run(tokens_to_logits, tokens, keys, codes=CODES, **settings):
    made = decoded(tokens_to_logits, tokens, keys, MaskPredict(**settings), codes=codes)
    return np.asarray(made.tokens)


def written_out(tokens_to_logits, tokens, keys, steps, choice_temperature):
    """MaskGIT's decoding step by step, as its code has it: sort, cut off, read what was drawn."""
    tokens = np.array(tokens)
    start = (tokens == CODES).sum(-1)
    logits_of = jax.jit(tokens_to_logits)
    noise_of = jax.jit(image_noise(keys, tokens.shape[1], CODES))
    for t in range(steps):
        logits = np.asarray(logits_of(tokens), np.float32)
        noise, choice = noise_of(t)
        unknown = tokens == CODES
        sampled = np.where(unknown, (logits + noise).argmax(-1), tokens)
        ratio = (t + 1) / steps
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        log_p = np.take_along_axis(log_p, sampled[..., None], -1)[..., 0]
        confidence = np.where(unknown, log_p + choice_temperature * (1 - ratio) * choice, np.inf)
        count = np.floor(start * np.clip(np.cos(np.pi / 2 * ratio), 1e-6, 1))
        count = np.maximum(1, np.minimum(unknown.sum(-1) - 1, count)).astype(int)
        cut_off = np.take_along_axis(np.sort(confidence, -1), count[:, None], -1)
        tokens = np.where(confidence < cut_off, CODES, sampled)
    return sampled


@pytest.mark.parametrize("temperature", [0.0, 4.5])
def test_decoding_is_maskgits(temperature):
    logits, tokens = fixed_logits(36), np.full((3, 36), CODES, np.int32)
    ours = run(logits, tokens, keys(3), steps=5, choice_temperature=temperature)
    np.testing.assert_array_equal(ours, written_out(logits, tokens, keys(3), 5, temperature))


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_every_masked_token_is_filled_exactly_once(steps):
    rng = np.random.default_rng(0)
    tokens = np.where(rng.random((4, 12)) < 0.6, CODES, rng.integers(0, CODES, (4, 12)))
    tokens = tokens.astype(np.int32)
    tokens[3] = 2  # nothing to do here
    made = decoded(fixed_logits(12), tokens, keys(4), MaskPredict(steps=steps), history=True)
    states = [tokens, *np.asarray(made.history)]
    assert len(states) == steps + 1
    for before, after in itertools.pairwise(states):
        known = before != CODES
        np.testing.assert_array_equal(after[known], before[known])  # once filled, a token stays
        assert ((after == CODES).sum(-1) <= (before == CODES).sum(-1)).all()
    out = np.asarray(made.tokens)
    np.testing.assert_array_equal(out, states[-1])
    assert ((out >= 0) & (out < CODES)).all()


def test_the_history_costs_nothing_where_nobody_asks_for_it():
    given = fixed_logits(16), jnp.full((2, 16), CODES, jnp.int32), keys(2)
    settings = MaskPredict(steps=5)
    without, kept = (decoded(*given, settings, history=x) for x in (False, True))
    assert without.history is None and kept.history.shape == (5, 2, 16)
    np.testing.assert_array_equal(without.tokens, kept.tokens)

    def shapes(history):
        run = functools.partial(decoded, given[0], settings=settings, history=history)
        (inner,) = jax.make_jaxpr(lambda *x: run(*x))(*given[1:]).eqns
        return [x.aval.shape for equation in inner.params["jaxpr"].eqns for x in equation.outvars]

    assert (5, 2, 16) in shapes(True) and (5, 2, 16) not in shapes(False)


def test_decoding_may_begin_at_a_later_step():
    given = fixed_logits(16), jnp.full((2, 16), CODES, jnp.int32), keys(2), MaskPredict(steps=5)
    made = decoded(*given, first=2, history=True)
    assert made.history.shape == (3, 2, 16)
    number = [int((state == CODES).sum()) // 2 for state in made.history]
    assert number == [9, 4, 0]  # floor(16 cos(pi t / 10)), as from the beginning


def test_confidence_decides_over_several_steps():
    """The first step must not fill the whole block (with argmax or anything else)."""
    tokens = jnp.full((2, 64), CODES, jnp.int32)
    made = decoded(fixed_logits(64), tokens, keys(2), MaskPredict(steps=8), history=True)
    masked = [int((state == CODES).sum()) // 2 for state in made.history]
    assert masked == [62, 59, 53, 45, 35, 24, 12, 0]  # floor(64 cos(pi t / 16))


def test_sampling_is_random_and_temperature_zero_is_not():
    tokens = jnp.full((1, 16), CODES, jnp.int32)

    def once(seed, temperature):
        settings = {"temperature": temperature, "choice_temperature": 0.0}
        return run(fixed_logits(16), tokens, keys(1, seed), **settings)

    assert (once(0, 1.0) != once(1, 1.0)).any()
    np.testing.assert_array_equal(once(0, 0.0), once(1, 0.0))


def test_only_allowed_codes_are_sampled_and_their_shares_are_right():
    probabilities = np.float32([0.5, 0.3, 0.15, 0.05])
    tokens, many = jnp.full((4000, 1), 4, jnp.int32), keys(4000)

    def logits(tokens):
        return jnp.broadcast_to(jnp.log(probabilities), (4000, 1, 4))

    def shares(**settings):
        out = run(logits, tokens, many, codes=4, steps=1, **settings)
        return np.bincount(out[:, 0], minlength=4) / 4000

    np.testing.assert_allclose(shares(), probabilities, atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.9), np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.03)
    squared = probabilities**2
    np.testing.assert_allclose(shares(temperature=0.5), squared / squared.sum(), atol=0.03)
    assert shares(temperature=0.0)[0] == 1


def test_the_temperature_goes_to_the_final_one():
    given = fixed_logits(16), jnp.full((1, 16), CODES, jnp.int32), keys(1)
    stays = run(*given, steps=4)
    np.testing.assert_array_equal(run(*given, steps=4, final_temperature=1.0), stays)
    assert (run(*given, steps=4, final_temperature=0.0) != stays).any()


def test_guidance_moves_away_from_what_is_likely_without_the_class():
    with_class, without = fixed_logits(16, 1), fixed_logits(16, 2)
    given = jnp.full((2, 16), CODES, jnp.int32), keys(2)

    def pair(tokens):
        return with_class(tokens), without(tokens)

    def moved(tokens):
        return with_class(tokens) + 3 * (with_class(tokens) - without(tokens))

    once = functools.partial(run, steps=1, choice_temperature=0.0)
    expected = once(moved, *given)
    constant = once(pair, *given, guidance=3.0, guidance_schedule="constant")
    np.testing.assert_array_equal(constant, expected)
    linear = once(pair, *given, guidance=3.0)
    np.testing.assert_array_equal(linear, expected)  # the scale is full in the last step
    assert (expected != once(with_class, *given)).any()
    steps = jnp.linspace(0.1, 1, 10)
    for name, scale in GUIDANCE_SCHEDULES.items():
        shares = np.asarray(jax.jit(scale)(steps))
        assert shares[-1] == 1 and (np.diff(shares) >= 0).all() and (shares >= 0).all(), name


@pytest.mark.parametrize("schedule", [*get_args(Named), "pow1.5"])
def test_every_schedule_falls_from_all_to_none_and_fills_every_token(schedule):
    ratio = np.linspace(0.02, 1, 50, dtype=np.float32)
    share = np.asarray(jax.jit(gamma, static_argnums=0)(schedule, ratio, 64))
    assert (np.diff(share) <= 1e-6).all() and share[-1] <= 1e-5 and 0.0 < share[0] <= 1
    tokens = jnp.full((2, 16), CODES, jnp.int32)
    out = run(fixed_logits(16), tokens, keys(2), steps=6, schedule=schedule)
    assert ((out >= 0) & (out < CODES)).all()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "steps expects a whole number from 1 to 4096, got 0"),
        ({"top_p": 0.0}, "top_p expects a number above 0 to 1, got 0.0"),
        ({"top_k": 2.5}, "top_k expects a whole number from 0, got 2.5"),
        ({"temperature": -1.0}, "temperature expects a number from 0, got -1.0"),
        ({"final_temperature": -1.0}, "final_temperature expects a number from 0 or None"),
        ({"guidance": -1.0}, "guidance expects a number from 0, got -1.0"),
        ({"remask": 1.5}, "remask expects a number from 0 to 1, got 1.5"),
        ({"choice": "halten"}, "choice expects .*, got 'halten': did you mean 'halton'"),
    ],
)
def test_wrong_settings_end_in_one_line(settings, message):
    with pytest.raises(InputError, match=rf"config\.sample\.{message}") as error:
        MaskPredict(**settings)
    assert "\n" not in str(error.value)


def test_guidance_needs_a_model_that_knows_images_without_a_class():
    trained, other = (types.SimpleNamespace(class_dropout=share) for share in (0.1, 0.0))
    MaskPredict(guidance=1.0).check(trained)
    MaskPredict().check(other)
    message = r"guidance is 1.0, .* trained without generator\.class_dropout"
    with pytest.raises(InputError, match=message):
        MaskPredict(guidance=1.0).check(other)


def test_the_first_of_equally_large_scores_is_drawn_as_argmax_would():
    scores = jnp.round(2 * jax.random.normal(jax.random.key(0), (3, 40, 33)))
    scores = scores.at[0, :9].set(-jnp.inf).at[1, :9, 5:7].set(jnp.inf)
    np.testing.assert_array_equal(first_largest(scores), jnp.argmax(scores, axis=-1))


def test_scores_that_are_no_numbers_still_give_a_code():
    assert first_largest(jnp.full((2, 7), jnp.nan)).tolist() == [6, 6]
