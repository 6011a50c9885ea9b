"""The tokenizer: image [B,H,W,3] <-> ids [B,h,w,D] (paper, Sec. 3.1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.tokenizers import quantizers


class Tokenizer(nn.Module):
    """Encoder, quantizer, decoder; between the first two a linear layer to the codes' width (VQGAN's quant_conv).

    Images are [B,H,W,3] float in [-1, 1] with H and W multiples of `factor`; anything else raises InputError.
    """

    encoder: Any
    quantizer: Any
    decoder: Any

    def setup(self):
        if self.encoder.factor != self.decoder.factor:
            raise InputError(
                f"expected an encoder and a decoder of one factor, got {self.encoder.factor} and "
                f"{self.decoder.factor}: give both the same number of stages (depths)"
            )
        self.to_codes = nn.Dense(self.quantizer.width)  # float32: it decides the ids

    @property
    def factor(self):
        """f: image side / token grid side."""
        return self.encoder.factor

    def encode(self, image, train=False):
        """image [B,H,W,3] -> z_q [B,h,w,c] float32, ids [B,h,w,D] int32, aux {name: scalar} (see `quantizers`)."""
        f = self.factor
        if image.ndim != 4 or image.shape[3] != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
            got = f"{image.dtype} [{','.join(map(str, image.shape))}]"
            raise InputError(f"expected images as float [B,H,W,3] in [-1, 1], got {got}: scale or reshape them")
        if image.shape[1] % f or image.shape[2] % f or not all(image.shape):
            height, width = image.shape[1:3]
            raise InputError(f"expected image sides that are multiples of {f}, got {width}x{height}: crop or resize it")
        return self.quantizer(self.to_codes(self.encoder(image).astype(jnp.float32)), train)

    def decode(self, z_q):
        """z_q [B,h,w,c] -> image [B,H,W,3] float32, not clipped."""
        return self.decoder(z_q)

    def embed(self, ids):
        """ids [B,h,w,D] int32 -> z_q [B,h,w,c] float32, the very values of `encode`."""
        return self.quantizer.embed(ids)

    def __call__(self, image, train=False):
        """image [B,H,W,3] -> reconstruction [B,H,W,3] float32, not clipped; ids; aux."""
        z_q, ids, aux = self.encode(image, train)
        return self.decode(z_q), ids, aux


def make(config, dtype="float32"):
    """The Tokenizer of `config`: encoder and decoder by module name; quantizer by kind, "vq" (the default) or "gumbel".

    make({"encoder": {"name": "swin", "depths": (2, 2, 6)}, "decoder": {...}, "quantizer": {"codes": 1024}}, "bfloat16")
    """

    def assemble(encoder, quantizer, decoder):
        coders = [
            build.build("tokenizers", entry, keys, f"config.tokenizer.{entry.lower()}", dtype=dtype)
            for entry, keys in (("Encoder", encoder), ("Decoder", decoder))
        ]
        kinds = {"vq": quantizers.VQ, "gumbel": quantizers.Gumbel}
        kind = quantizer.pop("kind", "vq")
        if kind not in kinds:
            raise InputError(f"config.tokenizer.quantizer has no kind {kind!r}: {build.nearest(kind, kinds)}")
        return Tokenizer(coders[0], build.call(kinds[kind], quantizer, "config.tokenizer.quantizer"), coders[1])

    return build.call(assemble, config, "config.tokenizer")
