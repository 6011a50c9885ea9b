"""Finite scalar quantization (Mentzer et al., 2024): each channel is rounded to a few levels."""

import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.kinds import NonEmpty, Range
from evqgan.tokenizers.quantizers.codebooks import codebook_statistics, straight_through


class Quantizer(nn.Module):
    """FSQ (Mentzer et al., 2024, Sec. 3.1 and its appendix A.1): a product of scalar levels.

    No codebook is learned and there is no loss; the codes are the points of a grid in [-1, 1]^c.
    levels: the number of levels L_i of each channel i. c = len(levels), and V is their product. An
      id is a number of mixed base whose lowest digit is the level of the first channel.
    """

    # its Table 1, for 2^10 codes
    levels: Annotated[tuple[Annotated[int, Range(2)], ...], NonEmpty(2)] = (8, 5, 5, 5)
    depth = 1
    soft_targets = False

    @property
    def codes(self) -> int:
        """The number of codes, V."""
        return math.prod(self.levels)

    @property
    def width(self) -> int:
        """The length of a code's vector, c."""
        return len(self.levels)

    def codebook(self) -> jax.Array:
        """Return all codes, [1,V,c] float32."""
        return self.embed(jnp.arange(self.codes)[:, None])[None]

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the vectors [...,c] float32 of ids [...,1]."""
        steps = [math.prod(self.levels[:i]) for i in range(self.width)]
        digits = [ids[..., 0] // step % n for step, n in zip(steps, self.levels, strict=True)]
        return jnp.stack(
            [(x - n // 2) / (n // 2) for x, n in zip(digits, self.levels, strict=True)], axis=-1
        )

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q, ids, aux of z [B,h,w,c], see `quantizers.Quantizer`.

        The gradient skips the rounding alone (straight-through); that of `bound` is computed.
        """
        z, bounded = z.astype(jnp.float32), []
        ids = jnp.zeros(z.shape[:-1], jnp.int32)
        for i, n in enumerate(self.levels):
            x = bound(z[..., i], n)
            ids = ids + (jnp.round(x).astype(jnp.int32) + n // 2) * math.prod(self.levels[:i])
            bounded.append(x / (n // 2))
        usage, perplexity = codebook_statistics(
            jnp.bincount(ids.reshape(-1), length=self.codes)[None]
        )
        aux = {"quantizer_loss": jnp.zeros(()), "usage": usage, "perplexity": perplexity}
        return (
            straight_through(self.embed(ids[..., None]), jnp.stack(bounded, axis=-1)),
            ids[..., None],
            aux,
        )


def bound(x: jax.Array, levels: int) -> jax.Array:
    """Return x squashed so that rounding it gives one of `levels` whole numbers.

    The smallest of them is -(levels // 2) (FSQ, appendix A.1).
    """
    half = (levels - 1) * (1 - 1e-3) / 2  # 1e-3: FSQ's code, so that both ends round inwards
    offset = 0.0 if levels % 2 else 0.5
    return jnp.tanh(x + math.tan(offset / half)) * half - offset
