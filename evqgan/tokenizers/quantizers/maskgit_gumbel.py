"""The Gumbel-softmax quantizer of MaskGIT's code.

google-research/maskgit, nets/vqgan_tokenizer.py, GumbelVQ.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0
from evqgan.tokenizers.quantizers import gumbel


class Quantizer(gumbel.Quantizer):
    """Gumbel-softmax quantizer by distances, and soft.

    In training ids are the likeliest codes without its noise.
    """

    final_temperature: Above0 = 0.6  # MaskGIT, as all
    kl_weight: float = 0.0
    logits: Literal["dense", "distance"] = "distance"
    hard: bool = False

    def setup(self) -> None:
        super().setup()
        if self.hard:
            raise InputError(
                "maskgit_gumbel needs hard = False: "
                "a hard code that is passed on is the one of the ids"
            )

    def chosen(self, logits: jax.Array, noisy: jax.Array, train: bool) -> jax.Array:
        """Return ids [B,h,w] int32 by logits [B,h,w,V], which are `noisy` with noise added."""
        return jnp.argmax(logits if train else noisy, axis=-1).astype(jnp.int32)
