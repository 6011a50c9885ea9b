"""Dense layers and convolutions of linen, whose bias is added in float32.

The sum is then cast to `dtype`. linen casts the bias to `dtype` and adds it there. The gradient
of a bias is a sum over all rows, and so was a sum of bfloat16: what is added to 256 has to be
larger than 1 to count, and terms that cancel leave rounding errors behind.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


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


class KeyValue(nn.Module):
    """Two `DenseGeneral` of x [...,c], keys and values [...,heads,d], with one set of parameters.

    They are those of one layer of 2 x heads x d features: `kernel` [c,2,heads,d], `bias`
    [2,heads,d]. Its results would be cut apart, and their gradients put together.
    """

    heads: int
    head_dim: int
    use_bias: bool = True
    dtype: Any = "float32"
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        features, rows = (2, self.heads, self.head_dim), x.shape[-1]

        def drawn(rng: jax.Array) -> jax.Array:
            flat = self.kernel_init(rng, (rows, math.prod(features)), jnp.float32)
            return flat.reshape(rows, *features)

        kernel = self.param("kernel", drawn)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        made = [jnp.einsum("...c,chd->...hd", x, kernel[:, side]) for side in (0, 1)]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, features)
            bias = bias.reshape(2, *(1,) * (x.ndim - 1), *features[1:])
            made = [y + bias[side] for side, y in enumerate(made)]
        return [y.astype(self.dtype) for y in made]


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


def products_in(dtype: Any) -> Callable:
    """Return a dot_general of float32 arrays with products in `dtype` and sums in float32."""

    def dot_general(x: jax.Array, y: jax.Array, dimensions: Any, **_: Any) -> jax.Array:
        x, y = x.astype(dtype), y.astype(dtype)
        return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)

    return dot_general
