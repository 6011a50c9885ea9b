"""The critic of MaskGIT's tokenizer: StyleGAN2's residual blocks without its special layers.

Neither equalized learning rate nor minibatch deviation; biases and activations as usual; Glorot
initialization. Source: google-research/maskgit.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import Above0
from evqgan.losses.stylegan import blur, channels, sides
from evqgan.nn.linear import Conv, Dense

PRETRAINED: dict[str, str] = {}


def downsample(x: jax.Array, blurred: bool) -> jax.Array:
    """Return x [B,H,W,c] as [B,H/2,W/2,c], rounded up.

    It takes means of 2x2 pixels, or, `blurred`, of 4x4 with the weights [1,3,3,1]. At odd sides the
    former divides by the pixels there are, the latter counts zeros beyond the border (TensorFlow's
    SAME average pooling; Zhang, 2019).
    """
    return (
        blur(x, stride=2)
        if blurred
        else nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
    )


class Critic(nn.Module):
    """image [B,S,S,3] in [-1, 1], S = 4, 8, ..., 1024 -> logits [B] float32.

    A 3x3 convolution, one residual `Block` for each halving down to 4x4, a convolution, two linear
    layers. The label is not used.
    channel_multiplier: of all widths.
    blur: before maps are halved.
    Defaults: MaskGIT's vqgan_config. Differs from MaskGIT, which shows it images in [0, 1].
    """

    channel_multiplier: Above0 = 1
    blur: bool = False
    dtype: Any = "float32"
    label_classes = 0
    trainable = True

    @nn.compact
    def __call__(
        self, image: jax.Array, label: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Return the logits."""
        all_sides = sides(image)
        x = nn.leaky_relu(
            _conv(self, channels(all_sides[0], self.channel_multiplier), 3, name="conv_in")(image),
            0.2,
        )
        for i, side in enumerate(all_sides[1:]):
            x = Block(
                channels(side, self.channel_multiplier), self.blur, self.dtype, name=f"block{i}"
            )(x)
        x = nn.leaky_relu(_conv(self, 512, 3, name="conv_out")(x), 0.2)
        dense = functools.partial(
            Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        x = nn.leaky_relu(dense(512, name="hidden")(x.reshape(len(x), -1)), 0.2)
        return dense(1, name="logits")(x)[:, 0].astype(jnp.float32)


class Block(nn.Module):
    """x [B,H,W,c] -> [B,H/2,W/2,width]: two 3x3 convolutions, halved in between, beside a 1x1."""

    width: int
    blur: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.leaky_relu(_conv(self, x.shape[-1], 3, name="conv1")(x), 0.2)
        y = nn.leaky_relu(_conv(self, self.width, 3, name="conv2")(downsample(y, self.blur)), 0.2)
        x = _conv(self, self.width, 1, use_bias=False, name="skip")(downsample(x, self.blur))
        return (x + y) / math.sqrt(2)


def _conv(module: Critic | Block, width: int, size: int, **keys: Any) -> Conv:
    return Conv(
        width,
        (size, size),
        dtype=module.dtype,
        kernel_init=nn.initializers.xavier_uniform(),
        **keys,
    )
