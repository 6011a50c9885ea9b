"""The Halton order of the tokens of a grid: fixed, and well spread from its beginning on.

Halton-MaskGIT (Besnier et al., ICLR 2025) generates tokens in this order in place of the most
confident ones first: tokens of one step lie far apart, so that they depend little on each other.
"""

import functools

import numpy as np


def spread(numbers: np.ndarray, base: int, side: int) -> np.ndarray:
    """Return floor(side * x) of whole numbers [N], x in [0, 1) being their radical inverse, int64.

    That is the digits to the base, mirrored at the point: to the base 2, 6 is 110, and x is 0.011.
    """
    found, scale = np.zeros(len(numbers), np.int64), 1
    while numbers.any():
        numbers, digits = np.divmod(numbers, base)
        found, scale = found * base + digits, scale * base
    return side * found // scale


@functools.lru_cache
def halton_rank(h: int, w: int) -> np.ndarray:
    """Return the place of each token in the Halton order, int32 [h*w], tokens in raster order.

    Point n = 1, 2, ... of the Halton sequence has the radical inverse of n to the base 2 for its
    row, to the base 3 for its column; a token comes where a point first meets it.
    """
    rows, columns = 1, 1  # 2^a and 3^b intervals, of which one lies within each token
    while rows < 2 * h:
        rows *= 2
    while columns < 2 * w:
        columns *= 3
    points = np.arange(1, rows * columns + 1)  # they meet each pair of intervals once
    _, first = np.unique(spread(points, 2, h) * w + spread(points, 3, w), return_index=True)
    return np.argsort(np.argsort(first)).astype(np.int32)
