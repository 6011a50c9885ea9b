"""Projected GAN's critic (Sauer et al., 2021), the paper's choice.

It judges mixtures of a frozen network's features.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive
from evqgan.losses.augment import POLICY, Augmentation, augment
from evqgan.nn import efficientnet, frozen
from evqgan.nn.norms import BatchNorm
from evqgan.nn.spectral import SpectralConv, torch_bias, torch_kernel

PRETRAINED = {"backbone": "efficientnet_lite0"}
# Channels by resolution; projected-gan.
WIDTHS = {8: 512, 16: 256, 32: 128, 64: 64, 128: 64, 256: 32}
END = 8  # resolution of a head's last map; projected-gan
LEAST = 224  # smaller images are enlarged to this; projected-gan


def init_projections(key: jax.Array, cout: int, expand: bool, proj_type: int) -> dict:
    """Return random 1x1 convolutions, which are never trained.

    They are {"ccm0": {"kernel" [1,1,c,c'], "bias" [c']}, ...} as float32.

    "ccm{i}" mix the channels of map i, "csm{i}" what comes of it and the deeper maps. Arguments as
    of `Critic`. Source: projected-gan, and PyTorch's initialization of convolutions.
    """
    widths = [cout * 2**i if expand else cout for i in range(4)]
    shapes = (
        {f"ccm{i}": (1, 1, c, widths[i]) for i, c in enumerate(efficientnet.CHANNELS)}
        if proj_type > 0
        else {}
    )
    if proj_type > 1:
        # The last one does not narrow its map: it has the highest resolution and few channels
        # already.
        shapes |= {
            f"csm{i}": (1, 1, c, c // 2 if expand and i else c) for i, c in enumerate(widths)
        }
    projections = {}
    for name, shape in shapes.items():
        key, of_kernel, of_bias = jax.random.split(key, 3)
        projections[name] = {
            "kernel": torch_kernel(of_kernel, shape),
            "bias": torch_bias(shape[2])(of_bias, shape[3:]),
        }
    return projections


def mix(
    projections: dict, maps: Sequence[jax.Array], proj_type: int, dtype: Any
) -> list[jax.Array]:
    """Return maps of the backbone mixed, as many maps in `dtype`.

    proj_type: 0 as they are, 1 channels mixed, 2 scales too (doubled sides).
    Differs from the original, in order alone: a 1x1 convolution commutes with the interpolation and
    is done before it.
    """

    def conv(name: str, x: jax.Array) -> jax.Array:
        kernel, bias = (projections[name][key].astype(dtype) for key in ("kernel", "bias"))
        return x @ kernel[0, 0] + bias.reshape(1, 1, 1, -1)

    if proj_type == 0:
        return list(maps)
    maps = [conv(f"ccm{i}", x.astype(dtype)) for i, x in enumerate(maps)]
    if proj_type == 1:
        return maps
    for i in reversed(range(len(maps))):
        x = maps[i]
        if i + 1 < len(maps):
            # A side that 2 does not divide was rounded up on the way to the deeper map.
            x = x + maps[i + 1][:, : x.shape[1], : x.shape[2]]
        maps[i] = doubled(doubled(conv(f"csm{i}", x), 1), 2)
    return maps


def doubled(x: jax.Array, axis: int) -> jax.Array:
    """Return x with twice as many entries along `axis`, by linear interpolation.

    First and last entry stay (PyTorch: `align_corners=True`). Entries 2k and 2k+1 lie between the
    neighbours of k, so shifts are enough.
    """
    n = x.shape[axis]
    k = jnp.arange(n, dtype=jnp.float32).reshape([n if i == axis else 1 for i in range(x.ndim)])
    # Parts of the neighbour; 0 where there is none.
    before, after = k / (2 * n - 1), (n - 1 - k) / (2 * n - 1)
    y = x.astype(jnp.float32)
    even = (1 - before) * y + before * jnp.roll(y, 1, axis)
    odd = (1 - after) * y + after * jnp.roll(y, -1, axis)
    shape = (*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return jnp.stack([even, odd], axis + 1).reshape(shape).astype(x.dtype)


class Down(nn.Module):
    """x [B,H,W,c] -> [B,H/2,W/2,channels] in `dtype`; separable and patch as in the critic."""

    channels: int
    separable: bool
    patch: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def conv(name: str, x: jax.Array, channels: int, size: int, **keys: Any) -> jax.Array:
            return SpectralConv(channels, size, dtype=self.dtype, name=name, **keys)(x, train)

        def norm(name: str, x: jax.Array) -> jax.Array:
            return nn.leaky_relu(BatchNorm(name=name)(x, train), 0.2)

        if self.separable:
            x = conv("depthwise", x, x.shape[-1], 3, padding=1, depthwise=True, use_bias=False)
            x = norm("norm", conv("pointwise", x, self.channels, 1, use_bias=False))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        else:
            x = norm("norm", conv("conv", x, self.channels, 4, stride=2, padding=1))
        if self.patch:
            x = norm("norm2", conv("conv2", x, self.channels, 1, use_bias=False))
        return x


class Head(nn.Module):
    """x [B,h,w,c], label [B] int32 -> logits [B,h',w'] float32.

    `Down`s to each of `widths`, then one convolution.
    classes: 0, or the number of classes of a projection critic (Miyato and Koyama, 2018).
    """

    widths: tuple[int, ...]
    separable: bool
    patch: bool
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None, train: bool) -> jax.Array:
        for i, width in enumerate(self.widths):
            x = Down(width, self.separable, self.patch, self.dtype, name=f"down{i}")(x, train)
        channels = 64 if self.classes else 1  # 64 and 128: projected-gan
        conv = SpectralConv(channels, 4, use_bias=False, dtype=self.dtype, name="out")
        x = conv(x, train).astype(jnp.float32)
        if not self.classes:
            return x[..., 0]
        embedding = nn.Embed(
            self.classes, 128, embedding_init=nn.initializers.normal(1.0), name="embedding"
        )(label)
        weight = nn.Dense(
            channels, kernel_init=torch_kernel, bias_init=torch_bias(128), name="weight"
        )(embedding)
        return jnp.einsum("bhwc,bc->bhw", x, nn.leaky_relu(weight, 0.2)) / math.sqrt(channels)


class Critic(nn.Module):
    """image [B,H,W,3] in [-1, 1], label [B] int32 -> logits [B,n] float32 of all heads.

    A frozen EfficientNet-lite0, random projections, and a head on each of the first maps.
    cout: channels of the projections, more in deeper maps if `expand`.
    proj_type: 0: no projections, 1: across channels, 2: and across scales.
    num_discs: the number of maps that have a head.
    cond: the heads see the label; else it is not used.
    classes: how many labels there are; with `cond` alone.
    interp224: resize to 224x224 first; None: if a side is below that.
    im_res: a head has the depth for images of so many pixels; other images give maps of logits of
      other sizes.
    separable: lighter heads, as in the original's StyleGAN2 configuration.
    patch: heads that see smaller patches.
    diffaug: see `augment.augment`; with train=True alone, from the rng "augment".
    remat: see `efficientnet.Network`.

    Collections: "params", "batch_stats" (of the heads, changed by train=True alone), "frozen"
    (`backbone` and `projections`, without a gradient). Raises InputError for an image too
    small for the heads, and where there is no label.

    Source: autonomousvision/projected-gan. Differs from it: augmentation in training alone; any
      sides (there they have to be multiples of 32); there `im_res` has no effect, it is always 256.
    """

    cout: Positive = 64
    expand: bool = True
    proj_type: Literal[0, 1, 2] = 2
    num_discs: Literal[1, 2, 3, 4] = 4
    cond: bool = False
    classes: int = 1000
    interp224: bool | None = None
    im_res: Literal[128, 256, 512, 1024] = 256
    separable: bool = False
    patch: bool = False
    diffaug: tuple[Augmentation, ...] = POLICY
    dtype: Any = "float32"
    remat: bool = False
    trainable = True

    def setup(self) -> None:
        def init_mixing() -> dict:
            return init_projections(self.make_rng("params"), self.cout, self.expand, self.proj_type)

        network = efficientnet.Network(self.dtype, self.remat, parent=None)
        self.backbone = frozen.inside(self, network, (32, 32, 3), "backbone")
        self.projections = self.variable("frozen", "projections", init_mixing)
        how = self.separable, self.patch, self.label_classes, self.dtype
        self.head = [Head(widths, *how) for widths in self.widths()]

    @property
    def label_classes(self) -> int:
        """The number of classes of the labels that the heads see, 0 if they see none."""
        return self.classes if self.cond else 0

    def widths(self) -> list[tuple[int, ...]]:
        """Return the channels of each head's `Down`s."""
        scale = 2 if self.proj_type == 2 else 1  # mixing across scales doubles the maps
        sizes = [
            16 if self.patch else self.im_res * scale // (4 * 2**i) for i in range(self.num_discs)
        ]
        return [
            tuple(WIDTHS[size // 2**k] for k in range(1, (size // END).bit_length()))
            for size in sizes
        ]

    def features(self, image: jax.Array) -> tuple[Sequence[jax.Array], list[jax.Array]]:
        """Return the four maps of the backbone of image [B,H,W,3], and the mixed ones.

        The latter are in `dtype`.
        """
        resized = min(image.shape[1:3]) < LEAST if self.interp224 is None else self.interp224
        if resized:
            shape = (len(image), LEAST, LEAST, 3)
            image = jax.image.resize(image, shape, "bilinear", antialias=False)
        maps = self.backbone(image)
        projections = jax.lax.stop_gradient(self.projections.value)
        return maps, mix(projections, maps, self.proj_type, jnp.dtype(self.dtype))

    def __call__(
        self, image: jax.Array, label: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Return the logits."""
        if self.cond and label is None:
            raise InputError(
                "the critic has cond=True, but there are no labels: "
                "use data with classes or cond=False"
            )
        if train and self.diffaug:
            image = augment(self.make_rng("augment"), image, self.diffaug)
        _, maps = self.features(image)
        logits = []
        for head, x in zip(self.head, maps, strict=False):
            if min(x.shape[1:3]) >> len(head.widths) < 4:
                raise InputError(
                    f"the critic's heads want larger images than {list(image.shape)}: "
                    "use interp224=None or a larger config.dataset.size"
                )
            logits.append(head(x, label, train).reshape(len(image), -1))
        return jnp.concatenate(logits, axis=1)
