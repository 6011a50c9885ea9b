"""How a token grid is cut into blocks: which tokens a block and its extended window hold, and in which order they come.

Everything is static: NumPy arrays that a program holds as constants.
"""

import functools
import math

import numpy as np

from evqgan.core.build import nearest
from evqgan.core.errors import InputError

NOWHERE = -1  # the index of a ring position outside the image, and of a place in a front that holds no block
ORDERS = ("raster", "wavefront")


@functools.lru_cache
def layout(h, w, window, extend):
    """Where the tokens of each block's sequence lie in the grid: ring [blocks,R], target [blocks,T] int32 flat indices.

    R = (window + 2 extend)^2 - window^2, T = window^2; ring positions outside the image are NOWHERE (paper, Fig. 3).
    """
    ring, target = [], []
    for top in range(0, h, window):
        for left in range(0, w, window):
            y, x = np.mgrid[top - extend : top + window + extend, left - extend : left + window + extend]
            inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            own = (y >= top) & (y < top + window) & (x >= left) & (x < left + window)
            index = np.where(inside, y * w + x, NOWHERE)
            ring.append(index[~own])
            target.append(index[own])
    return np.array(ring, np.int32), np.array(target, np.int32)


def blocks_of(grid, window):
    """[B,h,w] -> [B, blocks, window * window]: blocks in raster order, each in raster order."""
    b, h, w = grid.shape
    x = grid.reshape(b, h // window, window, w // window, window)
    return x.transpose(0, 1, 3, 2, 4).reshape(b, -1, window * window)


def grid_of(blocks, h, w, window):
    """The inverse of `blocks_of`."""
    x = blocks.reshape(blocks.shape[0], h // window, w // window, window, window)
    return x.transpose(0, 1, 3, 2, 4).reshape(-1, h, w)


@functools.lru_cache
def turns(h, w, window, extend, order="raster"):
    """When each block's turn comes: int32 [blocks].

    "raster" (the paper's fixed order): one at a time, row by row. "wavefront" (ours, for latency): row r starts so much
    later than row r - 1 that whatever a block's extended window holds of the rows above is there already, as in raster
    order, and no two blocks of one turn lie in each other's windows. An 8 x 8 grid takes 22 turns instead of 64.
    """
    if order not in ORDERS:
        raise InputError(f"the sampler's order is {order!r}: {nearest(order, ORDERS)}")
    rows, columns = np.divmod(np.arange(h * w // window**2, dtype=np.int32), w // window)
    step = w // window if order == "raster" else 1 + math.ceil(extend / window)
    return np.int32(rows * step + columns)


@functools.lru_cache
def fronts(h, w, window, extend, order="raster"):
    """The blocks of each turn: int32 [turns, most blocks in one], NOWHERE where there are fewer."""
    turn = turns(h, w, window, extend, order)
    found = [np.flatnonzero(turn == t) for t in np.unique(turn)]
    width = max(map(len, found))
    return np.array([[*f, *[NOWHERE] * (width - len(f))] for f in found], np.int32)
