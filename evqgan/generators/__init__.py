"""Generators: networks that draw the ids of a token grid. Each module here is one generator.

To add one, write a module with the names of `Generator`; a config then says `generator.name = "<module>"`, and the
other keys of config.generator, config.loss and config.sample are arguments of its Model, `loss` and `sample`.
`tests/test_contracts.py` tests every module in this folder.
"""

from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax


class Traits(NamedTuple):
    """What sets a generator apart from others; a module declares them as TRAITS.

    told: which of "depth" (D), "codebook_width" (c) and "factor" (image side / grid side) its Model takes beside codes
      and latent. Without "depth", the D codes of a position lie side by side in a row of the grid, so that every
      generator works with every tokenizer.
    codebook: whether loss, evaluate and sample take the tokenizer's codebook [K,V,c] by that keyword.
    soft_targets: whether loss takes `soft`, the probabilities of all codes [B,h,w,D,V] (RQ-VAE, Sec. 3.2.3).
    fills: the tokens that sample can generate: "any", or the "suffix" that begins at some token and ends at the last.
    """

    told: tuple[str, ...] = ()
    codebook: bool = False
    soft_targets: bool = False
    fills: Literal["any", "suffix"] = "any"


@runtime_checkable
class Generator(Protocol):
    """What a module in this folder has.

    ids: int32 [B,h,w,D], D = 1 without "depth" in TRAITS.told. label: int32 [B], ignored by unconditional models.
    """

    TRAITS: Traits
    Model: type[nn.Module]  # a constructor of codes, latent = (h, w), dtype, what TRAITS.told, and config.generator

    def init(self, model: nn.Module, rng: jax.Array, label: jax.Array) -> dict:
        """Return the parameters of `model`."""

    def loss(self, model: nn.Module, params: dict, ids, label, rng: jax.Array, **keys: Any) -> tuple[jax.Array, dict]:
        """Return the training loss of a batch, and metrics {name: scalar}. keys: config.loss."""

    def evaluate(self, model: nn.Module, params: dict, ids, label, rng: jax.Array) -> dict[str, jax.Array]:
        """Return {"cross_entropy@part": [B,2], ...}: per image the sum over tokens, and their number."""

    def sample(self, model: nn.Module, params: dict, ids, mask, label, keys, **settings: Any) -> jax.Array:
        """Return ids that are new where mask [B,h,w] is True. keys: one random key per image. settings: config.sample.

        Settings are keyword arguments with defaults. One more is `trace`: the ids after each step, [S,B,h,w,D], with V
        where there is none yet.
        """
