"""A causal transformer over the codes in raster order: VQGAN's GPT, and VIM with other arguments.

One sequence an image:   condition | codes of the grid in raster order

From each position of it the next code is predicted. Sources: Esser et al., CVPR 2021 (VQGAN), Sec.
3.2, and its code, CompVis/taming-transformers; Yu et al., ICLR 2022 (VIM), Sec. 4, and the port
thuanz123/enhancing-transformers. The network stands in `gpt_network`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from evqgan.core.kinds import PartialShare, Share
from evqgan.generators import Decoded, KeepHistory, Request, Traits, sliding, squeeze_depth
from evqgan.generators.autoregressive import (
    Autoregressive,
    NextPosition,
    autoregress,
    row_history,
)
from evqgan.generators.gpt_network import Model
from evqgan.nn.linear import in_dtype

__all__ = ["TRAITS", "Model", "Settings", "evaluate", "init", "loss", "sample"]

TRAITS = Traits(needs=("factor",), fills="suffix")
Settings = Autoregressive


def condition_of(
    model: Model,
    label: jax.Array | None,
    number: int,
    corner: tuple = (0, 0),
) -> jax.Array:
    """Return the words of the condition of `number` images, int32 [B,C].

    label: int32 [B] classes, or [B,C] words.
    corner: of the images' windows, two numbers or two arrays [B].
    """
    if model.condition == "coordinates":
        grid = jnp.asarray(sliding.coordinates(model.latent, model.factor, model.codes))
        grid = jnp.broadcast_to(grid[None], (number, *grid.shape))
        return sliding.crop(grid, corner, model.context)
    if label is not None and label.ndim == 2:
        return label
    if not model.classes:
        return jnp.zeros((number, model.conditions), jnp.int32)  # taming-transformers' sos_token
    if label is None or model.conditions != 1:
        expected = f"int32 [B,{model.conditions}]"
        raise ValueError(f"a class-conditional model needs labels, here {expected}")
    return label[:, None]


def init(model: Model, rng: jax.Array, label: jax.Array) -> dict:
    """Return the parameters of an untrained `model`. label: int32 [1]."""
    ids = jnp.zeros((1, model.tokens - 1), jnp.int32)
    return model.init(rng, condition_of(model, label, 1), ids)["params"]


def predict(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    pkeep: float = 1.0,
    train: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Return logits [B,N,V] and targets [B,N] of the N codes of the grid.

    Of a grid larger than the model's window, a random window of each image is predicted.

    pkeep: the share of the input codes that stay as they are; the others are replaced by random
      codes (taming-transformers).
    train: with dropout.
    """
    rng_window, rng_keep, rng_other, rng_dropout = jax.random.split(rng, 4)
    corner = sliding.random_corners(rng_window, ids.shape[0], model.latent, model.context)
    target = sliding.crop(squeeze_depth(ids, "gpt"), corner, model.context)
    seen = target[:, :-1]
    if pkeep < 1:
        other = jax.random.randint(rng_other, seen.shape, 0, model.codes, seen.dtype)
        seen = jnp.where(jax.random.bernoulli(rng_keep, pkeep, seen.shape), seen, other)
    logits: Any = model.apply(
        {"params": params},
        condition_of(model, label, ids.shape[0], corner),
        seen,
        skip=model.conditions - 1,
        deterministic=not train,
        rngs={"dropout": rng_dropout},
    )
    return logits, target


def loss(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    *,
    label_smoothing: PartialShare = 0.0,
    pkeep: Share = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the mean negative log-likelihood of the codes (VQGAN, Sec. 3.2), and metrics.

    ids: int32 [B,h,w,1]; label: int32 [B].
    label_smoothing: the share of the target that all codes get alike; 0 in both originals.
    pkeep: the share of input codes that stay, not replaced by random ones (taming-transformers).
    """
    logits, target = predict(model, params, ids, label, rng, pkeep, train=True)
    one_hot = optax.smooth_labels(jax.nn.one_hot(target, model.codes), label_smoothing)
    metrics = {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == target)}
    return jnp.mean(optax.softmax_cross_entropy(logits, one_hot)), metrics


def evaluate(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
) -> dict[str, jax.Array]:
    """Return {"cross_entropy@next": [B,2], "accuracy@next": [B,2]}.

    They are an image's sum over its codes, each given all those before it, and their number.
    Unsmoothed; with a window, of a random one of each image.
    """
    logits, target = predict(model, params, ids, label, rng)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    found = {"cross_entropy": nll, "accuracy": jnp.argmax(logits, axis=-1) == target}
    number = jnp.full(ids.shape[0], model.tokens)
    result = {}
    for name, value in found.items():
        result[f"{name}@next"] = jnp.stack([jnp.sum(value, 1), number], axis=-1)
    return result


def sample(
    model: Model,
    params: dict,
    request: Request,
    settings: Settings,
    *,
    keep_history: KeepHistory = False,
) -> Decoded:
    """Return the request's ids [B,h,w,1], new where its mask is True, in raster order.

    The mask is True from some token on to the last; those before it stay, and condition the others.

    keep_history: also return the grids after each row [h,B,h,w,1].
    """
    ids, mask, label, keys = request
    known = jnp.where(mask, model.codes, squeeze_depth(ids, "gpt"))
    words = jnp.where(mask, 0, known).reshape(ids.shape[0], -1)
    params = in_dtype(params, model.dtype)
    start = cached if model.context == tuple(model.latent) else slide
    next_position, carry = start(model, params, words, label)
    made = autoregress(
        next_position,
        lambda logits, d, before: (logits, logits),
        carry,
        known.reshape(ids.shape[0], -1, 1),
        keys,
        [settings],
        codes=model.codes,
    ).reshape(ids.shape)
    return Decoded(made, row_history(known[..., None], made, model.codes) if keep_history else None)


def cached(
    model: Model,
    params: dict,
    words: jax.Array,
    label: jax.Array | None,
) -> tuple[NextPosition, Any]:
    """Return next_position and carry for `autoregress`; carry is the KV cache of earlier codes."""
    apply: Callable[..., Any] = functools.partial(model.apply, {"params": params})
    first, cache = apply(condition_of(model, label, words.shape[0]), method=Model.begin)

    def next_position(cache: dict, n: jax.Array, before: jax.Array) -> tuple[dict, jax.Array]:
        # At n = 0 there is no code to read. What it writes is written again at n = 1, but for what
        # the time shift has seen.
        at = jnp.maximum(n, 1)
        logits, new = apply(cache, before[:, 0], at, method=Model.step)
        if "last" in new:
            new["last"] = jnp.where(n == 0, cache["last"], new["last"])
        return new, jnp.where(n == 0, first, logits)

    return next_position, cache


def slide(
    model: Model,
    params: dict,
    words: jax.Array,
    label: jax.Array | None,
) -> tuple[NextPosition, jax.Array]:
    """Return next_position and carry for `autoregress`; each code sees a sliding window alone.

    The carry is the words made so far, int32 [B,h*w]: nothing is cached, as windows differ.
    """

    def next_position(words: jax.Array, n: jax.Array, before: jax.Array) -> tuple:
        at = jnp.maximum(n - 1, 0)  # of n = 0: no window sees it before n = 1
        words = words.at[:, at].set(before[:, 0])
        return words, window_logits(model, params, words, label, n)

    return next_position, words


def window_logits(
    model: Model,
    params: dict,
    words: jax.Array,
    label: jax.Array | None,
    n: jax.Array,
) -> jax.Array:
    """Return the logits [B,V] of the code at position n, given those before it in its window.

    words: int32 [B,h*w].
    """
    corner, local = sliding.window_around(n, model.latent, model.context)
    seen = sliding.crop(words.reshape(-1, *model.latent), corner, model.context)[:, :-1]
    condition = condition_of(model, label, words.shape[0], corner)
    logits = model.apply({"params": params}, condition, seen, skip=model.conditions - 1)
    return jax.lax.dynamic_index_in_dim(logits, local, axis=1, keepdims=False)
