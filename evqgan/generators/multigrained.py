"""Efficient-VQGAN's second stage: training and sampling a masked transformer, block by block (paper, Sec. 3.3).

The network and what it sees of an image stand in `multigrained_network`, what it trains on in `masking`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from evqgan.core.errors import InputError
from evqgan.core.kinds import PartialShare, Positive, Share
from evqgan.generators import Traits, decoding, masking
from evqgan.generators.blocks import ORDERS, layout, turns
from evqgan.generators.multigrained_network import GLOBAL_TOKENS, OWN, Model

__all__ = ["GLOBAL_TOKENS", "OWN", "TRAITS", "Model", "evaluate", "init", "loss", "sample"]

TRAITS = Traits()


def init(model, rng, label):
    """The parameters of `model`. label [1] int32."""
    ids = jnp.zeros((1, *model.latent), jnp.int32)
    inputs, _, _ = masking.corrupt(model, ids, rng, "raster", 1)
    return model.init(rng, **inputs, label=label if model.classes else None)["params"]


def likelihood(model, params, ids, label, rng, masks, targets, label_smoothing=0.0, train=False, **how):
    """-> negative log-likelihood, argmax is right, token is masked: each [B,K,T], of the target tokens.

    how: share, edits and wavefronts of `masking.corrupt`.
    """
    rng_corrupt, rng_dropout, rng_class = jax.random.split(rng, 3)
    inputs, target, is_masked = masking.corrupt(model, single(ids), rng_corrupt, masks, targets, **how)
    if train and model.class_dropout:
        label = jnp.where(jax.random.bernoulli(rng_class, model.class_dropout, label.shape), model.classes, label)
    label = label if model.classes else None
    rngs = {"dropout": rng_dropout}
    logits = model.apply({"params": params}, **inputs, label=label, deterministic=not train, rngs=rngs)
    one_hot = optax.smooth_labels(jax.nn.one_hot(target, model.codes), label_smoothing)
    return optax.softmax_cross_entropy(logits, one_hot), jnp.argmax(logits, axis=-1) == target, is_masked


def loss(
    model, params, ids, label, rng, *, masks: Literal[*masking.MASKS] = "matched", targets: int = 1,
    label_smoothing: PartialShare = 0.0, edits: Share = masking.EDITS, wavefronts: Share = masking.WAVEFRONTS,
):  # fmt: skip
    """The negative log-likelihood of masked target tokens (paper, Eq. 2) -> scalar, {"accuracy", "masked"}.

    ids [B,h,w,1] int32, label [B] int32. The mean over all masked tokens of the batch. targets = 0 is Eq. 2's sum over
    all blocks, targets = k estimates it from k random blocks an image, in memory that does not grow with resolution.
    label_smoothing: 0 is Eq. 2's one-hot target (MaskGIT: 0.1). masks, edits, wavefronts: see `masking.corrupt`.
    """
    how = {"edits": edits, "wavefronts": wavefronts}
    nll, right, is_masked = likelihood(model, params, ids, label, rng, masks, targets, label_smoothing, True, **how)
    weight = is_masked / jnp.maximum(jnp.sum(is_masked), 1)
    return jnp.sum(nll * weight), {"accuracy": jnp.sum(right * weight), "masked": jnp.mean(is_masked)}


def evaluate(model, params, ids, label, rng):
    """{"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}: an image's sum over masked tokens, and their number.

    By the share of tokens masked; 1.00 is the first step of sampling a block. One block an image, and what generation
    in raster order knows then, however the model was trained.
    """
    result = {}
    for i, share in enumerate((0.25, 0.5, 0.75, 1.0)):
        key = jax.random.fold_in(rng, i)
        nll, right, is_masked = likelihood(model, params, ids, label, key, "raster", 1, share=share)
        for name, value in (("cross_entropy", nll), ("accuracy", right)):
            pair = jnp.stack([jnp.sum(value * is_masked, (1, 2)), jnp.sum(is_masked, (1, 2))], axis=-1)
            result[f"{name}@{share:.2f}"] = pair
    return result


def sample(
    model,
    params,
    ids,
    mask,
    label,
    keys,
    *,
    steps: Positive = 8,
    temperature: float = 1.0,
    final_temperature: float | None = None,
    choice_temperature: float = 4.5,
    schedule: decoding.Schedule = "cosine",
    top_k: int = 0,
    top_p: Share = 1.0,
    guidance: float = 0.0,
    guidance_schedule: Literal[*decoding.GUIDANCE] = "linear",
    order: Literal[*ORDERS] = "raster",
    trace: bool = False,
):
    """Generates ids [B,h,w,1] int32 where mask [B,h,w] is True; known tokens stay -> [B,h,w,1] int32.

    label [B] int32 (ignored by unconditional models); keys [B]: one random key an image. All True is generation; a
    box, inpainting or class-conditional editing; a border, outpainting (paper, Sec. 4.3). steps: T, 8 in the paper
    (Sec. 4.2); it and what follows are arguments of `decoding.mask_predict`, order and trace of
    `decoding.block_by_block` (trace=True: -> [turns,B,h,w,1], MASK = V where nothing is yet). InputError for guidance
    of a model that was trained without class dropout.
    """
    in_block = {
        "steps": steps, "temperature": temperature, "final_temperature": final_temperature,
        "choice_temperature": choice_temperature, "schedule": schedule, "top_k": top_k, "top_p": top_p,
        "guidance": guidance, "guidance_schedule": guidance_schedule,
    }  # fmt: skip
    if guidance and not model.class_dropout:
        raise InputError(
            f"the sampler's guidance is {guidance}, but the generator was trained without generator.class_dropout: "
            "guidance needs a model that knows images without a class"
        )
    batch, (h, w) = len(ids), model.latent
    ring_index = jnp.asarray(layout(h, w, model.window, model.extend)[0])
    label = label if model.classes else None
    cached = model.attention == "prefix"

    def twice(x):  # the second half of the batch has no class
        return jnp.concatenate([x, x]) if guidance else x

    if guidance:
        label = jnp.concatenate([label, jnp.full_like(label, model.classes)])
    known, carry, ordered = {"label": label}, (), model.global_tokens == "ordered"
    if ordered:
        turn = jnp.asarray(turns(h, w, model.window, model.extend, order))[None]
        known["rank"] = twice(masking.ranked(mask, turn, model.window))

    def apply(*args, method=None, **inputs):
        return model.apply({"params": params}, *args, **inputs, method=method)

    if ordered and cached:
        carry = apply(twice(jnp.where(mask, model.codes, single(ids))), **known, method="begin")

    def context(carry, grid, blocks):
        grid = twice(grid)
        block = jnp.broadcast_to(blocks[None], (len(grid), len(blocks)))
        ring = grid.reshape(len(grid), 1, h * w)[:, 0, ring_index[blocks]]
        now = {"grid": grid[:, None], "ring": ring, "block": block, **known}
        cache = apply(**now, before=carry if ordered else None, method="context") if cached else None

        def tokens_to_logits(tokens):
            tokens = twice(tokens.reshape(batch, len(blocks), -1))
            logits = apply(cache, tokens, block, method="continued") if cached else apply(**now, target=tokens)
            logits = logits.reshape(-1, *logits.shape[2:])
            return jnp.split(logits, 2) if guidance else logits

        return tokens_to_logits

    def complete(carry, grid, front):
        return apply(carry, twice(grid), front, known["rank"], method="complete")

    grids = decoding.block_by_block(
        context, single(ids), mask, keys, window=model.window, extend=model.extend, codes=model.codes, order=order,
        carry=carry, complete=complete if ordered and cached else None, trace=trace, **in_block,
    )  # fmt: skip
    return grids[..., None]


def single(ids):
    """[B,h,w,1] -> [B,h,w]: this generator models one code a token."""
    if ids.shape[-1] != 1:
        raise InputError(f"the multigrained generator needs a quantizer of depth 1, not {ids.shape[-1]}")
    return ids[..., 0]
