"""The vector quantizer with a codebook by moving average."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import Range
from evqgan.tokenizers.quantizers import vq
from evqgan.tokenizers.quantizers.codebooks import (
    after_update,
    by_table,
    moving_average,
    uniform_init,
)
from evqgan.tokenizers.quantizers.revival import ReviveBy, dead_and_seeds


class Averages:
    """A codebook that is the moving average of the vectors its codes are chosen for.

    VQ-VAE, appendix A.1. It lives in variables `codes`, `total` [K,V,c] and `usage` [K,V] of a
    module's collection `codebook`. `usage` is how often a code is chosen, in units of the average
    over codes, so that no threshold depends on batch size and V.
    """

    # Whether after a revival all vectors are the means of the new averages, so that a revived code
    # is its seed but for the smoothing; else it is its seed exactly.
    smooths_seeds = False

    def __init__(
        self,
        owner: nn.Module,
        shape: tuple[int, int, int],
        decay: float,
        revive: float,
        revive_by: ReviveBy = "chance",
    ) -> None:
        """Make the variables of `owner`, in its setup.

        shape: [K,V,c].
        decay: of the averages.
        revive: a code whose usage is below becomes a vector of the batch; 0 = never. With it, usage
          starts so low that no first batch can lift it above a threshold: the first batch seeds all
          codes.
        revive_by: how these vectors are drawn, see `revival.ReviveBy`.
        """
        self.owner, self.decay, self.revive, self.revive_by = owner, decay, revive, revive_by
        self.table = owner.variable(
            "codebook", "codes", lambda: uniform_init(owner.make_rng("params"), shape)
        )
        self.total = owner.variable("codebook", "total", lambda: self.table.value)
        self.usage = owner.variable("codebook", "usage", jnp.full, shape[:2], self.start(shape[1]))

    @property
    def value(self) -> jax.Array:
        """The codes' vectors [K,V,c] float32."""
        return self.table.value

    def start(self, codes: int) -> float:
        """Return the usage that every code begins with. codes: their number, V."""
        return -float(codes) if self.revive else 1.0

    def weight(self, codes: int, vectors: int) -> float:
        """Return what a vector adds to the usage of its code. codes: V; vectors: in the batch."""
        return codes / vectors

    def update(self, x: jax.Array, hits: jax.Array) -> jax.Array:
        """Take in a batch and return the number of revived codes.

        x: the vectors [D,N,c] of D depths; D is K, or any number for a table that all depths share.
        hits: the codes that they chose, one-hot [D,N,V].
        """
        x, hits = by_table(x, hits, self.value.shape)
        weight = self.weight(hits.shape[2], x.shape[1])
        usage = moving_average(self.usage.value, hits.sum(axis=1), self.decay, weight)
        sums = jnp.einsum("knv,knc->kvc", hits, x, precision="highest")
        total = moving_average(self.total.value, sums, self.decay, weight)
        table, revived = means(total, usage), jnp.zeros((), jnp.float32)
        if self.revive:
            before = self.table.value
            quantized = (lambda: hits @ before) if self.revive_by == "error" else None
            dead, usage, seeds = dead_and_seeds(usage, self.revive, x, self.owner, quantized)
            revived, where = dead.sum().astype(jnp.float32), dead[..., None]
            total = jnp.where(where, seeds, total)
            table = means(total, usage) if self.smooths_seeds else jnp.where(where, seeds, table)
        self.usage.value, self.total.value, self.table.value = usage, total, table
        return revived


def means(total: jax.Array, usage: jax.Array) -> jax.Array:
    """Return total [K,V,c] / usage [K,V], of which none is zero."""
    everything = usage.sum(axis=-1, keepdims=True)
    # 1e-5: VQGAN, Sonnet
    smoothed = (usage + 1e-5) / (everything + usage.shape[1] * 1e-5) * everything
    return total / smoothed[..., None]


class Quantizer(vq.Quantizer):
    """Vector quantizer with a codebook by moving average (VQ-VAE, appendix A.1).

    The codebook's term of L_VQ is left out.
    decay: of the averages.
    revive: a code chosen less often than this share of the average becomes a vector of the batch,
      and its statistics start again; so does every code at the first step. 0 = never. Ours:
      RQ-VAE's restart of unused codes, with a threshold that does not depend on batch size and V.
    revive_by: how that vector is drawn: by "chance" alone, or by its squared "error", so that plain
      areas, which have a code already, get no others.
    """

    decay: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.99  # VQ-VAE, RQ-VAE
    revive: float = 0.0
    revive_by: ReviveBy = "chance"

    def setup(self) -> None:
        shape = 1, self.codes, self.width
        self.averages = Averages(self, shape, self.decay, self.revive, self.revive_by)

    def codebook(self) -> jax.Array:
        """Return the codes as they are compared with z, [1,V,c] float32."""
        return self.normalized(self.averages.value)

    def loss(self, codebook_loss: jax.Array, commitment_loss: jax.Array) -> jax.Array:
        """Return the commitment, weighted: no gradient moves the codes."""
        return self.commitment * commitment_loss

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`.

        aux["revived"]: how many codes were revived.
        """
        return after_update(self, self.averages, z, super().__call__(z, train), train)
