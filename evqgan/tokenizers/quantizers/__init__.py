"""Quantizers: vectors <-> ids. Each module here with a class `Quantizer` is one.

To add a quantizer, write a module with a linen class `Quantizer` of the form below; a config then
says `tokenizer.quantizer.name = "<module>"`, and the section's other keys are arguments of the
constructor, all with defaults. `fsq` is the shortest whole one; a variant of `vq` is a subclass of
its Quantizer. `tests/test_contracts.py` tests every quantizer in this folder by its defaults.
configs/digits_quantizers.py compares them. The variants `:tiny` shrink the keys that say how many
codes there are, `codes` and `width`, `levels` or `bits`; one that calls them otherwise gets a line
in `configs.common.resize`, if it is to be smaller there.

vq, ema, residual, gumbel, fsq and lfq are quantizers as papers have them, revived is vq with our
revival of unused codes. vqgan, rqvae, vitvqgan, maskgit and maskgit_gumbel are what the code of a
compared system does and its paper does not say. No quantizers are codebooks (what several share),
revival (of unused codes) and old_form (configs of old workdirs).
"""

from typing import Protocol

import jax


class Quantizer(Protocol):
    """z [B,h,w,c] -> the vectors of discrete codes, and their ids."""

    codes: int  # V
    width: int  # c
    depth: int  # D, codes of a position
    # Whether it is a SoftQuantizer, from whose probabilities of all codes a generator can learn.
    soft_targets: bool

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q [B,h,w,c] float32, ids [B,h,w,D] int32, and aux {name: scalar}.

        The gradient of z_q passes straight through to z, or to what is rounded.
        aux["quantizer_loss"] is added to the training loss; "usage" and "perplexity" of the batch
        are there to be looked at. With `train` it may draw from the rng `codebook`, and updates
        what is no parameter, in the collection `codebook` where that is mutable. Under jit these
        are sums over the global batch, whatever the sharding.
        """

    def codebook(self) -> jax.Array:
        """Return the codes' vectors [K,V,c] float32, one table for all depths or one for each."""

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the z_q [B,h,w,c] of ids [B,h,w,D], bit for bit as `__call__` gives it."""


class SoftQuantizer(Quantizer, Protocol):
    """A quantizer with `soft_targets`: its codes have distances to z, and so probabilities."""

    def soft_codes(
        self, z: jax.Array, temperature: float, rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return ids [B,h,w,D] drawn at `temperature`, and the probabilities [B,h,w,D,V] float32.

        See `codebooks.soft_codes`. rng: None takes the nearest codes.
        """
