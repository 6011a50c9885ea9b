"""Encoder and decoder of Efficient-VQGAN (paper, Sec. 3.1): stages of Swin blocks, local attention.

Blocks and patch merging are those of Swin Transformer (Liu et al., ICCV 2021), patch expanding
that of Swin-Unet (Cao et al., 2021). The paper gives no width, depth or window: the defaults are
Swin-B's first three stages with the window 8 of Swin's 256^2 configuration.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, Positive, Several
from evqgan.nn.attention import kernel_init
from evqgan.nn.conv import UpsampledConv
from evqgan.nn.layers import scan_layers
from evqgan.nn.linear import Dense
from evqgan.nn.windows import WindowBlock


class Coder(nn.Module):
    """What an encoder and a decoder share: their fields, and the stages of blocks of both.

    A stage for each entry of `depths`, which is its number of blocks; stage i, counted from the
    image, is width * 2^i wide. Raises InputError for a width that the heads do not divide.
    """

    width: Positive = 128
    depths: Several = (2, 2, 18)
    head_dim: Positive = 32
    window: Positive = 8  # side of an attention window, in tokens
    mlp_ratio: Above0 = 4.0
    remat: bool = False
    unroll: int = 1  # pairs of blocks in a turn of the loop over each stage; 0: no loop
    dtype: Any = "float32"

    def __post_init__(self) -> None:
        if self.width % self.head_dim:
            raise InputError(
                "the width of a Swin encoder or decoder is a multiple of its head_dim, "
                f"{self.head_dim}, not {self.width}"
            )
        super().__post_init__()

    def stage(self, i: int) -> "Stage":
        """Return stage i."""
        return Stage(
            self.depths[i],
            self.width * 2**i // self.head_dim,
            self.window,
            self.mlp_ratio,
            remat=self.remat,
            unroll=self.unroll,
            dtype=self.dtype,
            name=f"stage{i}",
        )


class Encoder(Coder):
    """image [B,H,W,3] in [-1, 1], sides multiples of `factor` -> features [B,h,w,c] in `dtype`.

    Patches of `patch` x `patch` pixels, then the stages with patch merging between them: f = patch
    * 2^(stages - 1), so f = 4, 8, 16, 32 with one to four stages (paper, Sec. 3.1), and c = width *
    2^(stages - 1).
    """

    patch: Positive = 4  # paper, Sec. 3.1

    @property
    def factor(self) -> int:
        """The image's side / the map's side, f."""
        return self.patch * 2 ** (len(self.depths) - 1)

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the features."""
        x = PatchEmbedding(self.width, self.patch, self.dtype, name="embed")(image)
        for i in range(len(self.depths)):
            if i:
                x = PatchMerging(self.dtype, name=f"merge{i}")(x)
            x = self.stage(i)(x)
        return nn.LayerNorm(1e-5, self.dtype, name="norm")(x)  # 1e-5, and a norm at the end: Swin


class Decoder(Coder):
    """z [B,h,w,c] of any c -> image [B,H,W,3] float32, not clipped; H = h * `factor`.

    The encoder mirrored (paper, Sec. 3.1): the stages in reverse order, each followed by patch
    expanding, then nearest-neighbour upsampling and a 3x3 convolution to RGB (`to_rgb`).
    f = 2 * 2^stages. `depths` in the encoder's order.
    """

    last_layer = ("to_rgb", "kernel")

    @property
    def factor(self) -> int:
        """The image's side / the map's side, f."""
        return 2 * 2 ** len(self.depths)

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Return the image."""
        top = self.width * 2 ** (len(self.depths) - 1)
        x = Dense(top, dtype=self.dtype, name="from_codes")(z)
        for i in reversed(range(len(self.depths))):
            x = self.stage(i)(x)
            x = PatchExpanding(x.shape[-1] // 2, dtype=self.dtype, name=f"expand{i}")(x)
        return UpsampledConv(3, precision="highest", name="to_rgb")(x.astype(jnp.float32))


class Stage(nn.Module):
    """`depth` Swin blocks, every second one shifted. x [B,h,w,c] -> [B,h,w,c] in `dtype`.

    The pairs (plain, shifted) are one scan over parameters stacked as [depth // 2,...] under
    `pairs`; of an odd depth, the last block (plain) follows under `last`. `remat` keeps only the
    pairs' inputs for the backward pass; `unroll` is that of `scan_layers`.
    """

    depth: int
    heads: int
    window: int = 8
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    remat: bool = False
    unroll: int = 1
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        block = functools.partial(
            WindowBlock,
            self.heads,
            self.window,
            mlp_ratio=self.mlp_ratio,
            qkv_bias=self.qkv_bias,
            dtype=self.dtype,
        )
        pairs, last = divmod(self.depth, 2)
        if pairs:
            pair = Pair(block, name="pairs")
            step = lambda pair, x, _: (pair(x), None)  # noqa: E731 (of one line)
            x, _ = scan_layers(step, pair, x, pairs, self.remat, unroll=self.unroll)
        return block(name="last")(x) if last else x


class Pair(nn.Module):
    """A plain and a shifted block, each made by `block(shifted=..., name=...)`."""

    block: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.block(shifted=True, name="shifted")(self.block(shifted=False, name="plain")(x))


class PatchEmbedding(nn.Module):
    """image [B,H,W,3] -> [B,H/patch,W/patch,width]: a linear layer on each patch, then a norm.

    The norm is Swin's patch_norm.
    """

    width: int
    patch: int = 4
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        b, h, w, c = image.shape
        x = image.reshape(b, h // self.patch, self.patch, w // self.patch, self.patch, c).swapaxes(
            2, 3
        )
        x = x.reshape(*x.shape[:3], -1)
        x = Dense(self.width, dtype=self.dtype, kernel_init=kernel_init, name="linear")(x)
        return nn.LayerNorm(1e-5, self.dtype, name="norm")(x)


class PatchMerging(nn.Module):
    """x [B,h,w,c] -> [B,h/2,w/2,2c] (Swin).

    Four neighbours side by side, a norm, a linear layer without bias.
    """

    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        # down before right, as Swin
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
        x = nn.LayerNorm(1e-5, self.dtype, name="norm")(x.reshape(b, h // 2, w // 2, 4 * c))
        return Dense(
            2 * c, use_bias=False, dtype=self.dtype, kernel_init=kernel_init, name="linear"
        )(x)


class PatchExpanding(nn.Module):
    """x [B,h,w,c] -> [B,h*scale,w*scale,features] (Swin-Unet).

    A linear layer without bias, rearranged, then a norm.
    """

    features: int
    scale: int = 2
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, _ = x.shape
        features = self.scale**2 * self.features
        x = Dense(
            features, use_bias=False, dtype=self.dtype, kernel_init=kernel_init, name="linear"
        )(x)
        x = x.reshape(b, h, w, self.scale, self.scale, -1).swapaxes(2, 3)
        x = x.reshape(b, h * self.scale, w * self.scale, -1)
        return nn.LayerNorm(1e-5, self.dtype, name="norm")(x)
