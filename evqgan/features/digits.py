"""A small classifier of digits, trained by `convert.train_digits`; its weights are shipped."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.metrics.pixels import GREY
from evqgan.nn import digits, frozen

PRETRAINED = {"network": "digits"}
# Of the shipped file, which numbers by it are of.
SHA256 = "7fcf4ee34f24a9c938f70646b474c178872ed7f350416cfc36f07c3105708794"


def prepare(image: jax.Array) -> jax.Array:
    """Return the input [B,16,16,1] float32 in [0, 1] of images uint8 [B,H,W,3]."""
    grey = jnp.einsum("bhwc,c->bhw", image.astype(jnp.float32) / 255, jnp.array(GREY))
    return jax.image.resize(grey, (len(image), digits.SIDE, digits.SIDE), "bilinear")[..., None]


class Features(nn.Module):
    """image uint8 [B,H,W,3] -> pooled [B,48], its last hidden layer, and logits [B,10]."""

    resize = f"grey, bilinear at pixel centres, antialiased, to {digits.SIDE}x{digits.SIDE}"

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the features."""
        x = prepare(image)
        made = frozen.inside(self, digits.Network(parent=None), x.shape[1:])(x)
        return {"pooled": made["48"], "logits": made["logits"]}
