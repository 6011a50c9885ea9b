"""InceptionV3 as FID uses it: the network of 2015 in TensorFlow.

Ported by pytorch-fid and torch-fidelity. The names of blocks and branches are TensorFlow's and
torchvision's. Always float32, at full precision: FID compares small differences. `prepare_tf1` and
`prepare_torch` are two ways to the same network, and their features differ: say which one a number
was measured with.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError

SIZE = 299  # of the image it takes
CLASSES = 1008  # of the weights of 2015; later ones have 1000
# Of Mixed_6d, whose first branch is TensorFlow's mixed_6/conv: the channels that sFID compares;
# guided-diffusion's evaluator.
SPATIAL = 7
EXACT = jax.lax.Precision.HIGHEST


def resize_tf1(image: jax.Array, size: int = SIZE) -> jax.Array:
    """Return image [B,H,W,c] as [B,size,size,c] float32, bilinear as in TensorFlow 1.

    Pixel i lies at i * H / size, not at pixel centres, so the image moves by half a pixel; nothing
    is antialiased. Source: torch-fidelity.
    """
    return _bilinear(
        image, [np.arange(size, dtype=np.float32) * np.float32(n / size) for n in image.shape[1:3]]
    )


def resize_torch(image: jax.Array, size: int = SIZE) -> jax.Array:
    """Return image [B,H,W,c] as [B,size,size,c] float32, bilinear at pixel centres.

    Nothing is antialiased. Source: pytorch-fid, which calls PyTorch's interpolate with
    align_corners=False.
    """
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    return _bilinear(
        image,
        [np.maximum(centres * np.float32(n / size) - np.float32(0.5), 0) for n in image.shape[1:3]],
    )


def _bilinear(image: jax.Array, positions: Sequence[np.ndarray]) -> jax.Array:
    """Return image [B,H,W,c] at the rows positions[0] and columns positions[1], float32.

    The last pixel continues.
    """
    image = image.astype(jnp.float32)
    for axis in (2, 1):  # columns first, as TensorFlow does
        low = np.floor(positions[axis - 1]).astype(np.int32)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        part = (positions[axis - 1] - low).reshape((1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1))
        first = jnp.take(image, low, axis)
        image = first + (jnp.take(image, high, axis) - first) * part
    return image


def prepare_tf1(image: jax.Array) -> jax.Array:
    """Return image uint8 [B,H,W,3] for `Network`: `resize_tf1`, then (x - 128) / 128.

    The convention of TensorFlow's first FID and of torch-fidelity: [B,299,299,3] float32 in [-1,
    1).
    Raises InputError if the image is not uint8.
    """
    return (resize_tf1(_checked(image)) - 128) / 128


def prepare_torch(image: jax.Array) -> jax.Array:
    """Return image uint8 [B,H,W,3] for `Network`: x / 255, `resize_torch`, then 2 x - 1.

    The convention of pytorch-fid: [B,299,299,3] float32 in [-1, 1]. Raises InputError if the image
    is not uint8.
    """
    return 2 * resize_torch(_checked(image).astype(jnp.float32) / 255) - 1


def _checked(image: jax.Array) -> jax.Array:
    if image.dtype != jnp.uint8 or image.ndim != 4 or image.shape[-1] != 3:
        raise InputError(
            f"expected images [B,H,W,3] uint8, got {list(image.shape)} {image.dtype}: "
            "round them first"
        )
    return image


def average(x: jax.Array) -> jax.Array:
    """Return the means of 3x3 windows of x [B,H,W,c], at the border of the pixels there are.

    Differs from torchvision, as the ports for FID do: it counts the zeros beside the image too.
    """
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def maximum(x: jax.Array) -> jax.Array:
    """Return the maxima of 3x3 windows of x [B,H,W,c].

    The last block takes these instead of means, as the network of 2015.
    """
    return nn.max_pool(x, (3, 3), padding="SAME")


def halve(x: jax.Array) -> jax.Array:
    """Return x [B,H,W,c] as [B,(H-1)//2,(W-1)//2,c]: the maxima of every second 3x3 window."""
    return nn.max_pool(x, (3, 3), (2, 2))


class Conv(NamedTuple):
    """A convolution without bias, batch norm and ReLU; halving ones see only whole windows."""

    name: str
    channels: int
    size: tuple[int, int] = (1, 1)
    halves: bool = False


def _a(pool: int) -> tuple:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3)),
        ),
        (average, Conv("branch_pool", pool)),
    )


def _c(c: int) -> tuple:
    double = [(1, 1), (7, 1), (1, 7), (7, 1), (1, 7)]
    channels = [c, c, c, c, 192]
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", c), Conv("branch7x7_2", c, (1, 7)), Conv("branch7x7_3", 192, (7, 1))),
        tuple(Conv(f"branch7x7dbl_{i + 1}", channels[i], double[i]) for i in range(5)),
        (average, Conv("branch_pool", 192)),
    )


def _e(pool: Callable) -> tuple:
    def both(name: str) -> tuple[Conv, Conv]:  # two convolutions of the same input, side by side
        return Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))

    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), both("branch3x3_2")),
        (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)), both("branch3x3dbl_3")),
        (pool, Conv("branch_pool", 192)),
    )


# Szegedy et al. 2016, Table 1, in the numbers of TensorFlow's and torchvision's code. A block is
# branches side by side, a branch is steps in a row, a tuple among them is convolutions side by
# side.
STEM = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), halves=True),
    Conv("Conv2d_2a_3x3", 32, (3, 3)),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3)),
)
UNPADDED = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")  # of the convolutions that do not halve
BLOCKS = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": (
        (Conv("branch3x3", 384, (3, 3), halves=True),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3), halves=True),
        ),
        (halve,),
    ),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), halves=True)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, (3, 3), halves=True),
        ),
        (halve,),
    ),
    "Mixed_7b": _e(average),
    "Mixed_7c": _e(maximum),
}


class ConvNorm(nn.Module):
    """x [B,H,W,c] -> [B,h,w,channels] float32, as `Conv` says."""

    conv: Conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        unpadded = self.conv.halves or self.conv.name in UNPADDED
        strides = (2, 2) if self.conv.halves else (1, 1)
        conv = nn.Conv(
            self.conv.channels,
            self.conv.size,
            strides,
            "VALID" if unpadded else "SAME",
            use_bias=False,
            precision=EXACT,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )
        # epsilon: TensorFlow's slim
        norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")
        return nn.relu(norm(conv(x)))


class Mixed(nn.Module):
    """x [B,H,W,c] -> the outputs of the branches, concatenated along the channels."""

    branches: tuple

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def run(step: Any, x: jax.Array) -> jax.Array:
            if isinstance(step, Conv):
                return ConvNorm(step, name=step.name)(x)
            return step(x) if callable(step) else jnp.concatenate([run(one, x) for one in step], -1)

        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = run(step, y)
            outputs.append(y)
        return jnp.concatenate(outputs, -1)


class Network(nn.Module):
    """image [B,299,299,3] float32 as `prepare_tf1` or `prepare_torch` makes it -> dict of features.

    "64", "192", "768" [B,c]: means over the pixels, after the first and second pooling and after
    Mixed_6e; "2048": those of the last map, what FID compares; "spatial" [B,2023]: the first
    channels of Mixed_6d, pixel by pixel, what sFID compares; "logits" [B,classes] and
    "logits_unbiased", without the bias of the last layer, what the Inception Score takes. All are
    float32. 23,850,960 parameters. Raises InputError for images under 75x75 pixels.
    """

    classes: int = CLASSES

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        if min(image.shape[1:3]) < 75:
            raise InputError(
                f"InceptionV3 wants at least 75x75 pixels, got {list(image.shape)}: "
                "resize them first"
            )
        features, x = {}, image.astype(jnp.float32)
        for conv in STEM:
            x = ConvNorm(conv, name=conv.name)(x)
            if conv.channels in (64, 192):
                x = halve(x)
                features[str(conv.channels)] = jnp.mean(x, (1, 2))
        for name, branches in BLOCKS.items():
            x = Mixed(branches, name=name)(x)
            if name == "Mixed_6d":
                features["spatial"] = x[..., :SPATIAL].reshape(len(x), -1)
            if name == "Mixed_6e":
                features["768"] = jnp.mean(x, (1, 2))
        pooled = jnp.mean(x, (1, 2))
        unbiased = nn.Dense(self.classes, use_bias=False, precision=EXACT, name="fc")(pooled)
        bias = self.param("fc_bias", nn.initializers.zeros, (self.classes,))
        logits = unbiased + bias.reshape(1, -1)
        return {**features, "2048": pooled, "logits": logits, "logits_unbiased": unbiased}
