"""DINOv2's features of images, by ViT-L/14: those of FD-DINOv2 (Stein et al., 2023)."""

import flax.linen as nn
import jax

from evqgan.nn import dinov2, frozen

PRETRAINED = {"network": "dinov2"}


class Features(nn.Module):
    """image uint8 [B,H,W,3] -> pooled [B,1024]: its class token after the last norm.

    Source: layer6ai-labs/dgm-eval, `dinov2.py`, without its option clean_resize.
    """

    resize = f"Pillow's bicubic, antialiased, 8 bits, to {dinov2.SIDE}x{dinov2.SIDE}"

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the features."""
        shape = (dinov2.SIDE, dinov2.SIDE, 3)
        network = frozen.inside(self, dinov2.Network(parent=None), shape)
        return {"pooled": network(dinov2.prepare(image))}
