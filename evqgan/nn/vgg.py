"""VGG16 without its classifier (Simonyan and Zisserman, 2015): frozen features for LPIPS.

As torchvision has it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError

CHANNELS = (64, 128, 256, 512, 512)  # of the five stages; paper, Table 1, column D
DEPTHS = (2, 2, 3, 3, 3)  # their convolutions


class Stage(nn.Module):
    """x [B,H,W,c] -> [B,H,W,channels] in `dtype`: `depth` convolutions 3x3 with ReLUs.

    pool: halve H and W first.
    """

    depth: int
    channels: int
    pool: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.pool:
            x = nn.max_pool(x, (2, 2), (2, 2))
        for i in range(self.depth):
            # Random weights (ours): He's normal initialization keeps the size of the maps in all
            # depths.
            conv = nn.Conv(
                self.channels,
                (3, 3),
                dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(),
                name=f"conv{i + 1}",
            )
            x = nn.relu(conv(x))
        return x


class Network(nn.Module):
    """image [B,H,W,3] float -> the maps relu1_2, 2_2, 3_3, 4_3, 5_3, each in `dtype`.

    The first is [B,H,W,64], the last [B,H/16,W/16,512]. The caller scales the image as the weights
    want it (`evqgan.losses.lpips` does for LPIPS). 14,714,688 parameters.
    remat: keep only these maps for the backward pass, and compute what is between them again: with
      bfloat16 a third less memory for one more forward pass.
    Raises InputError if the image is smaller than 16x16: the last map would be empty.
    """

    dtype: Any = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        if min(image.shape[1:3]) < 16:
            raise InputError(
                f"VGG16 wants images of at least 16x16 pixels, got {list(image.shape)}: "
                "use larger ones"
            )
        maps, x = [], image.astype(jnp.dtype(self.dtype))
        for i, (depth, channels) in enumerate(zip(DEPTHS, CHANNELS, strict=True)):
            stage = nn.remat(Stage) if self.remat else Stage
            x = stage(depth, channels, i > 0, self.dtype, name=f"stage{i + 1}")(x)
            maps.append(x)
        return tuple(maps)
