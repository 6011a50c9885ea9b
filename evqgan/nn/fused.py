"""Attention as one kernel of cuDNN, which keeps no logits in memory (Dao et al., 2022)."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from evqgan.core.mesh import platform
from evqgan.nn.kv_pieces import joined, joined_mask

LEAST_QUERIES = 16  # ours: the kernel works on tiles of queries, which fewer would leave empty
MOST_CHANNELS = 128  # of a head, in the backward pass of GPUs before Hopper, too


def fits(query: jax.Array) -> bool:
    """Return whether this device has a kernel for queries [...,S,heads,d] of this shape."""
    length, _, channels = query.shape[-3:]
    is_half = query.dtype in (jnp.bfloat16, jnp.float16)
    is_tile = length >= LEAST_QUERIES and channels % 8 == 0 and channels <= MOST_CHANNELS
    return platform() == "gpu" and is_half and is_tile and _is_recent()


def _is_recent() -> bool:
    """Return whether GPUs have cuDNN's attention: those of compute capability 8.0 (Ampere) on.

    Those that a program is compiled for and that are not here (`evqgan.aot`) all have it.
    """
    if jax.default_backend() != "gpu":
        return True
    return float(jax.local_devices()[0].compute_capability) >= 8.0


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
    key, value = joined(pieces, rows)
    mask = joined_mask(pieces)
    if mask is None and key.shape[-3] % 2:  # of all but the key that is filled up
        mask = jnp.ones((*(1,) * (key.ndim - 1), key.shape[-3]), bool)
    query, key, value = (even(x, -3) for x in (query, key, value))
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:-2], length, mask.shape[-1]))
        is_shared = mask.shape[:-3] == (1,) * len(rows)
        mask = mask if is_shared else jnp.broadcast_to(mask, (*rows, *mask.shape[-3:]))
        mask = even(even(mask, -1), -2)
        mask = mask.reshape(-1, *mask.shape[-3:])
    query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
    out = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)
    return out[:, :length].reshape(*rows, length, heads, channels)


def even(x: jax.Array, axis: int) -> jax.Array:
    """Return x with a row of zeros, or False, more along an axis of odd length."""
    more = [(0, 0)] * x.ndim
    more[axis] = 0, x.shape[axis] % 2
    return jnp.pad(x, more) if more[axis][1] else x
