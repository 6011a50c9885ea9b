"""DINOv2's features of images, by ViT-L/14: those of FD-DINOv2 (Stein et al., 2023)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn import dinov2

PRETRAINED = {"network": "dinov2"}


class Features(nn.Module):
    """image uint8 [B,H,W,3] -> pooled [B,1024]: its class token after the last norm.

    Source: layer6ai-labs/dgm-eval, `dinov2.py`, without its option clean_resize.
    """

    resize = f"Pillow's bicubic, antialiased, 8 bits, to {dinov2.SIDE}x{dinov2.SIDE}"

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the features."""

        def init() -> Any:
            shape = (1, dinov2.SIDE, dinov2.SIDE, 3)
            return dinov2.Network().init(self.make_rng("params"), jnp.zeros(shape))

        weights = self.variable("frozen", "network", init).value
        pooled: Any = dinov2.Network(parent=None).apply(weights, dinov2.prepare(image))
        return {"pooled": pooled}
