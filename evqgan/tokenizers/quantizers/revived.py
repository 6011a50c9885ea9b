"""The paper's vector quantizer with revival of unused codes."""

import jax
import jax.numpy as jnp

from evqgan.tokenizers.quantizers import vq
from evqgan.tokenizers.quantizers.codebooks import learns
from evqgan.tokenizers.quantizers.revival import Parameter


class Quantizer(vq.Quantizer):
    """The paper's vector quantizer, of which unused codes are set to vectors of the batch, as those of `ema` are.

    revive: a code chosen less often than this share of the average is revived; all are at the first step. Ours.
    """

    revive: float = 0.1  # configs/common.py

    def setup(self):
        self.revival = Parameter(self, (1, self.codes, self.width), self.revive)
        self.table = self.revival.value

    def __call__(self, z: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`; aux["revived"]: how many codes were."""
        z_q, ids, aux = super().__call__(z, train)
        if train:
            aux["revived"] = jnp.zeros((), jnp.float32)
        if learns(self, train):
            x = jax.lax.stop_gradient(self.normalized(z.astype(jnp.float32)))
            hits = jax.nn.one_hot(ids.reshape(-1), self.codes)
            aux["revived"] = self.revival.update(x.reshape(1, -1, self.width), hits[None])
        return z_q, ids, aux
