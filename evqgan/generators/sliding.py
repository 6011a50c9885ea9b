"""Windows that slide over a grid of tokens larger than a generator's context (VQGAN, Fig. 3).

`coordinates` are the words by which a model can know where its window lies. A corner is the (row,
column) of a window's first token. Numbers and grids count tokens, in raster order.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def window_around(n: Any, latent: Sequence[int], window: Sequence[int]) -> tuple[tuple, Any]:
    """Return the corner of the window in which token `n` is generated, and its number there.

    Token n is in the middle of the window (row and column window // 2), or nearer to the border of
    the grid where that stops the window, as in taming-transformers' scripts/sample_conditional.py.

    n: the token's number in the grid, may be traced; latent: (h, w) of the grid; window: (h, w).
    """
    row, column = n // latent[1], n % latent[1]
    ends = zip((row, column), latent, window, strict=True)
    y, x = (jnp.clip(at - side // 2, 0, length - side) for at, length, side in ends)
    return (y, x), (row - y) * window[1] + column - x


def crop(grid: jax.Array, corner: tuple, window: Sequence[int]) -> jax.Array:
    """Return the tokens of a window of grid [B,h,w], flat [B, window's h*w].

    corner: two numbers, or two arrays [B].
    """
    if grid.shape[1:] == tuple(window):
        return grid.reshape(grid.shape[0], -1)
    y, x = (jnp.broadcast_to(at, grid.shape[0]) for at in corner)

    def one(grid: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(grid, (y, x), window)

    return jax.vmap(one)(grid, y, x).reshape(grid.shape[0], -1)


def random_corners(
    rng: jax.Array,
    number: int,
    latent: Sequence[int],
    window: Sequence[int],
) -> tuple[jax.Array, ...]:
    """Return corners of `number` windows y, x, int32 [number] each; all are equally likely."""
    ends = zip(jax.random.split(rng), latent, window, strict=True)
    return tuple(
        jax.random.randint(key, (number,), 0, length - side + 1) for key, length, side in ends
    )


def coordinates(latent: Sequence[int], factor: int, codes: int) -> np.ndarray:
    """Return words that say where a token lies, int32 NumPy [h,w] from 0 to codes - 1.

    A pixel of an H x W image has the coordinate (row * W + column) / (H * W). A token has the mean
    coordinate of its factor x factor pixels, times `codes`, rounded (taming-transformers,
    data/faceshq.py and modules/misc/coord.py). Differs from taming-transformers: a coordinate that
    would be rounded up to `codes`, which is no word, becomes codes - 1.
    """
    h, w = latent
    middle = (factor - 1) / 2
    row, column = factor * np.arange(h) + middle, factor * np.arange(w) + middle
    share = (row[:, None] * (factor * w) + column[None]) / (factor * h * factor * w)
    return np.minimum(np.round(share * codes), codes - 1).astype(np.int32)
