"""CLIP's embeddings of images, by ViT-L/14@336: those of CMMD (Jayasumana et al., 2024)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn import clip, frozen

PRETRAINED = {"network": "clip"}


class Features(nn.Module):
    """image uint8 [B,H,W,3] -> pooled [B,768]: its embedding, of length 1.

    Source: google-research/cmmd, which embeds and compares them so.
    """

    resize = "centre square, then Pillow's bicubic, antialiased, 8 bits, to 336x336"

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the features."""
        side = clip.Network().side
        network = frozen.inside(self, clip.Network(parent=None), (side, side, 3))
        x = network(clip.prepare(image, side))
        return {"pooled": x / jnp.linalg.norm(x, axis=-1, keepdims=True)}
