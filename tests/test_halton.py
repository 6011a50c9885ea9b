"""The Halton order: a permutation of the tokens, well spread from its beginning on."""

import numpy as np
import pytest

from evqgan.generators.halton import halton_rank, spread


def discrepancy(rank, h, w):
    """The most by which a box from the corner has more or fewer tokens than its share.

    Over all boxes, and over the first k tokens for all k up to half of them.
    """
    share = np.outer(np.arange(1, h + 1), np.arange(1, w + 1)) / (h * w)
    numbers = range(1, h * w // 2 + 1)
    there = [(rank < k).reshape(h, w).cumsum(0).cumsum(1) - k * share for k in numbers]
    return np.abs(there).max()


@pytest.mark.parametrize("h, w", [(4, 4), (3, 7), (16, 16), (1, 9), (5, 1), (27, 16), (1, 1)])
def test_the_order_has_every_token_once(h, w):
    assert sorted(halton_rank(h, w)) == list(range(h * w))


@pytest.mark.parametrize("side, most", [(4, 2), (8, 3), (16, 4)])
def test_the_order_is_better_spread_than_chance_and_than_rows(side, most):
    found = discrepancy(halton_rank(side, side), side, side)
    rng = np.random.default_rng(0)
    chance = [discrepancy(rng.permutation(side**2), side, side) for _ in range(20)]
    assert found <= most and found < np.median(chance)
    assert found < discrepancy(np.arange(side**2), side, side) / 2


def test_coordinates_are_the_radical_inverse_in_exact_arithmetic():
    n = np.array([1, 2, 3, 6])
    np.testing.assert_array_equal(spread(n, 2, 8), [4, 2, 6, 3])  # 1/2, 1/4, 3/4, 3/8 of 8
    np.testing.assert_array_equal(spread(n, 3, 9), [3, 6, 1, 2])  # 1/3, 2/3, 1/9, 2/9 of 9
    first = np.argsort(halton_rank(8, 9))[:3]
    np.testing.assert_array_equal(first, [4 * 9 + 3, 2 * 9 + 6, 6 * 9 + 1])
