"""Tokenizers: image <-> ids. Modules here with an `Encoder` and a `Decoder` are coders.

`tokenizer.Tokenizer` is an encoder, a quantizer and a decoder in a row. To add a coder, write a
module with two linen classes of the forms below; a config then says
`tokenizer.encoder.name = "<module>"` and the same of `decoder`, and the section's other keys are
fields of the class. Quantizers are a package of their own, `quantizers`.
Tests run with jax_numpy_rank_promotion="raise": arrays of different rank are combined only after
`x[None]` or the like.
"""

from typing import Protocol

import jax


class Encoder(Protocol):
    """image [B,H,W,3], in the range of config.tokenizer.pixels -> features [B,h,w,c] of any c."""

    factor: int  # H / h

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the features."""


class Decoder(Protocol):
    """features [B,h,w,c] of any c -> image [B,H,W,3] float32, not clipped."""

    factor: int  # H / h
    # The path, in its params, of the kernel of its last layer, such as ("to_rgb", "kernel"): the
    # adaptive weight of the adversarial loss is taken there (VQGAN, Eq. 7).
    last_layer: tuple[str, ...]

    def __call__(self, features: jax.Array) -> jax.Array:
        """Return the image."""
