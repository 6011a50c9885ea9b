"""Windows that slide over a grid of tokens larger than a generator's context (VQGAN, Fig. 3), and coordinates.

A corner is the (row, column) of a window's first token. Numbers and grids are in tokens, in raster order.
"""

import jax
import jax.numpy as jnp
import numpy as np


def around(n, latent, window):
    """The window in which token `n` (traced or not) of a grid `latent` (h, w) is made -> corner, its number there.

    Token n is in the middle (row or column window // 2), or nearer to the border that stops the window, as in
    taming-transformers' scripts/sample_conditional.py.
    """
    row, column = n // latent[1], n % latent[1]
    ends = zip((row, column), latent, window, strict=True)
    y, x = (jnp.clip(at - own // 2, 0, whole - own) for at, whole, own in ends)
    return (y, x), (row - y) * window[1] + column - x


def crop(grid, corner, window):
    """grid [B,h,w] -> the tokens of the window at `corner` (two numbers, or two arrays [B]) [B,window's h*w]."""
    if grid.shape[1:] == tuple(window):
        return grid.reshape(len(grid), -1)
    y, x = (jnp.broadcast_to(at, len(grid)) for at in corner)
    cut = jax.vmap(lambda grid, y, x: jax.lax.dynamic_slice(grid, (y, x), window))(grid, y, x)
    return cut.reshape(len(grid), -1)


def random_corners(rng, number, latent, window):
    """Corners of `number` windows, each place of the grid as likely -> y, x, int32 [number] each."""
    ends = zip(jax.random.split(rng), latent, window, strict=True)
    return tuple(jax.random.randint(key, (number,), 0, whole - own + 1) for key, whole, own in ends)


def coordinates(latent, factor, codes):
    """Words that say where a token lies -> int32 NumPy [h,w] from 0 to codes - 1.

    Every pixel of an image of H x W has (row * W + column) / (H * W), a token the mean over its factor x factor pixels,
    times `codes`, rounded (taming-transformers, data/faceshq.py and modules/misc/coord.py). Differs from
    taming-transformers: what would be rounded up to `codes`, a word that is not there, is codes - 1.
    """
    h, w = latent
    middle = (factor - 1) / 2
    row, column = factor * np.arange(h) + middle, factor * np.arange(w) + middle
    share = (row[:, None] * (factor * w) + column[None]) / (factor * h * factor * w)
    return np.minimum(np.round(share * codes), codes - 1).astype(np.int32)
