"""Window attention of Swin Transformer (Liu et al., ICCV 2021, Sec. 3.2) on maps of any size."""

import math
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.nn.attention import MLP, Attention, kernel_init

Array = TypeVar("Array", jax.Array, np.ndarray)


class Layout(NamedTuple):
    """How a map is cut into windows; everything is static.

    The tokens of a window [S] stand in quarters, each in raster order: those of the rows above
    `split`, left and right of the column `split`, then those below. Where windows are cut half a
    window further, quarters stay whole (`moved`).
    """

    size: tuple[int, int]  # of one window
    shift: int  # the map is rolled by this much, up and left, before it is cut
    # rows below and columns to the right that make the sides multiples of `size`
    pad: tuple[int, int]
    grid: tuple[int, int]  # how many windows are below, and beside, each other
    split: int  # 0: the whole window is in raster order
    order: np.ndarray  # int [S], where the tokens of a window stand in its raster order
    # bool [n,S,S] over the n windows of S tokens in raster order, True where a query may look; None
    # where always
    mask: Any


def layout(h: int, w: int, window: int, shifted: bool) -> Layout:
    """Return the Layout of a map of h x w tokens.

    A window is never larger than the map, and a map of which one side fits into the window is not
    shifted, as in Swin.
    Differs from Swin: a window may then have two different sides; padding is hidden from attention.
    """
    size = min(window, h), min(window, w)
    half = window // 2 if min(h, w) > window else 0
    shift = half if shifted else 0
    pad = -h % size[0], -w % size[1]
    rows, columns = (np.arange(n + p) for n, p in zip((h, w), pad, strict=True))
    grid = len(rows) // size[0], len(columns) // size[1]
    split = window - half if shift else half
    order = np.concatenate(_quarters(np.arange(math.prod(size)).reshape(*size, 1), split))[:, 0]

    def cut(x: np.ndarray) -> np.ndarray:
        return partition(x[None, :, :, None], size)[0, :, :, 0]

    real = cut(np.roll((rows < h)[:, None] & (columns < w), (-shift, -shift), (0, 1)))
    wrapped = 2 * (rows >= len(rows) - shift)[:, None] + (columns >= len(columns) - shift)
    region = cut(wrapped)  # what a roll brought from the other side is no neighbour
    # padding may look at padding
    mask = (region[:, :, None] == region[:, None]) & (real[:, None] | ~real[:, :, None])
    return Layout(size, shift, pad, grid, split, order, None if mask.all() else mask)


def _quarters(x: Array, split: int) -> list[Array]:
    """Return the quarters of windows [...,rows,columns,c], each [...,tokens,c]; some are empty."""
    halves = slice(split), slice(split, None)
    parts = [x[..., rows, columns, :] for rows in halves for columns in halves]
    return [part.reshape(*x.shape[:-3], -1, x.shape[-1]) for part in parts]


def to_windows(x: jax.Array, plan: Layout) -> jax.Array:
    """Return a map [B,h,w,c], padded with zeros, as its windows [B,n,S,c]."""
    x = jnp.pad(x, ((0, 0), (0, plan.pad[0]), (0, plan.pad[1]), (0, 0)))
    x = partition(jnp.roll(x, (-plan.shift, -plan.shift), (1, 2)), plan.size)
    quarters = _quarters(x.reshape(*x.shape[:2], *plan.size, -1), plan.split)
    return jnp.concatenate(quarters, axis=2) if plan.split else x


def to_map(windows: jax.Array, plan: Layout) -> jax.Array:
    """Return windows [B,n,S,c] as the map [B,h,w,c]: the inverse of `to_windows`."""
    if plan.split:
        halves = plan.split, plan.size[0] - plan.split
        quarters = _cut(windows, halves)
        sides = [(rows, columns) for rows in halves for columns in halves]
        shaped = [
            x.reshape(*x.shape[:2], *side, x.shape[-1])
            for x, side in zip(quarters, sides, strict=True)
        ]
        rows = [jnp.concatenate(shaped[i : i + 2], axis=3) for i in (0, 2)]
        windows = jnp.concatenate(rows, axis=2).reshape(windows.shape)
    h, w = (n * side for n, side in zip(plan.grid, plan.size, strict=True))
    x = jnp.roll(merge(windows, plan.size, h, w), (plan.shift, plan.shift), (1, 2))
    return x[:, : h - plan.pad[0], : w - plan.pad[1]]


def _cut(windows: jax.Array, halves: tuple[int, int]) -> list[jax.Array]:
    """Return the quarters [B,n,tokens,c] of windows [B,n,S,c]; halves: their two sides."""
    lengths = [rows * columns for rows in halves for columns in halves]
    return jnp.split(windows, np.cumsum(lengths)[:-1], axis=2)


def moved(windows: jax.Array, plan: Layout) -> jax.Array:
    """Return windows [B,n,S,c] cut half a window further, or, if `plan` is shifted, back again.

    It is what `to_windows` makes of `to_map`, for copies of whole quarters.
    """
    if not plan.split:
        return windows
    quarters = _cut(windows, (plan.split, plan.size[0] - plan.split))[::-1]
    steps = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    if plan.shift:
        steps = [(-y, -x) for y, x in reversed(steps)]
    rolled = [
        jnp.roll(x.reshape(len(x), *plan.grid, *x.shape[2:]), step, (1, 2)).reshape(x.shape)
        for x, step in zip(quarters, steps, strict=True)
    ]
    return jnp.concatenate(rolled, axis=2)


def partition(x: Array, size: tuple[int, int]) -> Array:
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

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the map."""
        _, h, w, _ = x.shape
        plan = layout(h, w, self.window, self.shifted)
        return to_map(self.in_windows(to_windows(x, plan), plan), plan)

    @nn.compact
    def in_windows(self, x: jax.Array, plan: Layout) -> jax.Array:
        """Return what the block makes of windows [B,n,S,c] that were cut by `plan`."""
        table = self.param(
            "relative_bias", kernel_init, ((2 * self.window - 1) ** 2, self.heads), jnp.float32
        )
        order = np.ix_(plan.order, plan.order)
        bias = jnp.moveaxis(table[relative_index(plan.size, self.window)[order]], -1, 0)
        mask = None if plan.mask is None else plan.mask[:, *order][None, :, None]  # [1,n,1,S,S]
        attention = Attention(
            self.heads, dtype=self.dtype, qkv_bias=self.qkv_bias, name="attention"
        )

        y = nn.LayerNorm(self.epsilon, self.dtype, name="norm1")(x)
        x = x + attention(y, mask=mask, bias=bias)[0]
        y = nn.LayerNorm(self.epsilon, self.dtype, name="norm2")(x)
        return x + MLP(self.mlp_ratio, dtype=self.dtype, name="mlp")(y)
