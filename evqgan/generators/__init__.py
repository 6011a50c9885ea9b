"""Generators: networks that draw the ids of a token grid. Each module here with TRAITS is one.

To add one, write a module with the names of `Generator`; a config then says
`generator.name = "<module>"`. The other keys of config.generator are arguments of its Model, those
of config.loss of its `loss`, those of config.sample of its Settings.
`tests/test_contracts.py` and `tests/test_generators.py` test every generator in this folder; the
latter wants a line in its SMALL. Fields of Settings that no other generator has are entered in
`inference.keywords.SamplerKeywords`.
"""

from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax

from evqgan.core.errors import InputError


class Traits(NamedTuple):
    """What sets a generator apart from others; a module declares it as TRAITS."""

    # Arguments that its Model takes beside codes and latent: "depth" (D), "codebook_width" (c) and
    # "factor" (image side / grid side). Without "depth", the D codes of a position lie side by side
    # in a row of the grid, so that every generator works with every tokenizer.
    needs: tuple[str, ...] = ()
    # Whether loss, evaluate and sample take the tokenizer's codebook [K,V,c] by that keyword.
    codebook: bool = False
    # Whether loss takes `soft_targets`: probabilities of all codes [B,h,w,D,V] (RQ-VAE, 3.2.3).
    soft_targets: bool = False
    # The tokens that sample can generate: any, or only those from some position to the last.
    fills: Literal["any", "suffix"] = "any"


class Request(NamedTuple):
    """A batch of images to generate; a part of each may be known."""

    ids: jax.Array  # int32 [B,h,w,D]; anything where mask is True
    mask: jax.Array  # bool [B,h,w], True where tokens are generated
    label: jax.Array | None  # int32 [B]; ignored by unconditional models
    keys: jax.Array  # random keys [B]; an image depends on its own key alone


class Decoded(NamedTuple):
    """What a sampling loop made."""

    tokens: jax.Array  # int32: ids of the shape that the loop was given
    history: jax.Array | None  # tokens after each step [S,...], V where there is none yet; if kept


@runtime_checkable
class Generator(Protocol):
    """What a module in this folder has.

    ids: int32 [B,h,w,D]; D is 1 unless TRAITS.needs names "depth".
    label: int32 [B], ignored by unconditional models.
    """

    TRAITS: Traits
    # A constructor of codes, latent = (h, w), dtype, what TRAITS.needs, and the keys of
    # config.generator.
    Model: type[nn.Module]
    # A frozen dataclass with the keys of config.sample; every field has a default.
    Settings: type

    def init(self, model: nn.Module, rng: jax.Array, label: jax.Array) -> dict:
        """Return the parameters of an untrained `model`. label: int32 [1]."""

    def loss(
        self,
        model: nn.Module,
        params: dict,
        ids: jax.Array,
        label: jax.Array,
        rng: jax.Array,
        **keys: Any,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the training loss of a batch, and metrics {name: scalar}. keys: config.loss."""

    def evaluate(
        self, model: nn.Module, params: dict, ids: jax.Array, label: jax.Array, rng: jax.Array
    ) -> dict[str, jax.Array]:
        """Return {"cross_entropy@part": [B,2], ...}: an image's sum over tokens, their number."""

    def sample(
        self,
        model: nn.Module,
        params: dict,
        request: Request,
        settings: Any,
        *,
        keep_history: bool = False,
    ) -> Decoded:
        """Return the request's ids, new where its mask is True.

        keep_history: also return them after each step, [S,B,h,w,D].
        """


def squeeze_depth(ids: jax.Array, name: str) -> jax.Array:
    """Return ids [B,h,w,1] as [B,h,w]; InputError if the generator `name` gets other depths."""
    if ids.shape[-1] != 1:
        raise InputError(f"the {name} generator needs a quantizer of depth 1, not {ids.shape[-1]}")
    return ids[..., 0]
