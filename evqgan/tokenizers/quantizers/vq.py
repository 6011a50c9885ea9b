"""The paper's vector quantizer: the nearest code of a codebook that is a parameter."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import Positive
from evqgan.tokenizers.quantizers.codebooks import (
    codebook_statistics,
    l2_normalize,
    nearest,
    soft_codes,
    straight_through,
    uniform_init,
)


class Quantizer(nn.Module):
    """Vector quantizer of VQGAN (Esser et al., 2021, Eq. 4), as the paper takes it over (Sec. 3.1).

    L_VQ = |sg(z) - z_q|^2 + commitment * |z - sg(z_q)|^2, means over elements.
    codes: V, the number of codes.
    width: c, the length of a code's vector.
    l2_normalize: z and codes have length 1 (ViT-VQGAN, Sec. 3.2; with a small `width` these are its
      factorized codes).
    """

    codes: Positive = 1024  # paper, Sec. 4.1
    width: Positive = 256  # VQGAN
    commitment: float = 0.25  # VQ-VAE, VQGAN
    l2_normalize: bool = False
    depth = 1
    soft_targets = True

    def setup(self) -> None:
        self.table = self.param("codebook", self.initial, (1, self.codes, self.width))

    def initial(self, rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return the codebook [1,V,c] float32 before training."""
        # Of normalized codes only the direction matters, and a step of Adam turns a short vector
        # further. So they begin normal (enhancing-transformers), and not within +-1/V.
        return jax.random.normal(rng, shape) if self.l2_normalize else uniform_init(rng, shape)

    def codebook(self) -> jax.Array:
        """Return the codes as they are compared with z, [1,V,c] float32."""
        return self.normalized(self.table)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the vectors [B,h,w,c] of ids [B,h,w,1]."""
        return self.codebook()[0][ids[..., 0]]

    def normalized(self, x: jax.Array) -> jax.Array:
        """Return x [...,c] as distances see it."""
        return l2_normalize(x) if self.l2_normalize else x

    def loss(self, codebook_loss: jax.Array, commitment_loss: jax.Array) -> jax.Array:
        """Return the sum of both terms of L_VQ, weighted."""
        return self.commitment * commitment_loss + codebook_loss

    def soft_codes(
        self, z: jax.Array, temperature: float, rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return ids, and the probabilities of all codes, see `codebooks.soft_codes`."""
        return soft_codes(z, self.codebook(), 1, temperature, rng, self.normalized)

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`."""
        z, book = self.normalized(z.astype(jnp.float32)), self.codebook()[0]
        fixed = jax.lax.stop_gradient(z)
        ids = nearest(fixed.reshape(-1, self.width), jax.lax.stop_gradient(book))  # [N]
        z_q = book[ids].reshape(z.shape)
        codebook_loss = jnp.mean(jnp.square(fixed - z_q))
        commitment_loss = jnp.mean(jnp.square(z - jax.lax.stop_gradient(z_q)))
        usage, perplexity = codebook_statistics(jax.nn.one_hot(ids, self.codes).sum(axis=0)[None])
        aux = {
            "quantizer_loss": self.loss(codebook_loss, commitment_loss),
            "codebook_loss": codebook_loss,
            "commitment_loss": commitment_loss,
            "usage": usage,
            "perplexity": perplexity,
        }
        return straight_through(z_q, z), ids.reshape(*z.shape[:-1], 1), aux
