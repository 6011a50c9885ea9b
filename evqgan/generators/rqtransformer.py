"""RQ-Transformer: a transformer over positions, one over depths (Lee et al., CVPR 2022).

Body, once an image:       class | position 1 | ... | position N-1   each the sum of its D codes
Head, once a position:     what the body says of it | depth 1 | ... | depth D-1

Both are causal. The codes of a residual quantizer come depth by depth, so that the head reads
partial sums of their vectors: what is decoded of the position so far (RQ-VAE, Sec. 3.2). Code of
the original: kakaobrain/rq-vae-transformer. The network stands in `rqtransformer_network`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import PositiveShare
from evqgan.generators import Decoded, KeepHistory, Request, Traits
from evqgan.generators.autoregressive import (
    Autoregressive,
    NextDepth,
    NextPosition,
    autoregress,
    row_history,
)
from evqgan.generators.rqtransformer_network import Model, pair_of
from evqgan.nn.linear import in_dtype

__all__ = ["TRAITS", "Model", "Settings", "evaluate", "init", "loss", "pair_of", "sample"]

TRAITS = Traits(
    needs=("depth", "codebook_width"),
    codebook=True,
    soft_targets=True,
    fills="suffix",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keys of config.sample: those of `Autoregressive`, top_k and top_p also one a depth."""

    temperature: float = 1.0
    top_k: int | tuple[int, ...] = 0
    top_p: PositiveShare | tuple[PositiveShare, ...] = 1.0

    def __post_init__(self) -> None:
        build.check_fields(self, "config.sample")

    def check(self, model: Model) -> None:
        """Raise InputError for a list of another length than the model's depth."""
        self.at_depths(model.depth)

    def at_depths(self, number: int) -> list[Autoregressive]:
        """Return the settings of each of `number` depths; InputError if there are not so many."""
        both = [x if isinstance(x, tuple) else (x,) for x in (self.top_k, self.top_p)]
        tops = [x * number if len(x) == 1 else x for x in both]
        if any(len(top) != number for top in tops):
            expected = f"one number or {number}, one a depth"
            raise InputError(f"the sampler's top_k and top_p are {expected}, not {tops}")
        return [Autoregressive(self.temperature, k, p) for k, p in zip(*tops, strict=True)]


def init(model: Model, rng: jax.Array, label: jax.Array) -> dict:
    """Return the parameters of an untrained `model`. label: int32 [1]."""
    ids = jnp.zeros((1, *model.latent, model.depth), jnp.int32)
    codebook = jnp.zeros((1, model.codes, model.codebook_width), jnp.float32)
    return model.init(rng, ids, codebook, label)["params"]


def likelihood(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    codebook: jax.Array,
    soft_targets: jax.Array | None = None,
    train: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Return the negative log-likelihood and whether the likeliest code is right, each [D,B,h,w].

    One depth after the other, and logits are computed again in the backward pass: there is never
    more than [B,h,w,V] of them.
    """
    apply: Callable[..., Any] = functools.partial(
        model.apply, {"params": params}, rngs={"dropout": rng}
    )
    states = apply(ids, codebook, label, not train, method=Model.states)

    # The loop already keeps XLA from merging the recomputation.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def at_depth(inputs: tuple) -> tuple[jax.Array, jax.Array]:
        d, state, target = inputs
        logits = apply(state, d, method=lambda model, *inputs: model.classifier(*inputs))
        right = jnp.argmax(logits, axis=-1) == target
        if soft_targets is None:
            return optax.softmax_cross_entropy_with_integer_labels(logits, target), right
        probabilities = jax.lax.dynamic_index_in_dim(soft_targets, d, axis=-2, keepdims=False)
        return optax.softmax_cross_entropy(logits, probabilities), right

    each = jnp.arange(model.depth), jnp.moveaxis(states, -2, 0), jnp.moveaxis(ids, -1, 0)
    return jax.lax.map(at_depth, each)


def loss(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    *,
    codebook: jax.Array,
    soft_targets: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative log-likelihood of all codes (RQ-VAE, Sec. 3.2.1), and metrics.

    ids: int32 [B,h,w,D]; label: int32 [B]; codebook: float32 [K,V,c].
    soft_targets: float32 [B,h,w,D,V], probabilities of the codes, targets instead of `ids`
      themselves (Sec. 3.2.3).
    """
    nll, right = likelihood(model, params, ids, label, rng, codebook, soft_targets, train=True)
    depths = {f"loss_depth{d + 1}": jnp.mean(nll[d]) for d in range(model.depth)}
    return jnp.mean(nll), {"accuracy": jnp.mean(right), **depths}


def evaluate(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    *,
    codebook: jax.Array,
) -> dict[str, jax.Array]:
    """Return {"cross_entropy@depth1": [B,2], "accuracy@depth1": [B,2], ...}.

    They are an image's sum over positions, and their number; of the codes themselves, never of soft
    targets.
    """
    nll, right = likelihood(model, params, ids, label, rng, codebook)
    result: dict[str, jax.Array] = {}
    for name, value in (("cross_entropy", nll), ("accuracy", right)):
        sums = jnp.sum(value, axis=(2, 3), dtype=jnp.float32)
        pairs = jnp.stack([sums, jnp.full_like(sums, model.tokens)], axis=-1)
        result |= {f"{name}@depth{d + 1}": pairs[d] for d in range(model.depth)}
    return result


def cached(
    model: Model,
    params: dict,
    label: jax.Array | None,
    codebook: jax.Array,
    batch: int,
) -> tuple[NextPosition, NextDepth, jax.Array]:
    """Return next_position, next_depth and carry for `autoregress`, with KV caches."""
    apply: Callable[..., Any] = functools.partial(model.apply, {"params": params})

    def next_position(cache: jax.Array, n: jax.Array, before: jax.Array) -> tuple:
        return apply(cache, n, before, codebook, label, method=Model.next_position)

    def next_depth(state: tuple, d: jax.Array, before: jax.Array) -> tuple:
        return apply(state, d, before, codebook, method=Model.next_depth)

    carry = apply(batch, model.layers, model.heads, model.tokens, method=Model.empty_cache)
    return next_position, next_depth, carry


def sample(
    model: Model,
    params: dict,
    request: Request,
    settings: Settings,
    *,
    codebook: jax.Array,
    keep_history: KeepHistory = False,
) -> Decoded:
    """Return the request's ids [B,h,w,D], new where its mask is True, all D codes of a position.

    The mask is True from some position on to the last; those before it stay, and condition the
    others.

    codebook: float32 [K,V,c].
    keep_history: also return the grids after each row [h,B,h,w,D].
    """
    ids, mask, label, keys = request
    params = in_dtype(params, model.dtype)
    next_position, next_depth, carry = cached(model, params, label, codebook, ids.shape[0])
    known = jnp.where(mask[..., None], model.codes, ids)
    made = autoregress(
        next_position,
        next_depth,
        carry,
        known.reshape(ids.shape[0], -1, model.depth),
        keys,
        settings.at_depths(model.depth),
        codes=model.codes,
    ).reshape(ids.shape)
    return Decoded(made, row_history(known, made, model.codes) if keep_history else None)
