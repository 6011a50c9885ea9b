"""The vector quantizer as MaskGIT's code has it.

google-research/maskgit, nets/vqgan_tokenizer.py.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import Above0
from evqgan.tokenizers.quantizers import vq
from evqgan.tokenizers.quantizers.codebooks import entropy_loss, squared_distances

# The codes before training: the entropy loss divides distances by 0.01, so that shorter ones, such
# as VQGAN's, begin with choices that are hardly any.
FIRST = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class Quantizer(vq.Quantizer):
    """The paper's vector quantizer with MaskGIT's entropy loss of minus the squared distances.

    entropy: weight of `codebooks.entropy_loss`.
    entropy_temperature: by which that loss divides the distances.
    entropy_target: its choices: "softmax", or "argmax" with that softmax's gradient.
    """

    entropy: float = 0.1  # MaskGIT, as all three
    entropy_temperature: Above0 = 0.01
    entropy_target: Literal["softmax", "argmax"] = "softmax"

    def initial(self, rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return the codebook [1,V,c] float32 before training, within +-sqrt(3 / V)."""
        return FIRST(rng, shape)

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`."""
        z_q, ids, aux = super().__call__(z, train)
        if self.entropy:
            x = self.normalized(z.astype(jnp.float32)).reshape(-1, self.width)
            affinity = -squared_distances(x, self.codebook()[0])
            aux["entropy_loss"] = entropy_loss(
                affinity, self.entropy_temperature, self.entropy_target
            )
            aux["quantizer_loss"] += self.entropy * aux["entropy_loss"]
        return z_q, ids, aux
