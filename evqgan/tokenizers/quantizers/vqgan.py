"""The vector quantizer as VQGAN's code has it.

CompVis/taming-transformers, modules/vqvae/quantize.py.
"""

import jax

from evqgan.tokenizers.quantizers import vq


class Quantizer(vq.Quantizer):
    """Vector quantizer of VQGAN's code with `legacy`.

    L_VQ = commitment * |sg(z) - z_q|^2 + |z - sg(z_q)|^2: `commitment` weighs the codebook's term,
    not the encoder's; its paper has the weight where `vq` has it.
    """

    def loss(self, codebook_loss: jax.Array, commitment_loss: jax.Array) -> jax.Array:
        """Return the sum of both terms of L_VQ, weighted."""
        return commitment_loss + self.commitment * codebook_loss
