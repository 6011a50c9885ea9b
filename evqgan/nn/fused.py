"""Attention as one kernel of cuDNN, which keeps no logits in memory (Dao et al., 2022)."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

LEAST_QUERIES = 16  # ours: the kernel works on tiles of queries, which fewer would leave empty
MOST_CHANNELS = 128  # of a head, in the backward pass of GPUs before Hopper, too


def fits(query: jax.Array) -> bool:
    """Return whether this device has a kernel for queries [...,S,heads,d] of this shape."""
    length, _, channels = query.shape[-3:]
    is_half = query.dtype in (jnp.bfloat16, jnp.float16)
    is_tile = length >= LEAST_QUERIES and channels % 8 == 0 and channels <= MOST_CHANNELS
    return jax.default_backend() == "gpu" and is_half and is_tile


def attend(
    query: jax.Array,
    pieces: Sequence[tuple],
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Return `attention.attend_pieces` of these arguments, up to rounding.

    Pieces that serve several rows are copied for each. Queries and keys are filled up to even
    numbers, as cuDNN's backward pass asks for where there is a mask.
    """
    *rows, length, heads, channels = query.shape
    sides = [
        jnp.concatenate([jnp.broadcast_to(p[i], (*rows, *p[i].shape[-3:])) for p in pieces], -3)
        for i in (0, 1)
    ]
    query, key, value = (even(x, -3) for x in (query, *sides))
    mask = joined_mask(pieces, length)
    if mask is not None:
        is_shared = mask.shape[:-3] == (1,) * len(rows)
        mask = mask if is_shared else jnp.broadcast_to(mask, (*rows, *mask.shape[-3:]))
        mask = even(even(mask, -1), -2).reshape(
            -1, mask.shape[-3], *query.shape[-3:-2], key.shape[-3]
        )
    flat = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
    out = jax.nn.dot_product_attention(*flat, mask=mask, implementation=implementation)
    return out[:, :length].reshape(*rows, length, heads, channels)


def joined_mask(pieces: Sequence[tuple], length: int) -> jax.Array | None:
    """Return which keys of all pieces each of `length` queries sees, [...,1 or heads,S,T].

    None if every query sees an even number of keys, all there are.
    """
    keys = [key.shape[-3] for key, *_ in pieces]
    masks = [mask for *_, mask in pieces]
    if all(mask is None for mask in masks) and sum(keys) % 2 == 0:
        return None
    one = np.ones((1,) * (pieces[0][0].ndim), bool)
    masks = [jnp.asarray(one if mask is None else mask) for mask in masks]
    rows = np.broadcast_shapes(*(mask.shape[:-2] for mask in masks))
    parts = [jnp.broadcast_to(m, (*rows, length, k)) for m, k in zip(masks, keys, strict=True)]
    return jnp.concatenate(parts, axis=-1)


def even(x: jax.Array, axis: int) -> jax.Array:
    """Return x with a row of zeros, or False, more along an axis of odd length."""
    more = [(0, 0)] * x.ndim
    more[axis] = 0, x.shape[axis] % 2
    return jnp.pad(x, more) if more[axis][1] else x
