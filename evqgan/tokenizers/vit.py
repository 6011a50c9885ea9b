"""Encoder and decoder of ViT-VQGAN (Yu et al., ICLR 2022, Sec. 3.1): transformers over patches.

There is no code of the authors; names, positions and what the paper leaves open are those of the
port with public weights, thuanz123/enhancing-transformers: the tanh between the two layers of an
MLP stands in every block, queries, keys and values have no bias, and positions are a fixed table.
The paper's sizes are, as layers / width / heads / mlp_width, Small 8 / 512 / 8 / 2048, Base 12 /
768 / 12 / 3072 (the defaults), Large 32 / 1280 / 16 / 5120.
Differs from the port: linear layers of blocks start from a normal distribution of 0.02
(`nn.attention`), not Xavier's.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive
from evqgan.nn.attention import Block, flatten_tokens
from evqgan.nn.layers import scan_layers
from evqgan.nn.linear import Dense, DenseGeneral

xavier = nn.initializers.xavier_uniform  # enhancing-transformers
EPSILON = 1e-5  # of the layer norms: PyTorch


class Coder(nn.Module):
    """What an encoder and a decoder share: their fields, and the transformer of both.

    size: of the images in pixels, one number, or (height, width), a multiple of `patch`.
    patch: the pixels of a token's side, one number, or (height, width).
    heads: heads of attention, by which every token looks at all others.
    head_dim: channels of each head. The attention's linear layer `out` is absent where there is one
      head as wide as the tokens (enhancing-transformers).
    learned_positions: whether positions are trained (ours). They are a table of sines and cosines
      (`sincos`) added to the tokens; it is a parameter even if not trained, as in the port.
    Raises InputError for what no encoder or decoder can be built from.
    """

    size: Positive | tuple[Positive, Positive] = 256
    patch: Positive | tuple[Positive, Positive] = 8
    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12
    head_dim: Positive = 64  # enhancing-transformers, all sizes
    mlp_width: Positive = 3072
    learned_positions: bool = False
    remat: bool = False
    dtype: Any = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        size, patch = pair(self.size), pair(self.patch)
        if any(side % of for side, of in zip(size, patch, strict=True)):
            raise InputError(
                f"expected a size that is a multiple of the patch {by(patch)}, got {by(size)}: "
                "change one"
            )
        if self.width % 4:
            raise InputError(
                f"expected a width that is a multiple of 4, got {self.width}: "
                "positions have four parts"
            )

    @property
    def factor(self) -> int:
        """The image's side / the map's side, f: the patch's side.

        Raises InputError if it has two, as all that works on tokens takes one factor for both.
        """
        below, right = pair(self.patch)
        if below != right:
            raise InputError(
                f"expected patches as high as wide in a tokenizer, got {below}x{right}: "
                "give one number"
            )
        return below

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): how many patches an image of `size` has."""
        (height, width), (below, right) = pair(self.size), pair(self.patch)
        return height // below, width // right

    def transformer(self, x: jax.Array) -> jax.Array:
        """Return x [B,h,w,width] through positions, `layers` blocks, and a norm at the end.

        The blocks are stacked under `blocks`.
        """
        b, h, w, width = x.shape
        positions = self.param("positions", lambda _: jnp.asarray(sincos(h, w, width)))
        if not self.learned_positions:
            positions = jax.lax.stop_gradient(positions)
        x = (x.reshape(b, h * w, width) + positions[None]).astype(x.dtype)
        block = Block(
            self.heads,
            self.mlp_width / width,
            dtype=self.dtype,
            epsilon=EPSILON,
            activation="tanh",
            qkv_bias=False,
            head_dim=self.head_dim,
            project=self.heads > 1 or self.head_dim != width,
            name="blocks",
        )
        x, _ = scan_layers(
            lambda block, x, _: (block(x)[0], None), block, x, self.layers, self.remat
        )
        return nn.LayerNorm(EPSILON, self.dtype, name="norm")(x).reshape(b, h, w, width)


class Encoder(Coder):
    """image [B,H,W,3] float of exactly `size` -> [B,h,w,width] in `dtype`; h = H / `patch`.

    A linear layer (`embed`) makes one token of every patch. Raises InputError for an image of
    another size.
    """

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the features."""
        if image.shape[1:3] != pair(self.size):
            got, expected = by(image.shape[1:3]), by(pair(self.size))
            raise InputError(
                f"expected images of {expected} (height x width), got {got}: "
                "crop them, or change `size` of encoder and decoder"
            )
        (h, w), (below, right) = self.grid, pair(self.patch)
        x = image.reshape(-1, h, below, w, right, image.shape[-1]).swapaxes(2, 3)
        x = x.reshape(-1, *x.shape[-3:])  # [B*h*w,below,right,3]
        x = DenseGeneral(
            self.width, (-3, -2, -1), dtype=self.dtype, kernel_init=xavier(), name="embed"
        )(x)
        return self.transformer(x.reshape(-1, h, w, self.width))


class Decoder(Coder):
    """z [B,h,w,c] of any c -> image [B,H,W,3] float32 of exactly `size`, not clipped.

    A linear layer to `width` (`from_codes`), positions, blocks, and a linear layer from each token
    to the pixels of its patch (`to_rgb`). Raises InputError for another number of tokens.
    """

    last_layer = ("to_rgb", "kernel")

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Return the image."""
        if z.shape[1:3] != self.grid:
            got, expected = by(z.shape[1:3]), by(self.grid)
            raise InputError(
                f"expected {expected} tokens (height x width), got {got}: change the decoder's size"
            )
        x = Dense(self.width, dtype=self.dtype, name="from_codes")(flatten_tokens(z))
        x = self.transformer(x.reshape(*z.shape[:3], self.width))
        return ToPatches(pair(self.patch), name="to_rgb")(x.astype(jnp.float32))


class ToPatches(nn.Module):
    """x [B,h,w,c] -> image [B,h*patch,w*patch,3]: a linear layer with one bias a colour.

    The transposed convolution that has its kernel's size as its stride; `kernel` [patch,patch,3,c],
    `bias` [3].
    """

    patch: tuple[int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        below, right = self.patch
        init = xavier(in_axis=3, out_axis=(0, 1, 2))
        kernel = self.param("kernel", init, (below, right, 3, c))
        bias = self.param("bias", nn.initializers.zeros, (3,))
        y = jnp.matmul(flatten_tokens(x), flatten_tokens(kernel).T, precision="highest")
        y = y.reshape(b, h, w, below, right, 3).swapaxes(2, 3)
        return y.reshape(b, h * below, w * right, 3) + bias[None, None, None]


def sincos(h: int, w: int, width: int) -> np.ndarray:
    """Return the positions of a grid in raster order, [h*w,width] float32.

    Half of the channels tell the column, half the row: the sines of position / 10000^(i / n) for i
    from 0 to n - 1, then their cosines, with n = width / 4 (MAE, He et al., 2022;
    enhancing-transformers). The width is a multiple of 4.
    """
    n = width // 4
    frequency = 10000.0 ** (-np.arange(n) / n)

    def encode(positions: np.ndarray) -> np.ndarray:
        angle = positions[:, None] * frequency[None]
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    row, column = np.indices((h, w)).reshape(2, -1)
    return np.concatenate([encode(column), encode(row)], axis=1).astype(np.float32)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return a number for both sides, or (height, width), as (height, width)."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def by(sides: Sequence[int]) -> str:
    """Return (8, 4) as "8x4"."""
    return "x".join(map(str, sides))
