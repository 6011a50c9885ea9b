"""ResNet with bottleneck blocks (He et al., 2016): frozen features and ImageNet logits.

As torchvision has it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# of ImageNet's pixels in [0,1]; torchvision
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224  # torchvision's networks were trained on 224x224
DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}  # paper, Table 1
EXPANSION = 4  # a block's output channels by those inside of it; paper, Table 1


def prepare(image: jax.Array, size: int = SIZE) -> jax.Array:
    """Return image [B,H,W,3] in [-1, 1] as torchvision's weights want it, [B,size,size,3] float32.

    The whole image is resized, bilinear, with a wider filter when it shrinks (antialias); no crop.
    """
    mean, std = (jnp.array(x, jnp.float32).reshape(1, 1, 1, 3) for x in (MEAN, STD))
    image = jax.image.resize(image.astype(jnp.float32), (len(image), size, size, 3), "bilinear")
    return ((image + 1) / 2 - mean) / std


class ConvNorm(nn.Module):
    """A convolution without bias, padded by half its kernel as in PyTorch, then batch norm.

    The norm has frozen statistics.
    """

    channels: int
    size: int
    stride: int = 1
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        pad = ((self.size // 2,) * 2,) * 2
        strides = (self.stride,) * 2
        x = nn.Conv(
            self.channels,
            (self.size,) * 2,
            strides,
            pad,
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=1e-5, dtype="float32", name="norm")(x)
        return x.astype(jnp.dtype(self.dtype))


class Block(nn.Module):
    """x [B,H,W,c] -> [B,H/stride,W/stride,4*channels] in `dtype`.

    A 1x1 convolution, a 3x3 one (with the stride), a 1x1 one, and the shortcut.
    Differs from the paper, as torchvision does: the stride is in the second convolution, not in the
    first.
    """

    channels: int
    width: int  # channels of the first two convolutions
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        out = self.channels * EXPANSION
        y = nn.relu(ConvNorm(self.width, 1, 1, self.dtype, name="part1")(x))
        y = nn.relu(ConvNorm(self.width, 3, self.stride, self.dtype, name="part2")(y))
        y = ConvNorm(out, 1, 1, self.dtype, name="part3")(y)
        if self.stride > 1 or x.shape[-1] != out:
            x = ConvNorm(out, 1, self.stride, self.dtype, name="shortcut")(x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """x [B,H,W,c] -> [B,H/stride,W/stride,4*channels] in `dtype`: `depth` blocks.

    The first one has the stride.
    """

    depth: int
    channels: int
    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.depth):
            x = Block(
                self.channels, self.width, 1 if i else self.stride, self.dtype, name=f"block{i}"
            )(x)
        return x


class Network(nn.Module):
    """image [B,H,W,3] float as `prepare` makes it -> dict of features.

    map: [B,H/32,W/32,2048] in `dtype`, the last one.
    pooled: [B,2048] float32, its mean over the pixels.
    logits: [B,classes] float32.
    `width_per_group` 128 makes torchvision's wide networks. Exact parameter counts: 25,557,032 for
    the depths of ResNet-50, 44,549,160 for ResNet-101.
    """

    depths: tuple[int, ...] = DEPTHS["resnet50"]
    width_per_group: int = 64
    classes: int = 1000
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        stem = ConvNorm(64, 7, 2, self.dtype, name="stem")
        x = nn.relu(stem(image.astype(jnp.dtype(self.dtype))))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for i, depth in enumerate(self.depths):
            channels = 64 * 2**i
            width = channels * self.width_per_group // 64
            stride = 1 if i == 0 else 2
            x = Stage(depth, channels, width, stride, self.dtype, name=f"stage{i + 1}")(x)
        pooled = jnp.mean(x.astype(jnp.float32), (1, 2))
        logits = nn.Dense(self.classes, dtype="float32", name="head")(pooled)
        return {"map": x, "pooled": pooled, "logits": logits}
