"""Other choices of which tokens stay: the Halton order, and remasking (ReMDM)."""

import functools
import itertools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_mask_predict import CODES, decoded, fixed_logits, keys

from evqgan.generators.halton import halton_rank
from evqgan.generators.mask_predict import MaskPredict, mask_predict
from evqgan.generators.mask_schedule import gamma
from evqgan.generators.remasking import RemaskSchedule, remask_chance, with_remasked

SIDE, STEPS = 8, 6
NUMBER = SIDE**2


def states(tokens, grid=None, batch_keys=None, **settings):
    """The tokens before decoding and after each step, [STEPS + 1,B,N]."""
    settings = MaskPredict(**{"steps": STEPS, **settings})

    @functools.partial(jax.jit, static_argnums=2)
    def run(tokens, keys, settings):
        given = fixed_logits(NUMBER), tokens, keys, settings
        return mask_predict(*given, codes=CODES, grid=grid, keep_history=True)

    made = run(tokens, keys(len(tokens)) if batch_keys is None else batch_keys, settings)
    np.testing.assert_array_equal(made.history[-1], made.tokens)
    return np.concatenate([np.asarray(tokens)[None], made.history])


def half_known(batch=3):
    """Tokens of which some are known, of each image others."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, CODES, (batch, NUMBER))
    return jnp.asarray(np.where(rng.random(tokens.shape) < 0.6, CODES, tokens), jnp.int32)


@pytest.mark.parametrize("schedule", get_args(RemaskSchedule))
def test_remasking_keeps_the_schedule_and_known_tokens_and_ends_with_none_masked(schedule):
    tokens = half_known()
    after = states(tokens, remask=0.7, remask_schedule=schedule)
    known = np.asarray(tokens) != CODES
    for state in after:
        np.testing.assert_array_equal(state[known], tokens[known])
    start = (~known).sum(-1)
    ratio = jnp.arange(1, STEPS, dtype=jnp.float32) / STEPS
    expected = np.floor(np.asarray(gamma("cosine", ratio))[:, None] * start)
    np.testing.assert_array_equal((after == CODES).sum(-1)[1:-1], expected)
    assert ((after[-1] >= 0) & (after[-1] < CODES)).all()
    again = [(b == CODES) & (a != CODES) for a, b in itertools.pairwise(after)]
    assert np.any(again[1:]) and not np.any(again[0])  # nothing was there before the first step


def test_no_remasking_is_what_it_was_and_as_many_as_there_may_be_is_the_most():
    tokens = jnp.full((4, NUMBER), CODES, jnp.int32)
    plain = decoded(fixed_logits(NUMBER), tokens, keys(4), MaskPredict(steps=STEPS), history=True)
    np.testing.assert_array_equal(states(tokens, remask=0.0)[1:], plain.history)
    number = {}
    for share in (0.1, 1.0):
        after = states(tokens, remask=share, remask_schedule="rescale")
        number[share] = sum(
            ((b == CODES) & (a != CODES)).sum() for a, b in itertools.pairwise(after)
        )
    assert 0 < number[0.1] < number[1.0] / 4


def test_the_chance_of_being_masked_again_is_remdms():
    is_made = jnp.asarray([[True] * 4 + [False] * 4, [True] * 2 + [False] * 6])
    count = jnp.asarray([1, 6])  # the most is 1/4 of the first image, 1 of the second
    for schedule, expected in (("cap", [0.25, 0.6]), ("rescale", [0.15, 0.6])):
        chance = np.asarray(remask_chance(schedule, 0.6, is_made, count))
        np.testing.assert_allclose(chance, np.where(is_made, np.array(expected)[:, None], 0))
    probability = jnp.broadcast_to(jnp.linspace(0, 1, 8), (2, 8))
    chance = np.asarray(remask_chance("conf", 0.6, is_made, count, probability))
    np.testing.assert_allclose(chance.sum(-1), [0.15, 0.6], rtol=1e-6)
    assert (np.diff(chance[0, :4]) < 0).all() and not chance[~np.asarray(is_made)].any()
    nothing = remask_chance("conf", 0.6, jnp.zeros((2, 8), bool), count, probability)
    assert not np.any(nothing)


def test_what_is_masked_again_comes_before_all_else_and_in_random_order():
    confidence, noise = jnp.float32([[3, -1e6, jnp.inf, jnp.inf]]), jnp.float32([[0, 0, 0.2, 0.1]])
    found = with_remasked(confidence, jnp.float32([[0, 0, 0.3, 0.3]]), noise)
    assert np.argsort(found[0]).tolist() == [3, 2, 1, 0]


def test_in_the_halton_order_each_step_makes_the_next_tokens():
    after = states(half_known(), grid=(SIDE, SIDE), choice="halton")
    for before, now in itertools.pairwise(after):
        for x, y in zip(before, now, strict=True):
            rank = halton_rank(SIDE, SIDE)
            made = rank[(x == CODES) & (y != CODES)]
            left = rank[y == CODES]
            assert len(made) and (not len(left) or made.max() < left.min())
    assert not (after[-1] == CODES).any()


def test_an_image_does_not_depend_on_its_batch():
    tokens, many = half_known(5), keys(5)
    how = {"grid": (SIDE, SIDE), "choice": "halton", "remask": 0.5, "remask_schedule": "conf"}
    together = states(tokens, batch_keys=many, **how)[:, 3:4]
    np.testing.assert_array_equal(states(tokens[3:4], batch_keys=many[3:4], **how), together)
