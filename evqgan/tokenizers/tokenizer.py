"""The tokenizer: image [B,H,W,3] <-> ids [B,h,w,D] (paper, Sec. 3.1)."""

from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

# The package, and not `Encoder` and `Decoder` of it: a module of this folder that has a name
# `Encoder` counts as one with an encoder (`build.having`), and this one has none.
from evqgan import tokenizers
from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive
from evqgan.tokenizers import quantizers
from evqgan.tokenizers.quantizers import old_form

Pixels = Literal["signed", "unit"]


class Tokenizer(nn.Module):
    """Encoder, quantizer, decoder; between the first two a linear layer (VQGAN's quant_conv).

    Images are [B,H,W,3] float in [-1, 1] with H and W multiples of `factor`; anything else raises
    InputError.
    patch: squares of patch x patch vectors are concatenated and quantized as one vector, patch^2
      times as wide (RQ-VAE's code, whose feature map is larger than the token grid). 1: none are.
    pixels: what encoder and decoder see, "signed" [-1, 1] or "unit" [0, 1] (MaskGIT, ViT-VQGAN).
    """

    encoder: tokenizers.Encoder
    quantizer: quantizers.Quantizer
    decoder: tokenizers.Decoder
    patch: int = 1
    pixels: Pixels = "signed"

    def setup(self) -> None:
        if self.quantizer.width % self.patch**2:
            raise InputError(
                f"config.tokenizer.quantizer.width = {self.quantizer.width} is no multiple of "
                f"patch^2 = {self.patch**2}"
            )
        if self.encoder.factor != self.decoder.factor:
            raise InputError(
                f"expected an encoder and a decoder of one factor, got {self.encoder.factor} and "
                f"{self.decoder.factor}: change the stages (depths) or levels (multipliers) of one "
                "of them, or a patch"
            )
        # This product decides the ids: in full float32, or they would depend on the kind of device.
        self.to_codes = nn.Dense(self.quantizer.width // self.patch**2, precision="highest")

    @property
    def factor(self) -> int:
        """The side of the image divided by that of the token grid, f."""
        return self.encoder.factor * self.patch

    def latents(self, image: jax.Array) -> jax.Array:
        """Return what is quantized, [B,h,w,c] float32, of image [B,H,W,3]."""
        self._check(image)
        z = self.to_codes(
            self.encoder((image + 1) / 2 if self.pixels == "unit" else image).astype(jnp.float32)
        )
        b, h, w, _ = z.shape
        z = z.reshape(b, h // self.patch, self.patch, w // self.patch, self.patch, -1).swapaxes(
            2, 3
        )
        return z.reshape(b, h // self.patch, w // self.patch, self.quantizer.width)

    def encode(
        self, image: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return z_q [B,h,w,c] float32, ids [B,h,w,D] int32, and aux of image [B,H,W,3].

        aux: {name: scalar}, see `quantizers.Quantizer`.
        """
        return self.quantizer(self.latents(image), train)

    def soft_codes(
        self, image: jax.Array, temperature: float, rng: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return ids [B,h,w,D] drawn at `temperature`, and soft targets [B,h,w,D,V] float32.

        Soft targets are the probabilities of all codes (RQ-VAE, Sec. 3.2.3), from which the
        RQ-Transformer learns. Raises InputError if the quantizer gives none. image: [B,H,W,3].
        """
        if not self.quantizer.soft_targets:
            raise InputError(
                "config.tokenizer.soft needs a quantizer such as 'vq' or 'residual', "
                "of which codes have distances"
            )
        quantizer = cast(quantizers.SoftQuantizer, self.quantizer)
        return quantizer.soft_codes(self.latents(image), temperature, rng)

    def codebook(self) -> jax.Array:
        """Return the codes' vectors [K,V,c] float32: one table, or one for each depth."""
        return self.quantizer.codebook()

    def _check(self, image: jax.Array) -> None:
        f = self.factor
        if image.ndim != 4 or image.shape[3] != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
            got = f"{image.dtype} [{','.join(map(str, image.shape))}]"
            raise InputError(
                f"expected images as float [B,H,W,3] in [-1, 1], got {got}: scale or reshape them"
            )
        if image.shape[1] % f or image.shape[2] % f or not all(image.shape):
            height, width = image.shape[1:3]
            raise InputError(
                f"expected image sides that are multiples of {f}, got {width}x{height} "
                "(width x height): crop or resize it"
            )

    def decode(self, z_q: jax.Array) -> jax.Array:
        """Return the image [B,H,W,3] float32, not clipped, of z_q [B,h,w,c]."""
        b, h, w, _ = z_q.shape
        z_q = z_q.reshape(b, h, w, self.patch, self.patch, -1).swapaxes(2, 3)
        image = self.decoder(z_q.reshape(b, h * self.patch, w * self.patch, -1))
        return 2 * image - 1 if self.pixels == "unit" else image

    def embed(self, ids: jax.Array) -> jax.Array:
        """Return the z_q [B,h,w,c] float32 of ids [B,h,w,D] int32, bit for bit that of `encode`."""
        return self.quantizer.embed(ids)

    def __call__(
        self, image: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return the reconstruction [B,H,W,3] float32, not clipped, ids and aux, see `encode`."""
        z_q, ids, aux = self.encode(image, train)
        return self.decode(z_q), ids, aux


def make(config: Any, dtype: str = "float32") -> Tokenizer:
    """Return the Tokenizer of `config`: encoder, decoder and quantizer by module name.

    make({"encoder": {"name": "swin", "depths": (2, 2)}, "decoder": {...},
          "quantizer": {"name": "vq"}}, "bfloat16")
    """

    return build.call(assemble, config, "config.tokenizer", dtype=dtype)


def assemble(
    encoder: dict,
    quantizer: dict,
    decoder: dict,
    patch: Positive = 1,
    pixels: Pixels = "signed",
    *,
    dtype: str,
) -> Tokenizer:
    """Return the Tokenizer of the keys of config.tokenizer; `dtype` is config.dtype.

    encoder: its module in evqgan/tokenizers and the module's arguments.
    quantizer: its module in evqgan/tokenizers/quantizers and the module's arguments.
    decoder: as `encoder`, with the same `factor`, the side of the image divided by that of the
      features.
    patch: squares of patch x patch features become one token (RQ-VAE's code).
    pixels: what the encoder sees: "signed", values in [-1, 1], or "unit", in [0, 1].
    """
    coders = [
        build.build("tokenizers", entry, keys, f"config.tokenizer.{entry.lower()}", dtype=dtype)
        for entry, keys in (("Encoder", encoder), ("Decoder", decoder))
    ]
    keys, where = old_form.renamed(quantizer), "config.tokenizer.quantizer"
    built = build.build("tokenizers.quantizers", "Quantizer", keys, where)
    return Tokenizer(coders[0], built, coders[1], patch, pixels)


def dtype_of(config: Any) -> str:
    """Return the dtype in which the tokenizer of a stage 2's config computes.

    It is config.tokenizer.dtype, which may differ from the generator's (paper, Table 7). Workdirs
    older than that key lack it; there it is config.dtype.
    """
    return config.tokenizer.get("dtype") or config.dtype


def of_generator(config: Any) -> Tokenizer:
    """Return the Tokenizer of a stage 2's resolved config."""
    return make(config.tokenizer.model, dtype_of(config))
