"""Encoder and decoder of VQGAN (Esser et al., 2021), RQ-VAE and MaskGIT.

They have residual blocks and non-local attention. One file for the three, which differ in
arguments only. The defaults are VQGAN's with f = 16; RQ-VAE has one level more; MaskGIT's
tokenizer is

    Encoder(attention=(), middle_attention=False, z_width=0, down="pool", bias=False,
            shortcut_of_output=True)
    Decoder(attention=(), middle_attention=False, z_width=0, blocks=2, bias=False,
            shortcut_of_output=True)

Differs from VQGAN and RQ-VAE: kernels begin as linen makes them (LeCun normal; normal of 0.02 in
the attention), biases as zeros; there both as PyTorch makes them (uniform).
"""

from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive, Several
from evqgan.nn.conv import (
    Activation,
    Down,
    NonLocal,
    Norm,
    ResBlock,
    Up,
    activate,
    downsample,
    normalize,
    upsample,
)
from evqgan.nn.linear import Conv, Dense


class Encoder(nn.Module):
    """image [B,H,W,3] float, sides multiples of `factor` -> features [B,h,w,c] in `dtype`.

    A 3x3 convolution to `width` channels (`conv_in`). A level for each of `multipliers`: `blocks`
    residual blocks of width * multiplier channels; between levels, `down` halves the sides (see
    `conv.downsample`). `middle` blocks more. A norm, and a 3x3 convolution to z_width channels
    (`conv_out`).
    z_width: c; 0: no last convolution, and c is the last level's width (MaskGIT).
    attention: factors (image side / map side) of the levels where non-local attention follows each
      block; 16: where images of 256x256 are maps of 16x16 (VQGAN).
    middle: so many blocks after the last level.
    down: how sides are halved, see `conv.downsample`.
    middle_attention: after the first of the middle blocks.
    norm, activation, shortcut_of_output: see `conv.ResBlock`.
    bias: of the blocks' convolutions and `conv_in`.
    remat: keep only what goes into blocks and attention for the backward pass.
    """

    width: Positive = 128
    multipliers: Several = (1, 1, 2, 2, 4)
    blocks: Positive = 2
    attention: tuple[Positive, ...] = (16,)
    middle: int = 2
    middle_attention: bool = True
    z_width: int = 256
    down: Down = "conv"
    norm: Norm = "group"
    activation: Activation = "swish"
    bias: bool = True
    shortcut_of_output: bool = False
    remat: bool = False
    dtype: Any = "float32"

    @property
    def factor(self) -> int:
        """The image's side / the map's side, f."""
        return 2 ** (len(self.multipliers) - 1)

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the features."""
        x = Conv(self.width, (3, 3), use_bias=self.bias, dtype=self.dtype, name="conv_in")(image)
        for i in range(len(self.multipliers)):
            x = level(self, x, i, "down")
            if 2**i < self.factor:
                x = downsample(x, self.down, self.dtype, f"down{i}_conv")
        x = finish(self, middle(self, x))
        return (
            Conv(self.z_width, (3, 3), dtype=self.dtype, name="conv_out")(x) if self.z_width else x
        )


class Decoder(nn.Module):
    """z [B,h,w,c] of any c -> image [B,H,W,3] float32, not clipped; H = h * `factor`.

    The encoder mirrored: a linear layer to z_width channels (`from_codes`, VQGAN's post_quant_conv;
    z_width 0: none), a 3x3 convolution (`conv_in`), the middle blocks, the levels in reverse order
    with `up` between them (see `conv.upsample`), a norm, and a 3x3 convolution to RGB (`to_rgb`).
    Arguments as in `Encoder`, `multipliers` in the same order.
    up: how sides are doubled, see `conv.upsample`.
    bias: of the blocks' convolutions.
    """

    width: Positive = 128
    multipliers: Several = (1, 1, 2, 2, 4)
    blocks: Positive = 3  # VQGAN: one more than in the encoder
    attention: tuple[Positive, ...] = (16,)
    middle: int = 2
    middle_attention: bool = True
    z_width: int = 256
    up: Up = "conv"
    norm: Norm = "group"
    activation: Activation = "swish"
    bias: bool = True
    shortcut_of_output: bool = False
    remat: bool = False
    dtype: Any = "float32"
    last_layer = ("to_rgb", "kernel")

    @property
    def factor(self) -> int:
        """The image's side / the map's side, f."""
        return 2 ** (len(self.multipliers) - 1)

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Return the image."""
        x = Dense(self.z_width, dtype=self.dtype, name="from_codes")(z) if self.z_width else z
        x = Conv(self.width * self.multipliers[-1], (3, 3), dtype=self.dtype, name="conv_in")(x)
        x = middle(self, x)
        for i in reversed(range(len(self.multipliers))):
            x = level(self, x, i, "up")
            if i:
                x = upsample(x, self.up, self.dtype, f"up{i}_conv")
        return Conv(3, (3, 3), precision="highest", name="to_rgb")(
            finish(self, x).astype(jnp.float32)
        )


def level(coder: Encoder | Decoder, x: jax.Array, i: int, way: str) -> jax.Array:
    """Return x through the blocks of the `i`-th level, counted from the image.

    way: "down" in an encoder, "up" in a decoder.
    """
    for factor in coder.attention:
        if factor not in [2**j for j in range(len(coder.multipliers))]:
            raise InputError(
                f"attention: factors are powers of 2 up to {coder.factor}, got {factor}: change it"
            )
    attended = range(coder.blocks) if 2**i in coder.attention else ()
    return chain(coder, x, f"{way}{i}", coder.width * coder.multipliers[i], coder.blocks, attended)


def middle(coder: Encoder | Decoder, x: jax.Array) -> jax.Array:
    """Return x through the blocks beside the latents: an encoder's last, a decoder's first."""
    return chain(
        coder, x, "middle", x.shape[-1], coder.middle, (0,) if coder.middle_attention else ()
    )


def chain(
    coder: Encoder | Decoder,
    x: jax.Array,
    name: str,
    width: int,
    blocks: int,
    attended: Collection[int],
) -> jax.Array:
    """Return x [B,h,w,c] as [B,h,w,width], through residual blocks.

    attended: the blocks after which a non-local attention follows, by number.
    """
    block = nn.remat(ResBlock) if coder.remat else ResBlock
    attention = nn.remat(NonLocal) if coder.remat else NonLocal
    for j in range(blocks):
        x = block(
            width,
            coder.norm,
            coder.activation,
            coder.bias,
            coder.shortcut_of_output,
            coder.dtype,
            name=f"{name}_block{j}",
        )(x)
        if j in attended:
            x = attention(coder.norm, coder.dtype, name=f"{name}_attention{j}")(x)
    return x


def finish(coder: Encoder | Decoder, x: jax.Array) -> jax.Array:
    """Return x through the norm and the activation before the last convolution."""
    return activate(normalize(x, coder.norm, coder.dtype, "norm_out"), coder.activation)
