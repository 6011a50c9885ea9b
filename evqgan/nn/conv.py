"""Convolutional layers of the tokenizers: residual block, attention, down- and upsampling."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError
from evqgan.nn.attention import Attention
from evqgan.nn.linear import Conv, Dense

GROUPS = 32  # of the group norms; VQGAN, MaskGIT
Norm = Literal["group", "layer"]
Activation = Literal["swish", "relu"]
Down = Literal["conv", "pool", "conv4"]
Up = Literal["conv", "nearest"]


def activate(x: jax.Array, kind: Activation = "swish") -> jax.Array:
    """Return x through "swish" (VQGAN, MaskGIT) or "relu" (MaskGIT's other one)."""
    return nn.relu(x) if kind == "relu" else nn.swish(x)


def normalize(
    x: jax.Array, kind: Norm = "group", dtype: Any = "float32", name: str = "norm"
) -> jax.Array:
    """Return x [B,h,w,c] normalized, in `dtype`.

    kind: a "group" norm of 32 groups, or "layer", of each position's channels alone. 1e-6: VQGAN,
      MaskGIT. Raises InputError if "group" has channels that are no multiple of 32.
    name: of the linen module.
    """
    if kind == "layer":
        return nn.LayerNorm(1e-6, dtype, use_fast_variance=False, name=name)(x)
    if x.shape[-1] % GROUPS:
        raise InputError(
            f"expected channels that are multiples of {GROUPS}, the groups of the norm, got "
            f"{x.shape[-1]}: change width or multipliers"
        )
    return nn.GroupNorm(GROUPS, epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)(x)


class ResBlock(nn.Module):
    """x [B,h,w,c] -> [B,h,w,features] in `dtype`: twice norm, activation, 3x3 convolution (VQGAN).

    They are added to x. If c is not `features`, a 1x1 convolution brings x there, the `shortcut`.
    shortcut_of_output: MaskGIT's quirk: where the width changes, the shortcut convolves the block's
      own output instead of x, so that x itself is not added.
    bias: of all convolutions.
    """

    features: int
    norm: Norm = "group"
    activation: Activation = "swish"
    bias: bool = True
    shortcut_of_output: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for i in (1, 2):
            y = activate(normalize(y, self.norm, self.dtype, f"norm{i}"), self.activation)
            conv = Conv(
                self.features, (3, 3), use_bias=self.bias, dtype=self.dtype, name=f"conv{i}"
            )
            y = conv(y)
        if x.shape[-1] != self.features:
            x = y if self.shortcut_of_output else x
            x = Dense(self.features, use_bias=self.bias, dtype=self.dtype, name="shortcut")(x)
        return x.astype(self.dtype) + y


class NonLocal(nn.Module):
    """x [B,h,w,c] -> [B,h,w,c] in `dtype`: every position looks at all of the map (VQGAN).

    A norm, an `attention` with one head of width c, added to x. It knows no positions, so one set
    of parameters serves maps of any size.
    """

    norm: Norm = "group"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        y = normalize(x, self.norm, self.dtype).reshape(b, h * w, c)
        y, _ = Attention(1, dtype=self.dtype, name="attention")(y)
        return x.astype(self.dtype) + y.reshape(x.shape)


def downsample(
    x: jax.Array, kind: Down = "conv", dtype: Any = "float32", name: str = "down"
) -> jax.Array:
    """Return x [B,h,w,c], h and w even, as [B,h/2,w/2,c] in `dtype`.

    kind: "conv": 3x3 of stride 2, one row and column of zeros after the last (VQGAN); "pool": the
      mean of four (MaskGIT); "conv4": 4x4 of stride 2, zeros all around (MaskGIT's
      conv_downsample).
    name: of the linen module.
    """
    if kind == "pool":
        return nn.avg_pool(x.astype(dtype), (2, 2), (2, 2))
    size, padding = {"conv": (3, (0, 1)), "conv4": (4, (1, 1))}[kind]
    return Conv(x.shape[-1], (size, size), 2, (padding, padding), dtype=dtype, name=name)(x)


def upsample(
    x: jax.Array, kind: Up = "conv", dtype: Any = "float32", name: str = "up"
) -> jax.Array:
    """Return x [B,h,w,c] as [B,2h,2w,c] in `dtype`.

    kind: "nearest": each position four times; "conv": and then a 3x3 convolution.
    name: of the linen module.
    """
    if kind == "nearest":
        return x.astype(dtype).repeat(2, axis=1).repeat(2, axis=2)
    return UpsampledConv(x.shape[-1], dtype, name=name)(x)


class UpsampledConv(nn.Module):
    """x [B,h,w,c] -> [B,2h,2w,features] in `dtype`: upsampling to the nearest, a 3x3 convolution.

    The four pixels that come from one x are computed as four times the features before anything is
    upsampled: equal numbers, a quarter of the memory, and four times faster to train on a CPU than
      the literal form. Parameters: `kernel`, `bias`.
    """

    features: int
    dtype: Any = "float32"
    precision: str | None = None  # of the convolution

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (3, 3, c, self.features), jnp.float32
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        # taps[i,j,k] = 1: pixel i of the two that one x becomes meets x's neighbour j - 1 under row
        # k of the kernel.
        taps = np.array(
            [[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]], np.float32
        )
        kernels = jnp.einsum(
            "ayk,bxl,klcf->yxcabf", taps, taps, kernel, precision="highest"
        ).reshape(3, 3, c, -1)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernels.astype(self.dtype),
            (1, 1),
            "SAME",
            precision=self.precision,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y.reshape(b, h, w, 2, 2, -1).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, -1)
        return (y + bias[None, None, None]).astype(self.dtype)
