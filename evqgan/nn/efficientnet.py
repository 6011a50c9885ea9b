"""EfficientNet-lite0 as timm's tf_efficientnet_lite0: frozen features, and its classifier apart."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.nn.depthwise import depthwise

STEM = 32  # channels; Tan and Le 2019, Table 1 (lite: the stem does not scale)
EPSILON = 1e-3  # beside the variance; TensorFlow's EfficientNet


class Group(NamedTuple):
    """Blocks of one resolution."""

    depth: int
    kernel: int
    stride: int  # of the first block
    expansion: int
    channels: int


# Tan and Le 2019, Table 1; lite0 has the sizes of B0 without squeeze-and-excitation, and ReLU6 for
# Swish
GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
MAPS = (1, 2, 4, 6)  # after which group a map is taken; Projected GAN
CHANNELS = tuple(GROUPS[i].channels for i in MAPS)
# Of the head, which does not scale in lite; and ImageNet's. Tan and Le 2019, Table 1
HEAD, CLASSES = 1280, 1000


class ConvNorm(nn.Module):
    """A convolution without bias, padded as in TensorFlow ("SAME"), then batch norm.

    The norm has frozen statistics.
    """

    channels: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    active: bool = True  # ReLU6 at the end
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Random weights (ours): He's normal initialization keeps the size of the maps in all
        # depths.
        keys: dict[str, Any] = (
            {"feature_group_count": self.channels, "conv_general_dilated": depthwise}
            if self.depthwise
            else {}
        )
        x = nn.Conv(
            self.channels,
            (self.kernel,) * 2,
            (self.stride,) * 2,
            "SAME",
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
            **keys,
        )(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=EPSILON, dtype="float32", name="norm")(x)
        return (nn.relu6(x) if self.active else x).astype(jnp.dtype(self.dtype))


class Block(nn.Module):
    """x [B,H,W,c] -> [B,H/stride,W/stride,channels] in `dtype`.

    A 1x1 convolution (if it expands), a depthwise one, a 1x1 one, and the shortcut.
    """

    kernel: int
    stride: int
    expansion: int
    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, y = self.expansion * x.shape[-1], x
        if self.expansion > 1:
            y = ConvNorm(width, dtype=self.dtype, name="expand")(y)
        y = ConvNorm(
            width, self.kernel, self.stride, depthwise=True, dtype=self.dtype, name="depthwise"
        )(y)
        y = ConvNorm(self.channels, active=False, dtype=self.dtype, name="project")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class Network(nn.Module):
    """image [B,H,W,3] float -> maps in `dtype`.

    They are [B,H/4,W/4,24], [B,H/8,W/8,40], [B,H/16,W/16,112] and [B,H/32,W/32,320]; sides that 2
    does not divide are rounded up. The caller scales the image as it wants it; the published
    weights were trained on [-1, 1]. 2,958,848 parameters, and 39,456 means and variances of batch
    norms; without the last convolution and the classifier, which are `Head`.
    remat: keep only the blocks' outputs for the backward pass, and compute what is inside them
      again.
    Raises InputError if it is no RGB image.
    """

    dtype: Any = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        if image.ndim != 4 or image.shape[-1] != 3:
            raise InputError(
                f"EfficientNet wants images [B,H,W,3], got {list(image.shape)}: change its input"
            )
        block = nn.remat(Block) if self.remat else Block
        x = ConvNorm(STEM, 3, 2, dtype=self.dtype, name="stem")(image.astype(jnp.dtype(self.dtype)))
        maps = []
        for i, (depth, kernel, stride, expansion, channels) in enumerate(GROUPS):
            for j in range(depth):
                x = block(
                    kernel,
                    1 if j else stride,
                    expansion,
                    channels,
                    self.dtype,
                    name=f"group{i}_block{j}",
                )(x)
            if i in MAPS:
                maps.append(x)
        return tuple(maps)


class Head(nn.Module):
    """The last map [B,h,w,320] of `Network` -> dict of features, float32.

    "1280" [B,1280]: the means over the positions after the last convolution; "logits" [B,1000]:
    ImageNet's classes. 1,693,160 parameters, and 2,560 means and variances of the batch norm.
    Published weights expect the central square of 7/8 of the shorter side, resized to 224x224
    (timm; TensorFlow's evaluation).
    """

    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        x = ConvNorm(HEAD, dtype=self.dtype, name="last")(x.astype(jnp.dtype(self.dtype)))
        pooled = jnp.mean(x.astype(jnp.float32), (1, 2))
        return {"1280": pooled, "logits": nn.Dense(CLASSES, name="dense")(pooled)}
