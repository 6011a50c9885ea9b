"""How a grid is cut into blocks, and in which order they come."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.generators.blocks import (
    NOWHERE,
    blocks_of,
    decoding_order,
    grid_of,
    ring_and_target,
    step_of_block,
)


def test_layout_is_the_extended_window():
    ring, target = ring_and_target(6, 8, 2, 1)
    assert ring.shape == (12, 12) and target.shape == (12, 4)
    np.testing.assert_array_equal(target[5], [18, 19, 26, 27])
    np.testing.assert_array_equal(ring[5], [9, 10, 11, 12, 17, 20, 25, 28, 33, 34, 35, 36])
    assert (ring[0] == NOWHERE).sum() == 7  # a corner: one row and one column outside


def test_a_ring_is_no_longer_than_the_most_tokens_that_a_block_has_around_it():
    """Of 2 x 2 blocks each is a corner: two of its sides are outside."""
    ring, _ = ring_and_target(16, 16, 8, 4)
    assert ring.shape == (4, 12**2 - 8**2) and (ring != NOWHERE).all()
    inner = ring_and_target(24, 24, 8, 4)[0]
    assert inner.shape == (9, 16**2 - 8**2)
    for row in inner:  # what is outside comes last
        inside = row != NOWHERE
        assert not np.any(np.diff(inside.astype(int)) > 0)
    assert ring_and_target(8, 8, 8, 4)[0].shape == (1, 0)  # a single block has nothing around it


def test_blocks_and_back():
    grid = jnp.arange(2 * 4 * 6).reshape(2, 4, 6)
    blocks = blocks_of(grid, 2)
    np.testing.assert_array_equal(blocks[0, 1], [2, 3, 8, 9])
    np.testing.assert_array_equal(
        blocks.reshape(2, -1)[0], ring_and_target(4, 6, 2, 1)[1].reshape(-1)
    )
    np.testing.assert_array_equal(grid_of(blocks, 4, 6, 2), grid)


def test_raster_is_one_block_a_step_and_wavefront_every_block_once():
    np.testing.assert_array_equal(decoding_order(6, 8, 2, 1), np.arange(12)[:, None])
    wave = decoding_order(64, 64, 8, 4, "wavefront")
    assert wave.shape == (22, 4)
    np.testing.assert_array_equal(np.sort(wave[wave != NOWHERE]), np.arange(64))
    assert (wave[:, 0] != NOWHERE).all()  # what fills a step up is a real block


@pytest.mark.parametrize("window, extend", [(2, 0), (2, 1), (2, 2), (2, 3), (4, 1)])
def test_in_a_wavefront_no_window_holds_another_block_of_its_step(window, extend):
    h, w = 8, 12
    step = step_of_block(h, w, window, extend, "wavefront")
    ring, target = ring_and_target(h, w, window, extend)
    for a, b in np.argwhere(step[:, None] == step[None]):
        assert a == b or not np.isin(ring[a], target[b]).any()
    for block in range(len(step)):  # what raster order knows of the window is known
        for other in range(block):
            if np.isin(ring[block], target[other]).any():
                assert step[other] < step[block]


def test_an_unknown_order_is_refused_and_not_taken_for_a_wavefront():
    order: Any = "rastr"
    with pytest.raises(InputError, match="raster or wavefront, not 'rastr'"):
        step_of_block(6, 6, 2, 1, order)
