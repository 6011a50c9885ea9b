"""Tables for the frozen networks: from the weight names of public PyTorch files to ours."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evqgan.convert import clip, dinov2, efficientnet
from evqgan.convert.efficientnet import conv_norm
from evqgan.convert.mapping import Row, Tree, Weights, layer
from evqgan.losses import lpips
from evqgan.nn import clip as encoder
from evqgan.nn import dinov2 as transformer
from evqgan.nn import efficientnet as lite
from evqgan.nn import inception, resnet, vgg

# How many steps a batch norm was trained for: newer files have them.
COUNTERS = r"(^|\.)num_batches_tracked$"


class Source(NamedTuple):
    """How a public file becomes a network.

    It is `mapping.to_ours([*table, *also], split(weights), like(), ignored)`.
    """

    table: list[Row]
    ignored: tuple[str, ...]  # regular expressions of names in the file that we have no use for
    like: Callable[[], Tree]  # returns our variables as jax.ShapeDtypeStruct
    also: Sequence[Row] = ()  # rows for names that only some public files of the network have
    split: Callable[[Weights], Weights] = dict  # takes apart what is one array in the file


def shapes(network: Any, side: int, channels: int = 3) -> Tree:
    """Return the variables of a network of maps [B,side,side,channels].

    They are jax.ShapeDtypeStructs.
    """
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))


def vgg_layers() -> Iterator[tuple[int, int, int]]:
    """Yield of every convolution of VGG16 its number in torchvision's `features`, and ours.

    Ours is (stage, convolution), both from 1.
    """
    number = 0
    for stage, depth in enumerate(vgg.DEPTHS):
        for conv in range(depth):
            yield number, stage + 1, conv + 1
            number += 2  # a ReLU follows
        number += 1  # a pooling follows


def inception_convs() -> Iterator[str]:
    """Yield the paths of all convolutions of InceptionV3."""
    yield from (conv.name for conv in inception.STEM)
    for block, branches in inception.BLOCKS.items():
        for step in (step for branch in branches for step in branch):
            convs = [step] if isinstance(step, inception.Conv) else [] if callable(step) else step
            yield from (f"{block}/{conv.name}" for conv in convs)


# torchvision: vgg16-397923af.pth
VGG16 = [
    row
    for number, stage, conv in vgg_layers()
    for row in layer(f"features.{number}", f"params/stage{stage}/conv{conv}", "conv")
]

# richzhang/PerceptualSimilarity: weights/v0.1/vgg.pth, and taming-transformers' copy of it
LPIPS_HEADS = [Row("lin{i}.model.1.weight", "params/head{i}/kernel", "conv")]

# pytorch-fid: pt_inception-2015-12-05-6726825d.pth
INCEPTION = [
    *(
        row
        for path in inception_convs()
        for name in [path.replace("/", ".")]
        for row in conv_norm(f"{name}.conv", f"{name}.bn", path)
    ),
    Row("fc.weight", "params/fc/kernel", "dense"),
    Row("fc.bias", "params/fc_bias"),
]

# torchvision: resnet50-*.pth, resnet101-*.pth
RESNET = [
    *conv_norm("conv1", "bn1", "stem"),
    *conv_norm("layer{s}.{i}.conv{j}", "layer{s}.{i}.bn{j}", "stage{s}/block{i}/part{j}"),
    *conv_norm(
        "layer{s}.{i}.downsample.0", "layer{s}.{i}.downsample.1", "stage{s}/block{i}/shortcut"
    ),
    *layer("fc", "params/head"),
]

NETWORKS = {
    "vgg16": Source(VGG16, (r"^classifier\.",), partial(shapes, vgg.Network(), 16)),
    "lpips": Source(LPIPS_HEADS, (), lambda: jax.eval_shape(lpips.init_heads, jax.random.key(0))),
    "efficientnet_lite0": Source(
        efficientnet.TABLE,
        efficientnet.IGNORED,
        partial(shapes, lite.Network(), 32),
        efficientnet.COUNTED_TABLE,
    ),
    "efficientnet_lite0_head": Source(
        efficientnet.HEAD,
        efficientnet.HEAD_IGNORED,
        partial(shapes, lite.Head(), 1, lite.CHANNELS[-1]),
        efficientnet.COUNTED_HEAD,
    ),
    # The head for training, AuxLogits, is in torchvision's own file and not in that of pytorch-fid.
    "inception": Source(
        INCEPTION, (r"^AuxLogits\.", COUNTERS), partial(shapes, inception.Network(), 75)
    ),
    "clip": Source(clip.TABLE, clip.IGNORED, partial(shapes, encoder.Network(), 336)),
    "dinov2": Source(
        dinov2.TABLE,
        dinov2.IGNORED,
        partial(shapes, transformer.Network(), transformer.SIDE),
        split=dinov2.split,
    ),
    **{
        name: Source(RESNET, (COUNTERS,), partial(shapes, resnet.Network(depths), 32))
        for name, depths in resnet.DEPTHS.items()
    },
}
