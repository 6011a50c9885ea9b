"""The critic of ViT-VQGAN: StyleGAN2's residual discriminator (Karras et al., 2020).

As enhancing-transformers has it.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0

PRETRAINED: dict[str, str] = {}


def channels(side: int, multiplier: float) -> int:
    """Return the width of maps of side x side pixels (StyleGAN2's table).

    It is 512 up to 32, then halved at each doubling.
    """
    return 512 if side <= 32 else int(16384 * multiplier) // side


def sides(image: jax.Array) -> tuple[int, ...]:
    """Return the sides of image [B,H,W,3] and of the maps that follow: (32, 16, 8, 4)."""
    height, width = image.shape[1:3]
    if height != width or height not in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        raise InputError(
            f"this critic sees square images of side 4, 8, 16, ... or 1024, got {height}x{width}"
        )
    return tuple(2**i for i in range(int(math.log2(height)), 1, -1))


def blur(x: jax.Array, size: int = 4, stride: int = 1, padding: int | str = "SAME") -> jax.Array:
    """Return means of x [B,H,W,c] over size x size pixels, every `stride`-th of them.

    Weights are binomial, [1,3,3,1] for 4. Computed in float32, returned in x's dtype.
    padding: "SAME", or the number of zeros on each side.
    """
    if isinstance(padding, str):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), padding)
    else:
        pads = [(padding, padding)] * 2
    y = jnp.pad(x.astype(jnp.float32), ((0, 0), *pads, (0, 0)))
    for axis in (1, 2):  # slices: depthwise convolutions are many times slower on CPUs
        end = stride * ((y.shape[axis] - size) // stride) + 1
        taps = [math.comb(size - 1, k) / 2 ** (size - 1) for k in range(size)]
        parts = (jax.lax.slice_in_dim(y, k, k + end, stride, axis) for k in range(size))
        weighted = (tap * part for tap, part in zip(taps, parts, strict=True))
        y = sum(weighted, jnp.zeros((), jnp.float32))
    return y.astype(x.dtype)


def minibatch_deviation(x: jax.Array, group: int = 4) -> jax.Array:
    """Return x [B,H,W,c] float32 with one channel more: how much the images of a group differ.

    That is one number a group: the standard deviation over the group at each position and channel,
    averaged over them (Karras et al., 2018; group: StyleGAN2). A batch of B = g * m images has m
    groups: the images i, i + m, i + 2 m, ... g is `group`, or B for smaller batches and as
      enhancing-transformers has it: B // (B // group). A function of the global batch, so the
      number of devices does not matter. Raises InputError if g does not divide B.
    """
    batch, x = len(x), x.astype(jnp.float32)
    size = batch // (batch // min(batch, group))
    if batch % size:
        raise InputError(
            f"the stylegan critic needs a batch that is a multiple of {size}, got {batch}: change "
            "batch_size or group"
        )
    y = x.reshape(size, batch // size, *x.shape[1:])
    deviation = jnp.sqrt(jnp.var(y, axis=0) + 1e-8).mean((1, 2, 3))  # [m]; 1e-8: StyleGAN2
    wide = jnp.tile(deviation, size).reshape(batch, 1, 1, 1)
    return jnp.concatenate([x, jnp.broadcast_to(wide, (*x.shape[:3], 1))], -1)


class Critic(nn.Module):
    """image [B,S,S,3] in [-1, 1], S = 4, 8, ..., 1024 -> logits [B] float32.

    A 1x1 convolution, one residual `Block` for each halving down to 4x4, the minibatch deviation, a
    convolution, two linear layers. All weights have an equalized learning rate. The label is not
    used.
    channel_multiplier: of all widths; 2: StyleGAN2's default and enhancing-transformers'.
    Differs from enhancing-transformers, which shows it images in [0, 1].
    """

    channel_multiplier: Above0 = 2
    dtype: Any = "float32"
    label_classes = 0
    trainable = True

    @nn.compact
    def __call__(
        self, image: jax.Array, label: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Return the logits."""
        all_sides = sides(image)
        x = Conv(
            channels(all_sides[0], self.channel_multiplier), 1, dtype=self.dtype, name="conv_in"
        )(image)
        for i, side in enumerate(all_sides[1:], 1):
            x = Block(channels(side, self.channel_multiplier), self.dtype, name=f"block{i}")(x)
        x = Conv(512, 3, dtype=self.dtype, name="conv_out")(minibatch_deviation(x))
        # Channels first: the original's order of inputs.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = activation(Dense(512, self.dtype, name="hidden")(x))
        return Dense(1, self.dtype, name="logits")(x)[:, 0].astype(jnp.float32)


class Block(nn.Module):
    """x [B,H,W,c] -> [B,H/2,W/2,width]: two 3x3 convolutions beside a 1x1 one.

    Maps are blurred before they are halved.
    """

    width: int
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Conv(x.shape[-1], 3, dtype=self.dtype, name="conv1")(x)
        y = Conv(self.width, 3, stride=2, dtype=self.dtype, name="conv2")(blur(y, padding=2))
        x = Conv(self.width, 1, plain=True, dtype=self.dtype, name="skip")(
            blur(x, stride=2, padding=1)
        )
        return (x + y) / math.sqrt(2)


class Conv(nn.Module):
    """Convolution with an equalized learning rate, bias and `activation`.

    Weights are drawn from N(0, 1) and scaled by fan_in^-0.5 when used, so that Adam's steps are
    equal in all layers (Karras et al., 2018). Stride 1 keeps the map's size, stride 2 does not pad.
    plain: neither bias nor activation.
    """

    width: int
    size: int
    stride: int = 1
    plain: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.width)
        kernel = (
            self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
            * math.prod(shape[:3]) ** -0.5
        )
        padding = "SAME" if self.stride == 1 else "VALID"
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = jax.lax.conv_general_dilated(
            x, kernel, (self.stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if self.plain:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        return activation(y + bias.reshape(1, 1, 1, -1)).astype(self.dtype)


class Dense(nn.Module):
    """x [B,c] -> [B,width]: linear with an equalized learning rate (see `Conv`) and a bias."""

    width: int
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.width)
        kernel = (
            self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32) * shape[0] ** -0.5
        )
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.reshape(1, -1)
        return y.astype(self.dtype)


def activation(x: jax.Array) -> jax.Array:
    """Return leaky ReLU of slope 0.2, times sqrt(2) to keep the variance (StyleGAN2)."""
    return nn.leaky_relu(x, 0.2) * math.sqrt(2)
