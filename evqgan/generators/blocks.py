"""How a token grid is cut into blocks, what surrounds each, and in which order they are decoded.

A block is a square of tokens, not one of the transformer's. The tokens around it that belong to its
extended window (paper, Sec. 3.2) are its ring, or halo.

Everything is static: NumPy arrays that a program holds as constants.
"""

import functools
import math
from typing import Literal, NamedTuple, get_args

import jax
import numpy as np

from evqgan.core.errors import InputError

NOWHERE = -1  # index of a ring position outside the image, and of no block in a decoding step
Order = Literal["raster", "wavefront"]
ORDERS = get_args(Order)


class Layout(NamedTuple):
    """How a grid is cut: `ring_and_target(*layout)`, `decoding_order(*layout, order)`."""

    h: int
    w: int
    window: int  # W_s, the side of a block in tokens
    extend: int  # E_s, the width of the ring around it

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return self.h * self.w // self.window**2

    def block_of_token(self) -> np.ndarray:
        """Return the block that each token of the grid lies in, int32 NumPy [h*w]."""
        blocks = np.arange(self.blocks, dtype=np.int32).reshape(self.h // self.window, -1)
        return blocks.repeat(self.window, 0).repeat(self.window, 1).reshape(-1)


@functools.lru_cache
def ring_and_target(h: int, w: int, window: int, extend: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each block's ring and target lie in the grid (paper, Fig. 3).

    The target [blocks,T], T = window^2, is the block itself; the ring [blocks,R] is the rest of its
    extended window. Both hold flat indices of the grid, int32. A window that reaches beyond the
    image has fewer tokens in its ring: R is the size of the largest ring, and the rows of smaller
    ones end with NOWHERE. At 16 x 16 tokens, blocks of 8 and an extension of 4 R is 80, not the
    (window + 2 extend)^2 - window^2 = 192 of a window inside a large image.
    """
    ring, target = [], []
    for top in range(0, h, window):
        for left in range(0, w, window):
            bottom, right = top + window, left + window
            y, x = np.mgrid[top - extend : bottom + extend, left - extend : right + extend]
            inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            in_block = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            index = np.where(inside, y * w + x, NOWHERE)
            ring.append(index[inside & ~in_block])
            target.append(index[in_block])
    most = max(map(len, ring))
    filled = [[*index, *[NOWHERE] * (most - len(index))] for index in ring]
    return np.array(filled, np.int32).reshape(len(ring), most), np.array(target, np.int32)


def blocks_of(grid: jax.Array, window: int) -> jax.Array:
    """Cut grids [B,h,w] into [B, blocks, window * window]; blocks and tokens in raster order."""
    b, h, w = grid.shape
    x = grid.reshape(b, h // window, window, w // window, window)
    return x.transpose(0, 1, 3, 2, 4).reshape(b, -1, window * window)


def grid_of(blocks: jax.Array, h: int, w: int, window: int) -> jax.Array:
    """Put blocks together again to grids [B,h,w]: the inverse of `blocks_of`."""
    x = blocks.reshape(blocks.shape[0], h // window, w // window, window, window)
    return x.transpose(0, 1, 3, 2, 4).reshape(-1, h, w)


@functools.lru_cache
def step_of_block(h: int, w: int, window: int, extend: int, order: Order = "raster") -> np.ndarray:
    """Return the step in which each block is decoded, int32 [blocks]; InputError for other orders.

    order: "raster" is the paper's, one block a step, row by row. "wavefront" (ours, for latency)
      decodes blocks of several rows at once: row r starts so much later than row r - 1 that, as in
      raster order, all that a block's extended window holds of the rows above is decoded before,
      and no two blocks of a step lie in each other's windows. 8 x 8 blocks take 22 steps, not 64.

    The steps of 3 x 3 blocks whose windows reach at most one block further:

        raster   0 1 2      wavefront   0 1 2
                 3 4 5                  2 3 4
                 6 7 8                  4 5 6
    """
    blocks = np.arange(h * w // window**2, dtype=np.int32)
    rows, columns = np.divmod(blocks, w // window)
    delays = {"raster": w // window, "wavefront": 1 + math.ceil(extend / window)}  # of each row
    if order not in delays:
        raise InputError(f"the order of blocks is {' or '.join(delays)}, not {order!r}")
    return (rows * delays[order] + columns).astype(np.int32)


@functools.lru_cache
def decoding_order(h: int, w: int, window: int, extend: int, order: Order = "raster") -> np.ndarray:
    """Return the blocks of each step, int32 [steps, most blocks in a step]; NOWHERE where fewer."""
    step = step_of_block(h, w, window, extend, order)
    found = [np.flatnonzero(step == s) for s in np.unique(step)]
    width = max(map(len, found))
    return np.array([[*f, *[NOWHERE] * (width - len(f))] for f in found], np.int32)
