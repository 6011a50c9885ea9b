"""Quantizers: vectors <-> ids. Each module here with a class `Quantizer` is one.

To add a quantizer, write a module with a linen class `Quantizer` of the form below; a config then
says `tokenizer.quantizer.name = "<module>"`, and the section's other keys are fields of the class,
all with defaults. A value in a config is checked by the annotation of its field (`core.kinds`).
`fsq` is the shortest complete quantizer to copy; a variant of `vq` is a subclass of its Quantizer.
`tests/test_contracts.py` tests every quantizer in this folder by its defaults, and
configs/digits_quantizers.py compares vq, ema, fsq and lfq. The variants `:tiny` shrink the fields
that say how many codes there are: `codes` and `width`, `levels`, or `bits`. A quantizer that calls
them otherwise needs a line in `configs.common.resize` to be smaller there.
Tests run with jax_numpy_rank_promotion="raise": arrays of different rank are combined only after
`x[None]` or the like.

vq, ema, residual, gumbel, fsq and lfq are quantizers as papers describe them; revived is vq with
our revival of unused codes. vqgan, rqvae, vitvqgan, maskgit and maskgit_gumbel reproduce what the
code of a compared system does beyond its paper. The other modules are helpers: codebooks (what
several quantizers share), revival (of unused codes) and old_form (configs of old workdirs).
"""

from typing import Protocol

import jax


class Quantizer(Protocol):
    """z [B,h,w,c] -> the vectors of discrete codes, and their ids."""

    codes: int  # V, the number of codes
    width: int  # c, the length of a code's vector; the tokenizer projects features to it
    depth: int  # D, the number of codes at each position; 1 unless the quantizer is residual
    # Whether it is a SoftQuantizer: a generator can learn from its probabilities of all codes.
    soft_targets: bool

    def __call__(
        self, z: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q [B,h,w,c] float32, ids [B,h,w,D] int32, and aux {name: scalar}.

        z_q has the values of the codes' vectors and a gradient with respect to z, such as the
        straight-through estimator (`codebooks.straight_through`).
        aux["quantizer_loss"] is L_VQ and is added to the training loss; aux["usage"] and
        aux["perplexity"], those of the batch, are logged. With `train` the call may draw random
        numbers from the rng `codebook`, and may update variables of the collection `codebook`
        (moving averages, not parameters) where that collection is mutable. Sums over z are sums
        over the global batch, as under jit arrays are global, whatever their sharding.
        """

    def codebook(self) -> jax.Array:
        """Return the codes' vectors [K,V,c] float32: K = 1 table for all depths, or K = D."""

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
