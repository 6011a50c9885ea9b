"""The vector quantizer of the ViT-VQGAN port.

thuanz123/enhancing-transformers, modules/stage1/quantizations.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import Positive
from evqgan.tokenizers.quantizers.codebooks import (
    codebook_statistics,
    embed_sum,
    l2_normalize,
    nearest,
    soft_codes,
    straight_through,
)


class Quantizer(nn.Module):
    """Vector quantizer of the port: the gradient of z_q goes to z as if z had not been normalized.

    width: c, the length of a code's vector (ViT-VQGAN).
    depth: its num_quantizers. Depth d quantizes what d - 1 left over, normalized again; z_q is the
      sum of all codes, and L the mean over depths of |sg(x) - e|^2 + commitment * |x - sg(e)|^2,
      with x what is quantized and e its code.
    shared: one codebook for all depths, else one each.
    l2_normalize: its use_norm.
    detached_residual: its use_residual. No gradient of L reaches z, but that of x reaches the codes
      of depths before.
    """

    codes: Positive = 8192  # ViT-VQGAN
    width: Positive = 32
    depth: Positive = 1
    shared: bool = True
    commitment: float = 0.25
    l2_normalize: bool = True
    detached_residual: bool = False
    soft_targets = True

    def setup(self) -> None:
        shape = (1 if self.shared else self.depth, self.codes, self.width)  # [K,V,c]
        self.table = self.param("codebook", nn.initializers.normal(1.0), shape)

    def normalized(self, x: jax.Array) -> jax.Array:
        """Return x [...,c] as distances see it."""
        return l2_normalize(x) if self.l2_normalize else x

    def codebook(self) -> jax.Array:
        """Return the codes in use, [K,V,c] float32; K = 1 if shared, else D."""
        return self.normalized(self.table)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the sums [B,h,w,c] of the codes of ids [B,h,w,D]."""
        return embed_sum(self.codebook(), ids)

    def soft_codes(
        self, z: jax.Array, temperature: float, rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return ids, and the probabilities of all codes, see `codebooks.soft_codes`."""
        return soft_codes(z, self.codebook(), self.depth, temperature, rng, self.normalized)

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`."""
        z = z.astype(jnp.float32)
        rest = jax.lax.stop_gradient(z) if self.detached_residual else z
        z_q, chosen = jnp.zeros_like(z), []
        codebook_loss = commitment_loss = jnp.zeros((), jnp.float32)
        for d in range(self.depth):
            codebook, x = self.codebook(), self.normalized(rest)
            book = codebook[d % len(codebook)]
            fixed = jax.lax.stop_gradient(x)
            # [N]
            chosen.append(nearest(fixed.reshape(-1, self.width), jax.lax.stop_gradient(book)))
            code = book[chosen[-1]].reshape(z.shape)
            z_q = z_q + code
            codebook_loss += jnp.mean(jnp.square(fixed - code)) / self.depth
            commitment_loss += jnp.mean(jnp.square(x - jax.lax.stop_gradient(code))) / self.depth
            rest = rest - (code if self.detached_residual else jax.lax.stop_gradient(code))
        usage, perplexity = codebook_statistics(
            jax.nn.one_hot(jnp.stack(chosen), self.codes).sum(axis=1)
        )
        aux = {
            "quantizer_loss": self.commitment * commitment_loss + codebook_loss,
            "codebook_loss": codebook_loss,
            "commitment_loss": commitment_loss,
            "usage": usage,
            "perplexity": perplexity,
        }
        return (
            straight_through(z_q, z),
            jnp.stack(chosen, axis=-1).reshape(*z.shape[:-1], self.depth),
            aux,
        )
