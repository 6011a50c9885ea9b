"""Lookup-free quantization (Yu et al., 2024, MAGVIT-v2): each channel becomes its sign."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import Above0, Range
from evqgan.tokenizers.quantizers.codebooks import codebook_statistics, straight_through


class Quantizer(nn.Module):
    """LFQ (MAGVIT-v2, Sec. 3.1): z_q = sign(z), and bit i of the id is the sign of channel i.

    The codes are the corners of [-1, 1]^c.

    L = entropy * (E[H(q(z))] - H(E[q(z)])) + commitment * |z - sg(z_q)|^2

    q(z) are the probabilities of all codes e, softmax(-|z - e|^2 / temperature). The entropy term
    is low if each single choice is sure while over the batch all codes are equally frequent.
    bits: the number of channels c; V = 2^bits.
    entropy: the weight of the entropy term (MaskGIT, MAGVIT-v2).
    temperature: of q(z) in the entropy term (MaskGIT's); no code is drawn by it.
    commitment: the weight of the commitment term, |z - sg(z_q)|^2 (VQGAN).
    """

    # 18: MAGVIT-v2's, more than which fill memory with probabilities
    bits: Annotated[int, Range(1, 18)] = 10
    entropy: float = 0.1
    temperature: Above0 = 0.01
    commitment: float = 0.25
    depth = 1
    soft_targets = False

    @property
    def codes(self) -> int:
        """The number of codes, V."""
        return 2**self.bits

    @property
    def width(self) -> int:
        """The length of a code's vector, c."""
        return self.bits

    def codebook(self) -> jax.Array:
        """Return all codes, [1,V,c] float32."""
        return self.embed(jnp.arange(self.codes)[:, None])[None]

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the vectors [...,c] float32 of ids [...,1]: bit i is the sign of channel i."""
        return jnp.concatenate([2 * (ids >> i & 1) - 1 for i in range(self.bits)], axis=-1).astype(
            jnp.float32
        )

    def entropy_loss(self, z: jax.Array) -> jax.Array:
        """Return E[H(q(z))] - H(E[q(z)]) of z [B,h,w,c].

        The channels choose independently, channel i its upper level with probability sigmoid(4 z_i
        / temperature); so the entropy of a choice is the sum of theirs, and the mean of all V
        probabilities is a product of two halves' tables.
        """
        logits = 4 * z.reshape(-1, self.bits) / self.temperature
        up, log_up, log_down = (
            jax.nn.sigmoid(logits),
            jax.nn.log_sigmoid(logits),
            jax.nn.log_sigmoid(-logits),
        )
        of_each = -jnp.sum(up * log_up + (1 - up) * log_down, axis=-1)  # [N]
        tables = [joint(half) for half in jnp.split(up, [self.bits // 2], axis=-1)]
        mean = jnp.einsum("na,nb->ab", *tables, precision="highest") / up.shape[0]
        of_mean = -jnp.sum(mean * jnp.log(mean + 1e-5))  # 1e-5: MaskGIT
        return jnp.mean(of_each) - of_mean

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`."""
        z = z.astype(jnp.float32)
        bits = ((z[..., i, None] > 0).astype(jnp.int32) << i for i in range(self.bits))
        ids = sum(bits, jnp.zeros((), jnp.int32))
        z_q = self.embed(ids)
        entropy, commitment = self.entropy_loss(z), jnp.mean(jnp.square(z - z_q))
        usage, perplexity = codebook_statistics(
            jnp.bincount(ids.reshape(-1), length=self.codes)[None]
        )
        aux = {
            "quantizer_loss": self.entropy * entropy + self.commitment * commitment,
            "entropy_loss": entropy,
            "commitment_loss": commitment,
            "usage": usage,
            "perplexity": perplexity,
        }
        return straight_through(z_q, z), ids, aux


def joint(up: jax.Array) -> jax.Array:
    """Return the probabilities [N,2^k] of all patterns of k independent bits.

    up: [N,k], of bit i being 1.
    """
    probabilities = jnp.ones((up.shape[0], 1), up.dtype)
    for i in range(up.shape[1]):
        probabilities = jnp.concatenate(
            [probabilities * (1 - up[:, i : i + 1]), probabilities * up[:, i : i + 1]], axis=-1
        )
    return probabilities
