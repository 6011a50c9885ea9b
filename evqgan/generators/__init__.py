"""Generators: networks that draw the ids of a token grid. Each module here with TRAITS is one.

To add a generator, write a module with the names of `Generator`; to copy one, take `maskgit`, which
is complete in one file. A config then says `generator.name = "<module>"`. The other keys of
config.generator are fields of its Model, those of config.loss arguments of its `loss`, those of
config.sample fields of its Settings. `models.TokenGenerator` calls them. `mask_predict`,
`block_decoding` and `autoregressive` are loops for its `sample`, `masked_shares` has one for
`evaluate`, and `guidance` what a class-conditional one needs to be guided.

`tests/test_contracts.py` and `tests/test_generators.py` test every generator in this folder; the
latter needs a line in its table SMALL. Fields of Settings that no other generator has are added to
`inference.keywords.SamplerKeywords`. The variants `:tiny` set the keys layers, width and heads of
config.generator, and those of `configs.common.TINY_GENERATORS`.
Tests run with jax_numpy_rank_promotion="raise": arrays of different rank are combined only after
`x[None]` or the like.
"""

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax

from evqgan.core.errors import InputError

# Whether a sampling loop also returns its tokens after each step, see `kept`. A function in the
# place of True is also called with them, traced, as they are made; not by `autoregressive`, whose
# history is put together afterwards (`row_history`).
KeepHistory = bool | Callable[[jax.Array], None]


class Traits(NamedTuple):
    """What sets a generator apart from others; a module declares it as TRAITS."""

    # What its Model has to know of the tokenizer beside `codes` and `latent`; each name is then a
    # field of the Model: "depth" (D), "codebook_width" (c), "factor" (image side / grid side).
    # Without "depth" the generator sees a grid [h,w*D] in which the D codes of a position lie side
    # by side in a row, so that every generator works with every tokenizer.
    needs: tuple[str, ...] = ()
    # Whether loss, evaluate and sample take the tokenizer's codebook [K,V,c] by that keyword.
    codebook: bool = False
    # Whether loss takes `soft_targets`: probabilities of all codes [B,h,w,D,V] (RQ-VAE, 3.2.3).
    soft_targets: bool = False
    # Which tokens `sample` can generate: any of them, or only all from some position to the last.
    fills: Literal["any", "suffix"] = "any"


class Request(NamedTuple):
    """A batch of images to generate; a part of each may be known."""

    ids: jax.Array  # int32 [B,h,w,D]; anything where mask is True
    mask: jax.Array  # bool [B,h,w], True where tokens are generated
    label: jax.Array | None  # int32 [B]; ignored by unconditional models
    keys: jax.Array  # random keys [B]; an image depends on its own key alone


class Decoded(NamedTuple):
    """What a sampling loop returns: ids, not images."""

    tokens: jax.Array  # int32: ids of the shape that the loop was given
    history: jax.Array | None  # the tokens after each step [S,...], V where unknown; None: not kept


@runtime_checkable
class Generator(Hashable, Protocol):
    """The names that the module of a generator defines.

    ids: int32 [B,h,w,D]; D is 1 unless TRAITS.needs names "depth".
    label: int32 [B], ignored by unconditional models.
    """

    TRAITS: Traits
    # The network, a linen module. Its fields are `codes` (V), `latent` (the grid, (h, w)), `dtype`,
    # those named in TRAITS.needs, and the keys of config.generator, which have defaults.
    Model: type[nn.Module]
    # A frozen dataclass with the keys of config.sample; every field has a default. If it has a
    # method check(model), this raises InputError for settings that `sample` refuses of the model.
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
        """Return {"name@part": [B,2], ...}: for each image a sum over tokens, and their number.

        Such as "cross_entropy@0.50" and "accuracy@0.50" of the half of the tokens that is masked.
        Evaluation divides the sums of all images, and averages all whose names begin with
        "cross_entropy".
        """

    def sample(
        self,
        model: nn.Module,
        params: dict,
        request: Request,
        settings: Any,
        *,
        keep_history: KeepHistory = False,
    ) -> Decoded:
        """Return the request's ids, new where its mask is True.

        keep_history: also return them after each step, [S,B,h,w,D]; see `KeepHistory`.
        """


def kept(tokens: jax.Array, keep_history: KeepHistory) -> jax.Array | None:
    """Return what a step of a sampling loop adds to its history: its tokens, or None.

    tokens: after the step. If `keep_history` is a function, it is called with them.
    """
    if callable(keep_history):
        keep_history(tokens)
    return tokens if keep_history else None


def check_heads(width: int, heads: int, name: str = "heads") -> None:
    """Raise InputError if the width cannot be split among the heads. name: the key's."""
    if width % heads:
        given = f"generator.width = {width}"
        raise InputError(f"{given} is no multiple of generator.{name} = {heads}")


def squeeze_depth(ids: jax.Array, name: str) -> jax.Array:
    """Return ids [B,h,w,1] as [B,h,w]; InputError if the generator `name` gets other depths."""
    if ids.shape[-1] != 1:
        raise InputError(f"the {name} generator needs a quantizer of depth 1, not {ids.shape[-1]}")
    return ids[..., 0]
