"""Window attention of Swin Transformer (Liu et al., ICCV 2021, Sec. 3.2) on maps of any size."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.nn.attention import MLP, Attention, kernel_init


class Layout(NamedTuple):
    """How a map is cut into windows; everything is static."""

    size: tuple[int, int]  # of one window
    shift: int  # the map is rolled by this much, up and left, before it is cut
    # rows below and columns to the right that make the sides multiples of `size`
    pad: tuple[int, int]
    # bool [n,S,S] over the n windows of S tokens, True where a query may look; None where always
    mask: Any


def layout(h: int, w: int, window: int, shifted: bool) -> Layout:
    """Return the Layout of a map of h x w tokens.

    A window is never larger than the map, and a map of which one side fits into the window is not
    shifted, as in Swin.
    Differs from Swin: a window may then have two different sides; padding is hidden from attention.
    """
    size = min(window, h), min(window, w)
    shift = window // 2 if shifted and min(h, w) > window else 0
    pad = -h % size[0], -w % size[1]
    rows, columns = (np.arange(n + p) for n, p in zip((h, w), pad, strict=True))
    real = _windows(
        np.roll((rows < h)[:, None] & (columns < w)[None], (-shift, -shift), (0, 1)), size
    )
    wrapped = 2 * (rows >= len(rows) - shift)[:, None] + (columns >= len(columns) - shift)[None]
    region = _windows(wrapped, size)  # what a roll brought from the other side is no neighbour
    # padding may look at padding
    mask = (region[:, :, None] == region[:, None]) & (real[:, None] | ~real[:, :, None])
    return Layout(size, shift, pad, None if mask.all() else mask)


def _windows(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (
        np.asarray(x)
        .reshape(len(x) // size[0], size[0], -1, size[1])
        .swapaxes(1, 2)
        .reshape(-1, size[0] * size[1])
    )


def partition(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return x [B,h,w,c] as windows [B,n,S,c] in raster order.

    size: of a window, (rows, columns), of which the sides are multiples.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // size[0], size[0], w // size[1], size[1], c)
    return x.swapaxes(2, 3).reshape(b, -1, size[0] * size[1], c)


def merge(windows: jax.Array, size: tuple[int, int], h: int, w: int) -> jax.Array:
    """Return windows [B,n,S,c] as [B,h,w,c]: the inverse of `partition`."""
    b, _, _, c = windows.shape
    x = windows.reshape(b, h // size[0], w // size[1], size[0], size[1], c)
    return x.swapaxes(2, 3).reshape(b, h, w, c)


def relative_index(size: tuple[int, int], window: int) -> np.ndarray:
    """Return, for a query and a key in one window of `size`, the row of the bias table, int [S,S].

    The table of `window` has (2 * window - 1)^2 rows, one for each offset; a smaller window uses
    the rows in its middle.
    """
    y, x = (side.ravel() for side in np.indices(size))
    offset = y[:, None] - y[None] + window - 1, x[:, None] - x[None] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


class WindowBlock(nn.Module):
    """Swin block (Eq. 3 of Swin Transformer). x [B,h,w,c] -> [B,h,w,c] in `dtype`, for any h and w.

    `shifted` blocks cut their windows half a window further. Parameters do not depend on h and w.
    """

    heads: int
    window: int = 8
    shifted: bool = False
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    dtype: Any = "float32"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, h, w, _ = x.shape
        plan = layout(h, w, self.window, self.shifted)
        table = self.param(
            "relative_bias", kernel_init, ((2 * self.window - 1) ** 2, self.heads), jnp.float32
        )
        bias = jnp.moveaxis(table[relative_index(plan.size, self.window)], -1, 0)  # [heads,S,S]
        mask = None if plan.mask is None else plan.mask[None, :, None]  # [1,n,1,S,S]
        attention = Attention(
            self.heads, dtype=self.dtype, qkv_bias=self.qkv_bias, name="attention"
        )

        y = nn.LayerNorm(self.epsilon, self.dtype, name="norm1")(x)
        y = jnp.pad(y, ((0, 0), (0, plan.pad[0]), (0, plan.pad[1]), (0, 0)))
        sides = y.shape[1:3]
        y = jnp.roll(y, (-plan.shift, -plan.shift), (1, 2))
        y, _ = attention(partition(y, plan.size), mask=mask, bias=bias)
        y = merge(y, plan.size, *sides)
        y = jnp.roll(y, (plan.shift, plan.shift), (1, 2))
        x = x + y[:, : x.shape[1], : x.shape[2]]
        y = nn.LayerNorm(self.epsilon, self.dtype, name="norm2")(x)
        return x + MLP(self.mlp_ratio, dtype=self.dtype, name="mlp")(y)
