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


class Coder(nn.Module):
    """What an encoder and a decoder share: their fields, and the parts of which both consist.

    Level i, counted from the image, has `blocks` residual blocks of width * multipliers[i]
    channels; beside the latents there are `middle` blocks more.
    attention: factors (image side / map side) of the levels where non-local attention follows each
      block; 16: where images of 256x256 are maps of 16x16 (VQGAN).
    middle: so many blocks after an encoder's last level, before a decoder's first one.
    middle_attention: whether attention follows the first of the middle blocks.
    norm: which norm the blocks have, see `conv.normalize`.
    activation: the function of the blocks, see `conv.activate`.
    shortcut_of_output: MaskGIT's quirk where the width changes, see `conv.ResBlock`.
    remat: keep only what goes into blocks and attention for the backward pass.
    Raises InputError for attention where there is no level.
    """

    width: Positive = 128
    multipliers: Several = (1, 1, 2, 2, 4)
    blocks: Positive = 2
    attention: tuple[Positive, ...] = (16,)
    middle: int = 2
    middle_attention: bool = True
    z_width: int = 256
    norm: Norm = "group"
    activation: Activation = "swish"
    bias: bool = True
    shortcut_of_output: bool = False
    remat: bool = False
    dtype: Any = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        for factor in self.attention:
            if factor not in [2**i for i in range(len(self.multipliers))]:
                raise InputError(
                    f"attention: factors are powers of 2 up to {self.factor}, got {factor}: "
                    "change it"
                )

    @property
    def factor(self) -> int:
        """The image's side / the map's side, f."""
        return 2 ** (len(self.multipliers) - 1)

    def level(self, x: jax.Array, i: int, way: str) -> jax.Array:
        """Return x through the blocks of level i. way: "down" in an encoder, "up" in a decoder."""
        attended = range(self.blocks) if 2**i in self.attention else ()
        width = self.width * self.multipliers[i]
        return self.chain(x, f"{way}{i}", width, self.blocks, attended)

    def through_middle(self, x: jax.Array) -> jax.Array:
        """Return x through the blocks beside the latents."""
        attended = (0,) if self.middle_attention else ()
        return self.chain(x, "middle", x.shape[-1], self.middle, attended)

    def chain(
        self, x: jax.Array, name: str, width: int, blocks: int, attended: Collection[int]
    ) -> jax.Array:
        """Return x [B,h,w,c] as [B,h,w,width], through residual blocks.

        attended: the blocks after which a non-local attention follows, by number.
        """
        block = nn.remat(ResBlock) if self.remat else ResBlock
        attention = nn.remat(NonLocal) if self.remat else NonLocal
        for j in range(blocks):
            x = block(
                width,
                self.norm,
                self.activation,
                self.bias,
                self.shortcut_of_output,
                self.dtype,
                name=f"{name}_block{j}",
            )(x)
            if j in attended:
                x = attention(self.norm, self.dtype, name=f"{name}_attention{j}")(x)
        return x

    def finish(self, x: jax.Array) -> jax.Array:
        """Return x through the norm and the activation before the last convolution."""
        return activate(normalize(x, self.norm, self.dtype, "norm_out"), self.activation)


class Encoder(Coder):
    """image [B,H,W,3] float, sides multiples of `factor` -> features [B,h,w,c] in `dtype`.

    A 3x3 convolution to `width` channels (`conv_in`); the levels, between which `down` halves the
    sides; the middle blocks; a norm; and a 3x3 convolution to z_width channels (`conv_out`).
    z_width: c; 0: no last convolution, and c is the last level's width (MaskGIT).
    down: how sides are halved, see `conv.downsample`.
    bias: of the blocks' convolutions and `conv_in`.
    """

    down: Down = "conv"

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the features."""
        x = Conv(self.width, (3, 3), use_bias=self.bias, dtype=self.dtype, name="conv_in")(image)
        for i in range(len(self.multipliers)):
            x = self.level(x, i, "down")
            if i + 1 < len(self.multipliers):
                x = downsample(x, self.down, self.dtype, f"down{i}_conv")
        x = self.finish(self.through_middle(x))
        if not self.z_width:
            return x
        return Conv(self.z_width, (3, 3), dtype=self.dtype, name="conv_out")(x)


class Decoder(Coder):
    """z [B,h,w,c] of any c -> image [B,H,W,3] float32, not clipped; H = h * `factor`.

    The encoder mirrored: a linear layer to z_width channels (`from_codes`, VQGAN's
    post_quant_conv), a 3x3 convolution (`conv_in`), the middle blocks, the levels in reverse order
    with `up` between them, a norm, and a 3x3 convolution to RGB (`to_rgb`).
    multipliers: channels of each level, as multiples of `width`, in the encoder's order.
    z_width: channels of `from_codes`; 0: no such layer.
    up: how sides are doubled, see `conv.upsample`.
    bias: of the blocks' convolutions.
    """

    blocks: Positive = 3  # VQGAN: one more than in the encoder
    up: Up = "conv"
    last_layer = ("to_rgb", "kernel")

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Return the image."""
        x = Dense(self.z_width, dtype=self.dtype, name="from_codes")(z) if self.z_width else z
        x = Conv(self.width * self.multipliers[-1], (3, 3), dtype=self.dtype, name="conv_in")(x)
        x = self.through_middle(x)
        for i in reversed(range(len(self.multipliers))):
            x = self.level(x, i, "up")
            if i:
                x = upsample(x, self.up, self.dtype, f"up{i}_conv")
        x = self.finish(x).astype(jnp.float32)
        return Conv(3, (3, 3), precision="highest", name="to_rgb")(x)
