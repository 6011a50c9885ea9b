"""The residual quantizer of RQ-VAE's code.

kakaobrain/rq-vae-transformer, rqvae/models/rqvae/quantizations.py.
"""

import jax

from evqgan.core.errors import InputError
from evqgan.tokenizers.quantizers import residual
from evqgan.tokenizers.quantizers.ema import Averages


class Counts(Averages):
    """Moving averages of counts in a batch.

    They start at 0, and a code is revived below a count.
    """

    smooths_seeds = True

    def start(self, codes: int) -> float:
        """Return 0: no code was counted."""
        return 0.0

    def weight(self, codes: int, vectors: int) -> float:
        """Return 1: a vector is counted as one."""
        return 1.0


class Quantizer(residual.Quantizer):
    """Residual quantizer of RQ-VAE's code: averages are counts.

    A shared codebook moves after each depth: in training the next depth uses the codebook as the
    depth before left it; z_q is then not what `embed` gives.
    revive: a code with a lower average count than this is restarted.
    Differs from RQ-VAE's code: no noise on vectors if there are fewer than V.
    """

    revive: float = 1.0  # RQ-VAE's code, where it restarts

    def setup(self) -> None:
        if not self.decay:
            raise InputError(
                "the quantizer rqvae has a codebook by moving average, got decay = 0: "
                "RQ-VAE has 0.99"
            )
        shape = (1 if self.shared else self.depth, self.codes, self.width)  # [K,V,c]
        self.book = Counts(self, shape, self.decay, self.revive)

    def after_depth(self, x: jax.Array, hits: jax.Array) -> jax.Array | float:
        """Move a shared codebook by one depth."""
        return self.book.update(x, hits) if self.shared else 0.0

    def after_batch(self, x: jax.Array, hits: jax.Array) -> jax.Array | float:
        """Move codebooks of one depth each, of which all are known only now."""
        return 0.0 if self.shared else self.book.update(x, hits)
