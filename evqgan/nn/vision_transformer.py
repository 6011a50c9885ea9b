"""The vision transformer (Dosovitskiy et al., 2021) as CLIP and DINOv2 have it."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn.attention import Activation, Block
from evqgan.nn.bicubic import torch_weights
from evqgan.nn.layers import scan_layers


class VisionTransformer(nn.Module):
    """image [B,H,W,3] -> its class token [B,width] after all layers and the last norm, float32.

    H and W are the same multiple of `patch`. The sizes are those of ViT-L/14.
    """

    grid: int  # the learned positions are of grid x grid patches, and of the class token
    epsilon: float  # of the layer norms
    activation: Activation  # as in `Block`
    patch: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    patch_bias: bool = True
    norm_before: bool = False  # whether a layer norm comes before the layers
    layer_scale: bool = False  # as in `Block`

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        size, normal = (self.patch, self.patch), nn.initializers.normal(0.02)
        patches = nn.Conv(self.width, size, size, "VALID", use_bias=self.patch_bias, name="patches")
        x: Any = patches(image)
        grid, x = x.shape[1], x.reshape(len(x), -1, self.width)
        of_image = self.param("class_embedding", normal, (self.width,))
        of_image = jnp.broadcast_to(of_image[None, None], (len(x), 1, self.width))
        positions = self.param("positions", normal, (1 + self.grid**2, self.width))
        x = jnp.concatenate([of_image, x], axis=1) + resized(positions, grid)[None]
        if self.norm_before:
            x = nn.LayerNorm(self.epsilon, name="norm_before")(x)
        block = Block(
            self.heads,
            epsilon=self.epsilon,
            activation=self.activation,
            layer_scale=self.layer_scale,
            name="blocks",
        )
        x, _ = scan_layers(lambda block, x, _: (block(x)[0], None), block, x, self.layers)
        return nn.LayerNorm(self.epsilon, name="norm_after")(x[:, 0])


def normalized(image: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Return colours [B,H,W,3] from 0 to 255 as float32, as (x / 255 - mean) / std."""
    low, wide = (jnp.array(x, jnp.float32).reshape(1, 1, 1, 3) for x in (mean, std))
    return (image / 255 - low) / wide


def resized(positions: jax.Array, grid: int) -> jax.Array:
    """Return learned positions [1+n*n,c], the class token's first, for grid x grid patches.

    They are [1+grid*grid,c]. Where grid is not n, the patches' are resized as DINOv2 does
    (facebookresearch/dinov2, `vision_transformer.py`): by PyTorch's bicubic filter, at places that
    are computed as if the grid were larger by 0.1.
    """
    first, x = positions[:1], positions[1:]
    known = round(len(x) ** 0.5)
    if grid == known:
        return positions
    weights = torch_weights(known, grid, (grid + 0.1) / known)
    x = jnp.einsum("ai,bj,ijc->abc", weights, weights, x.reshape(known, known, -1))
    return jnp.concatenate([first, x.reshape(grid * grid, -1)])
