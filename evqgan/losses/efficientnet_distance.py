"""A perceptual distance by EfficientNet-lite0, whose trained weights are small and free.

LPIPS without its learned weights (Zhang et al., 2018, whose uncalibrated networks these are), with
another network.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.losses.lpips import compare
from evqgan.nn import efficientnet, frozen

PRETRAINED = {"network": "efficientnet_lite0"}


class Distance(nn.Module):
    """a, b [B,H,W,3] float32 in [-1, 1] -> [B] float32: 0 for equal images, larger if less alike.

    It is the mean over the four maps of EfficientNet-lite0, and over their positions, of the
    squared difference of the vectors there, each scaled to length 1; 4 at most. The images are as
    large as they come. The weights are in the collection "frozen" and get no gradient. The network
    computes in `dtype`, the comparison in float32. remat: see `efficientnet.Network`.

    Source: Zhang et al. (2018), Eq. 1, with all w_l = 1.
    Differs from the source: EfficientNet-lite0 in the place of VGG16, and the mean over the maps in
    the place of their sum, so that the weight of this term can be that of LPIPS.
    """

    dtype: Any = "float32"
    remat: bool = False

    def setup(self) -> None:
        network = efficientnet.Network(self.dtype, self.remat, parent=None)
        self.network = frozen.inside(self, network, (32, 32, 3))

    def maps(self, a: jax.Array, b: jax.Array) -> list[jax.Array]:
        """Return the squared differences of each map, float32 [B,H/4,W/4], ..., [B,H/32,W/32]."""
        pairs = zip(self.network(a), self.network(b), strict=True)
        return [compare(x, y, jnp.ones((1, 1, x.shape[-1], 1))) for x, y in pairs]

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Return the distances."""
        means = [jnp.mean(x, (1, 2)) for x in self.maps(a, b)]
        return sum(means, jnp.zeros((), jnp.float32)) / len(means)
