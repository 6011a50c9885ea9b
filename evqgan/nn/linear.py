"""Dense layers and convolutions of linen, whose bias is added in float32.

The sum is then cast to `dtype`. linen casts the bias to `dtype` and adds it there. The gradient
of a bias is a sum over all rows, and so was a sum of bfloat16: what is added to 256 has to be
larger than 1 to count, and terms that cancel leave rounding errors behind.
"""

from typing import Any

import flax.linen as nn
import jax


def all_but_bias(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, *, dtype: Any
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Return input and kernel in `dtype`, and the bias as it is: linen's `promote_dtype`."""
    return x.astype(dtype), kernel.astype(dtype), bias


class Dense(nn.Dense):
    """`nn.Dense`, see the module."""

    dtype: Any = "float32"
    promote_dtype: Any = all_but_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x).astype(self.dtype)


class DenseGeneral(nn.DenseGeneral):
    """`nn.DenseGeneral`, see the module."""

    dtype: Any = "float32"
    promote_dtype: Any = all_but_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x).astype(self.dtype)


class Conv(nn.Conv):
    """`nn.Conv`, see the module."""

    dtype: Any = "float32"
    promote_dtype: Any = all_but_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x).astype(self.dtype)


def in_dtype(params: dict, dtype: Any) -> dict:
    """Cast kernels to the dtype that they are multiplied in, once instead of at each token."""

    def cast(path: tuple, x: jax.Array) -> jax.Array:
        return x.astype(dtype) if path[-1].key == "kernel" else x

    return jax.tree_util.tree_map_with_path(cast, params)
