"""Colours averaged down to 8x8: features without a network, as `metrics.pixels` has them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.metrics import pixels

PRETRAINED: dict[str, str] = {}  # nothing is learned


class Features(nn.Module):
    """image uint8 [B,H,W,3] -> pooled [B,192] in [0, 1], fewer of images with a side below 8.

    They are those of `metrics.pixels.features`, in float32.
    """

    resize = f"averaged by area to at most {pixels.FRECHET_SIDE}x{pixels.FRECHET_SIDE}"

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the features."""
        rows, columns = (
            np.float32(pixels.averaging(side, pixels.FRECHET_SIDE)) for side in image.shape[1:3]
        )
        colours = image.astype(jnp.float32) / 255
        exact = jax.lax.Precision.HIGHEST
        small = jnp.einsum("ih,bhwc,jw->bijc", rows, colours, columns, precision=exact)
        return {"pooled": small.reshape(len(image), -1)}
