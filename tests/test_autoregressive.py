"""Autoregressive decoding: in order, by each image's own key, as logits and settings say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_mask_predict import CODES, keys

from evqgan.core.errors import InputError
from evqgan.generators.autoregressive import Autoregressive, autoregress, check_suffix, row_history

DRAWN = np.random.default_rng(2).standard_normal((12, 3, CODES, CODES))
TABLES = {depths: np.float32(3 * DRAWN[:, :depths]) for depths in (1, 2, 3)}


@functools.partial(jax.jit, static_argnums=2)
def made(ids, keys, settings):
    """Codes whose logits are of a table by (position, depth, the code before)."""
    table = jnp.asarray(TABLES[ids.shape[-1]])

    def next_position(carry, n, before):
        return carry + before.sum(), (n, before[:, -1])

    def next_depth(state, d, before):
        n, last = state
        return state, table[n, d, jnp.where(d == 0, last, before)]

    return autoregress(next_position, next_depth, 0, ids, keys, settings, codes=CODES)


@pytest.mark.parametrize("depths", [1, 3])
def test_codes_come_one_after_the_other_each_from_the_one_before(depths):
    start, table = np.full((2, 12, depths), CODES, np.int32), TABLES[depths]
    greedy = (Autoregressive(temperature=0.0),) * depths
    found, before = np.asarray(made(start, keys(2), greedy)), np.zeros(2, int)
    for n, d in np.ndindex(12, depths):  # the positions in order, at each its depths in order
        expected = table[n, d, before].argmax(-1)
        np.testing.assert_array_equal(found[:, n, d], expected)
        before = expected
    start[:, :4] = 5
    completed = np.asarray(made(start, keys(2), greedy))
    assert (completed[:, :4] == 5).all() and (completed < CODES).all()
    assert completed[0, 4, 0] == table[4, 0, 5].argmax()


def test_each_image_is_drawn_by_its_own_key():
    ids, many, settings = jnp.full((6, 12, 2), CODES), keys(6), (Autoregressive(),) * 2
    found = np.asarray(made(ids, many, settings))
    np.testing.assert_array_equal(made(ids[:2], many[4:], settings), found[4:])
    assert len({row.tobytes() for row in found}) == 6


@pytest.mark.parametrize("settings", [Autoregressive(top_k=3), Autoregressive(0.5, 3)])
def test_codes_are_drawn_as_logits_and_settings_say(settings):
    number = 4000
    first = made(jnp.full((number, 1, 1), CODES), keys(number, 7), (settings,))[:, 0, 0]
    logits = TABLES[1][0, 0, 0]
    allowed = np.argsort(-logits)[:3]
    weights = np.exp(logits[allowed] / settings.temperature)
    shares = [np.mean(first == code) for code in allowed]
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.03)
    assert set(np.unique(first)) <= set(allowed.tolist())


def test_each_depth_has_settings_of_its_own():
    """The likeliest at one depth, anything at the other: as one by one."""
    ids, many = jnp.full((200, 1, 2), CODES), keys(200)
    found = np.asarray(made(ids, many, (Autoregressive(top_k=1), Autoregressive())))
    likeliest = TABLES[2][0, 0, 0].argmax()
    assert (found[:, 0, 0] == likeliest).all() and len(np.unique(found[:, 0, 1])) > 3
    turned = np.asarray(made(ids, many, (Autoregressive(), Autoregressive(top_k=1))))
    assert len(np.unique(turned[:, 0, 0])) > 1
    np.testing.assert_array_equal(turned[:, 0, 1], TABLES[2][0, 1, turned[:, 0, 0]].argmax(-1))


def test_rows_appear_one_after_the_other():
    start = jnp.full((1, 3, 2, 1), CODES).at[:, 0].set(4)
    grids = row_history(start, jnp.arange(6).reshape(1, 3, 2, 1), CODES)
    expected = [[0, CODES, CODES], [0, 2, CODES], [0, 2, 4]]
    np.testing.assert_array_equal(grids[:, 0, :, 0, 0], expected)


@pytest.mark.parametrize("settings", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(InputError, match=r"config\.sample\.\w+ expects"):
        Autoregressive(**settings)


def test_only_what_follows_a_prefix_can_be_completed():
    mask = np.zeros((2, 3, 3), bool)
    mask[0, 1, 1:] = mask[0, 2] = mask[1] = True
    check_suffix(mask, "gpt")
    check_suffix(np.zeros((1, 2, 2), bool), "gpt")
    mask[0, 2, 0] = False
    with pytest.raises(InputError, match="the gpt generator makes tokens in raster order"):
        check_suffix(mask, "gpt")
