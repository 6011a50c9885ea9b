"""EfficientNet-lite0, whose trained weights are small and free: features in the place of FID's."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn import efficientnet, frozen

PRETRAINED = {"network": "efficientnet_lite0"}
SIDE = 224  # of the images it was trained on


class Features(nn.Module):
    """image uint8 [B,H,W,3] -> pooled [B,320]: the means over the pixels of the last map.

    Its input is [B,224,224,3] in [-1, 1].
    """

    resize = f"bilinear at pixel centres, antialiased, to {SIDE}x{SIDE}"

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the features."""
        scaled = image.astype(jnp.float32) / 127.5 - 1
        resized = jax.image.resize(scaled, (len(image), SIDE, SIDE, 3), "bilinear")
        network = frozen.inside(self, efficientnet.Network(parent=None), (32, 32, 3))
        return {"pooled": jnp.mean(network(resized)[-1], (1, 2))}
