"""The residual quantizer of RQ-VAE: several codes a position, each of what the ones before left."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import PartialShare, Positive
from evqgan.tokenizers.quantizers.codebooks import (
    codebook_statistics,
    embed_sum,
    nearest,
    soft_codes,
    straight_through,
    updates_codebook,
)
from evqgan.tokenizers.quantizers.ema import Averages
from evqgan.tokenizers.quantizers.revival import Parameter


class Quantizer(nn.Module):
    """Residual quantizer (Lee et al., 2022, RQ-VAE, Eq. 3 and 4): z_q sums the codes of all depths.

    L = codebook's term + commitment * |z - sg(partial sum)|^2, means over elements and partial sums
    (its Eq. 6).
    width: c, the length of a code's vector.
    depth: D, the number of codes at a position.
    shared: whether all depths share one codebook, or have one each.
    decay: of a codebook by moving average, in whose L the codebook's term is left out; 0: the
      codebook is a parameter.
    revive: as in `ema`.
    """

    codes: Positive = 1024
    width: Positive = 256
    depth: Positive = 4  # RQ-VAE, Sec. 4.1
    shared: bool = True  # RQ-VAE, Sec. 3.1
    commitment: float = 0.25  # RQ-VAE
    decay: PartialShare = 0.99  # RQ-VAE
    revive: float = 0.0
    soft_targets = True

    def setup(self) -> None:
        shape = (1 if self.shared else self.depth, self.codes, self.width)  # [K,V,c]
        self.book = (
            Averages(self, shape, self.decay, self.revive)
            if self.decay
            else Parameter(self, shape, self.revive)
        )

    def codebook(self) -> jax.Array:
        """Return the codes in use, [K,V,c] float32; K = 1 if shared, else D."""
        return self.book.value

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the sums [B,h,w,c] of the codes of ids [B,h,w,D]."""
        return embed_sum(self.codebook(), ids)

    def soft_codes(
        self, z: jax.Array, temperature: float, rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return ids, and the probabilities of all codes, see `codebooks.soft_codes`."""
        return soft_codes(z, self.codebook(), self.depth, temperature, rng)

    def after_depth(self, x: jax.Array, hits: jax.Array) -> jax.Array | float:
        """Learn from one depth, and return how many codes were revived.

        x: the vectors [1,N,c].
        hits: the codes that they chose, one-hot [1,N,V].
        """
        return 0.0

    def after_batch(self, x: jax.Array, hits: jax.Array) -> jax.Array | float:
        """Learn from all depths, and return how many codes were revived.

        x: the vectors [D,N,c].
        hits: the codes that they chose, one-hot [D,N,V].
        """
        return self.book.update(x, hits)

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`.

        aux["revived"]: how many codes were revived.
        """
        z, update = z.astype(jnp.float32), updates_codebook(self, train)
        rest, z_q, chosen, inputs, hits = jax.lax.stop_gradient(z), jnp.zeros_like(z), [], [], []
        codebook_loss = commitment_loss = revived = jnp.zeros((), jnp.float32)
        for d in range(self.depth):
            codebook = self.codebook()
            book, x = codebook[d % len(codebook)], rest.reshape(-1, self.width)
            ids = nearest(x, jax.lax.stop_gradient(book))  # [N]
            code = book[ids].reshape(z.shape)
            z_q = z_q + code
            codebook_loss += jnp.mean(jnp.square(rest - code)) / self.depth
            commitment_loss += jnp.mean(jnp.square(z - jax.lax.stop_gradient(z_q))) / self.depth
            rest = rest - jax.lax.stop_gradient(code)
            inputs.append(x)
            chosen.append(ids)
            hits.append(jax.nn.one_hot(ids, self.codes))
            if update:
                revived += self.after_depth(x[None], hits[-1][None])
        all_hits = jnp.stack(hits)  # [D,N,V]
        usage, perplexity = codebook_statistics(all_hits.sum(axis=1))
        loss = self.commitment * commitment_loss + (0.0 if self.decay else codebook_loss)
        aux = {
            "quantizer_loss": loss,
            "codebook_loss": codebook_loss,
            "commitment_loss": commitment_loss,
            "usage": usage,
            "perplexity": perplexity,
        }
        if update:
            revived += self.after_batch(jnp.stack(inputs), all_hits)
        if train and (self.decay or self.revive):
            aux["revived"] = revived
        ids = jnp.stack(chosen, axis=-1).reshape(*z.shape[:-1], self.depth)
        return straight_through(z_q, z), ids, aux
