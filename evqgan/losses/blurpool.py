"""The patch critic of VQGAN+ (Weber et al., "MaskBit", 2024): maps are blurred and then halved."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive
from evqgan.losses.stylegan import blur
from evqgan.nn.linear import Conv
from evqgan.nn.spectral import torch_bias, torch_kernel

PRETRAINED: dict[str, str] = {}
GROUPS = 32  # of the group norms, or one for each channel if there are fewer; MaskBit's code


class Critic(nn.Module):
    """image [B,H,W,3] in [-1, 1] -> logits [B,h,w,1] float32, h = H / 2^stages, of patches.

    A 5x5 convolution; `stages` times a 3x3 convolution to width * (1, 2, 4, ...), a `blur` with the
    binomial kernel [1,3,3,1] that halves the map (Zhang, "Making Convolutional Networks
    Shift-Invariant Again", 2019), a group norm; a 1x1 convolution, and a 5x5 one to the logits. No
    example depends on the others of its batch. The label is not used.
    stages: how often the map is halved.
    Defaults: MaskBit's vqgan_plus_10bit.yaml. Raises InputError unless 2^stages divides the sides.

    Source: markweberdev/maskbit `discriminator.py`, NLayerDiscriminatorv2 with blur_resample.
    Differs from MaskBit, which shows it images in [0, 1], and pools the last map of images above
    256x256 to 16x16.
    """

    stages: Positive = 4
    width: Positive = 128
    dtype: Any = "float32"
    label_classes = 0
    trainable = True

    @nn.compact
    def __call__(
        self, image: jax.Array, label: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Return the logits."""
        height, width = image.shape[1:3]
        if height % 2**self.stages or width % 2**self.stages:
            raise InputError(
                f"blurpool with {self.stages} stages sees multiples of {2**self.stages}, "
                f"got {width}x{height}"
            )

        def conv(x: jax.Array, width: int, size: int, name: str) -> jax.Array:
            layer = Conv(
                width,
                (size, size),
                dtype=self.dtype,
                kernel_init=torch_kernel,
                bias_init=torch_bias(size**2 * x.shape[-1]),
                name=name,
            )
            return layer(x)

        x = _activate(conv(image, self.width, 5, "conv_in"))
        for i in range(self.stages):
            x = blur(conv(x, self.width * 2**i, 3, f"conv{i}"), stride=2)
            groups = min(GROUPS, x.shape[-1])
            x = nn.GroupNorm(
                groups, epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name=f"norm{i}"
            )(x)
            x = _activate(x)
        x = _activate(conv(x, x.shape[-1], 1, "conv_out"))
        return conv(x, 1, 5, "logits").astype(jnp.float32)


def _activate(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, 0.1)  # 0.1: MaskBit
