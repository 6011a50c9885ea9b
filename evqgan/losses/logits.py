"""The perceptual loss of MaskGIT's tokenizer: what a ResNet-50 says of two images, compared."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn import frozen, resnet

PRETRAINED = {"network": "resnet50"}


class Distance(nn.Module):
    """a, b [B,H,W,3] float32 in [-1, 1] -> mean squared differences [B] of a ResNet-50's outputs.

    of: "logits" (MaskBit's VQGAN+), or "map" (MaskGIT's published configuration: the last map,
      before the pooling). Both images are resized to 224x224 (bilinear, antialiased) and normalized
      with ImageNet's mean and standard deviation. The weights are in the collection "frozen" and
      get no gradient.

    Source: google-research/maskgit `losses.py`, its network in google-research/magvit;
    markweberdev/maskbit.
    Differs from MaskGIT: torchvision's ResNet-50 and its normalization; theirs is an own one that
    takes [0, 1] as it is.
    """

    of: Literal["logits", "map"] = "logits"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Return the distances."""
        network = frozen.inside(self, resnet.Network(dtype=self.dtype, parent=None), (32, 32, 3))

        def features(image: jax.Array) -> jax.Array:
            outputs = network(resnet.prepare(image))
            return outputs[self.of].astype(jnp.float32)

        x, y = features(a), features(b)
        return jnp.mean(jnp.square(x - y), tuple(range(1, x.ndim)))
