"""Efficient-VQGAN's second stage: a masked transformer, block by block (paper, Sec. 3.3).

`loss` is Eq. 2. `multigrained_network` is the network and its three grains, `masking` draws what is
masked in training, `block_decoding` is the loop over blocks in sampling, and `mask_predict` the
loop inside each of them.

Words of these files:
  grain      one of the three kinds of tokens that a target sees: the target block itself, its ring
             (the tokens around it), and the global tokens, one for each block of the image.
  own        of a target: the global token of the target's own block.
  ordered    global tokens of which each holds its whole block and is seen only by blocks that are
             decoded after it; `masked` ones all see each other (generator.global_tokens).
  rank       of a block: 0 if it is given, else its place in the order of decoding, from 1 on.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from evqgan.core.kinds import PartialShare, Share
from evqgan.generators import Decoded, KeepHistory, Request, Traits, masking, squeeze_depth
from evqgan.generators.block_decoding import block_by_block
from evqgan.generators.blocks import Order, ring_and_target, step_of_block
from evqgan.generators.guidance import drop_class
from evqgan.generators.mask_predict import MaskPredict, ToLogits
from evqgan.generators.masked_shares import by_share
from evqgan.generators.multigrained_network import Model
from evqgan.nn.layers import separate
from evqgan.nn.linear import in_dtype

__all__ = [
    "TRAITS",
    "Model",
    "Settings",
    "evaluate",
    "init",
    "loss",
    "sample",
]

TRAITS = Traits()


@dataclasses.dataclass(frozen=True)
class Settings(MaskPredict):
    """The keys of config.sample; those of `MaskPredict` are of decoding in each block."""

    order: Order = "raster"  # of the blocks, see `blocks.step_of_block`


def init(model: Model, rng: jax.Array, label: jax.Array) -> dict:
    """Return the parameters of an untrained `model`. label: int32 [1]."""
    ids = jnp.zeros((1, *model.latent), jnp.int32)
    inputs, _, _ = masking.corrupt(model, ids, rng, "raster", 1)
    return model.init(rng, **inputs, label=label if model.classes else None)["params"]


def likelihood(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    masks: masking.Masks,
    targets: int,
    label_smoothing: float = 0.0,
    train: bool = False,
    **how: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mask tokens of K target blocks and predict them.

    Returns cross-entropies with the smoothed target (-log p(x_i | L_T, G_T) of Eq. 2 for
    label_smoothing = 0), whether the likeliest code is right, and whether the token was masked,
    each [B,K,T].

    train: with dropout, and class dropout.
    how: keyword arguments that `masking.corrupt` gets: share, edits, wavefronts.
    """
    rng_corrupt, rng_dropout, rng_class = jax.random.split(rng, 3)
    ids = squeeze_depth(ids, "multigrained")
    inputs, target, is_masked = masking.corrupt(model, ids, rng_corrupt, masks, targets, **how)
    if train:
        label = drop_class(rng_class, label, model.classes, model.class_dropout)
    inputs["label"] = label if model.classes else None
    rngs = {"dropout": rng_dropout}
    logits: Any = model.apply({"params": params}, **inputs, deterministic=not train, rngs=rngs)
    one_hot = optax.smooth_labels(jax.nn.one_hot(target, model.codes), label_smoothing)
    nll = optax.softmax_cross_entropy(logits, one_hot)
    return nll, jnp.argmax(logits, axis=-1) == target, is_masked


def loss(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    *,
    masks: masking.Masks = "matched",
    targets: int = 1,
    label_smoothing: PartialShare = 0.0,
    edits: Share = masking.EDITS,
    wavefronts: Share = masking.WAVEFRONTS,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the cross-entropy of masked target tokens (paper, Eq. 2), and metrics.

    It is the mean over all masked tokens of the batch, and for label_smoothing = 0 their negative
    log-likelihood.

    ids: int32 [B,h,w,1]; label: int32 [B].
    targets: 0 is Eq. 2's sum over all blocks; k estimates it from k random blocks an image, in
      memory that does not grow with resolution.
    label_smoothing: 0 is Eq. 2's one-hot target (MaskGIT: 0.1).
    masks: which states of an image are trained on, see `masking.corrupt`.
    edits: of "matched" the share of images in which a rectangle is hidden, not the whole image.
    wavefronts: of "matched" the share of images whose blocks come in wavefront order.
    """
    nll, right, is_masked = likelihood(
        model,
        params,
        ids,
        label,
        rng,
        masks,
        targets,
        label_smoothing,
        train=True,
        edits=edits,
        wavefronts=wavefronts,
    )
    weight = is_masked / jnp.maximum(jnp.sum(is_masked), 1)
    metrics = {"accuracy": jnp.sum(right * weight), "masked": jnp.mean(is_masked)}
    return jnp.sum(nll * weight), metrics


def evaluate(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
) -> dict[str, jax.Array]:
    """Return cross-entropy and accuracy by the share of a block's tokens that is masked.

    {"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}: for each image the sum over masked
    tokens, and their number; a share of 1.00 is the first step of sampling a block. One random
    block of each image is predicted, from what generation in raster order knows at that point,
    however the model was trained.
    """

    def of_share(key: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return likelihood(model, params, ids, label, key, "raster", 1, share=share)

    return by_share(rng, of_share)


class BlockContext:
    """The network as a `BlockModel`, for one request.

    The carry is the KV cache of class and ordered globals, to which `complete` adds the globals of
    a step's blocks. With guidance the batch holds every image twice; its second half has no class.
    """

    def __init__(self, model: Model, params: dict, request: Request, settings: Settings) -> None:
        self.model, self.params, self.request = model, params, request
        self.codes, self.layout = model.codes, model.layout
        self.guided = bool(settings.guidance)
        self.is_cached = model.attention == "prefix"
        self.is_ordered = model.global_tokens == "ordered"
        label = request.label if model.classes else None
        if self.guided and label is not None:
            label = jnp.concatenate([label, jnp.full_like(label, model.classes)])
        self.fixed: dict[str, Any] = {"label": label}  # inputs that are the same in all steps
        if self.is_ordered:
            step = jnp.asarray(step_of_block(*model.layout, settings.order))[None]
            self.fixed["rank"] = self.twice(masking.rank_blocks(request.mask, step, model.window))

    def twice(self, x: jax.Array) -> jax.Array:
        """Return the batch twice, if there is guidance."""
        return jnp.concatenate([x, x]) if self.guided else x

    def apply(self, *args: Any, method: Callable | None = None, **inputs: Any) -> Any:
        """Apply the network, or a method of it such as `Model.context`."""
        return self.model.apply({"params": self.params}, *args, **inputs, method=method)

    def begin(self) -> Any:
        """Return the carry before anything is generated: the KV cache of class and global tokens.

        It is empty for a model without such a cache: that with masked global tokens, whose content
        changes in every step, and that with attention = "joint".
        """
        if not (self.is_ordered and self.is_cached):
            return ()
        ids = squeeze_depth(self.request.ids, "multigrained")
        grid = jnp.where(self.request.mask, self.codes, ids)
        return self.apply(self.twice(grid), **self.fixed, method=Model.begin)

    def context(self, carry: Any, grid: jax.Array, blocks: jax.Array) -> ToLogits:
        """Return the function tokens_to_logits, [B*K,T] -> [B*K,T,V], of a step's `blocks` [K].

        carry: see `begin`. grid: int32 [B,h,w] before the step, [MASK] = V.
        """
        batch, grid = grid.shape[0], self.twice(grid)
        ring_index = jnp.asarray(ring_and_target(*self.layout)[0])[blocks]
        block = jnp.broadcast_to(blocks[None], (grid.shape[0], len(blocks)))
        ring = grid.reshape(grid.shape[0], -1)[:, ring_index]
        inputs: dict[str, Any] = {"grid": grid[:, None], "ring": ring, "block": block, **self.fixed}
        if self.is_cached:
            globals_kv = carry if self.is_ordered else None
            cache = self.apply(**inputs, globals_kv=globals_kv, method=Model.context)

        def tokens_to_logits(tokens: jax.Array) -> Any:
            tokens = self.twice(tokens.reshape(batch, len(blocks), -1))
            if self.is_cached:
                logits = self.apply(cache, tokens, block, method=Model.continued)
            else:
                logits = self.apply(**inputs, target=tokens)
            logits = logits.reshape(-1, *logits.shape[2:])
            return jnp.split(logits, 2) if self.guided else logits

        return tokens_to_logits

    def complete(self, carry: Any, grid: jax.Array, blocks: jax.Array) -> Any:
        """Return the KV cache with the globals of `blocks` [K], which grid [B,h,w] now holds."""
        if not (self.is_ordered and self.is_cached):
            return carry
        return self.apply(
            carry, self.twice(grid), blocks, self.fixed["rank"], method=Model.complete
        )


def as_sampled(model: Model, params: dict) -> dict:
    """Return the parameters in the form in which sampling is fast.

    They are cast to the model's dtype once, and not in every step. The parameters of all layers lie
    stacked in arrays [layers,...]. With unroll = 0 there is no loop over layers, and each layer
    gets arrays of its own, so that no step has to copy them out of the stack.
    """
    params = in_dtype(params, model.dtype)
    if model.unroll:
        return params
    return {**params, "transformer": {"blocks": separate(params["transformer"]["blocks"])}}


def sample(
    model: Model,
    params: dict,
    request: Request,
    settings: Settings,
    *,
    keep_history: KeepHistory = False,
) -> Decoded:
    """Return the request's ids [B,h,w,1], new where its mask is True.

    A mask that is all True is generation; a box, inpainting or class-conditional editing; a border,
    outpainting (paper, Sec. 4.3). InputError for guidance of a model without class dropout.

    keep_history: also return the grids after each step of block_by_block [steps,B,h,w,1].
    """
    settings.check(model)
    made = block_by_block(
        BlockContext(model, as_sampled(model, params), request, settings),
        squeeze_depth(request.ids, "multigrained"),
        request.mask,
        request.keys,
        settings,
        settings.order,
        keep_history,
    )
    return jax.tree.map(lambda x: x[..., None], made)
