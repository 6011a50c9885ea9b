"""Efficient-VQGAN's second stage: a masked transformer with multi-grained attention (paper, Sec. 3.2 and 3.3).

One sequence a target block:   class | globals (one a block) | ring (the extension) | target (window x window)

Only target tokens are predicted. A global token is a convolution with kernel = stride = window over the code
embeddings of a block; the target's own global token is always that of a masked block, or the answer would leak.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.generators import decoding
from evqgan.nn.attention import Stack

NOWHERE = -1  # the index of a ring position outside the image


@functools.lru_cache
def layout(h, w, window, extend):
    """Where the tokens of each block's sequence lie in the grid: ring [blocks,R], target [blocks,T] int32 flat indices.

    R = (window + 2 extend)^2 - window^2, T = window^2; ring positions outside the image are NOWHERE (paper, Fig. 3).
    """
    ring, target = [], []
    for top in range(0, h, window):
        for left in range(0, w, window):
            y, x = np.mgrid[top - extend : top + window + extend, left - extend : left + window + extend]
            inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            own = (y >= top) & (y < top + window) & (x >= left) & (x < left + window)
            index = np.where(inside, y * w + x, NOWHERE)
            ring.append(index[~own])
            target.append(index[own])
    return np.array(ring, np.int32), np.array(target, np.int32)


class Model(nn.Module):
    """Logits of the codes of target blocks.

    codes: V; latent: (h, w), the token grid; window: W_s; extend: E_s; classes: 0 for unconditional models.
    attention: "joint" = everything attends to everything (the paper's text); "prefix" = groups attend only to
    themselves and the groups to their left, so that the context does not depend on the tokens being predicted.
    Differs from the paper: "prefix" is the default, because its context can be cached; on the digits the two learn
    equally well (README).
    layers, width, heads: 24 x 768 x 16 as in MaskGIT; code_width 256 as VQGAN's codes: 184.9 M parameters with 1000
    classes at 16 x 16 (the paper: 185 M; it gives no widths). dropout: MaskGIT's 0.1.
    """

    codes: int
    latent: tuple[int, int]
    window: int = 8
    extend: int = 4
    classes: int = 0
    attention: str = "prefix"
    layers: int = 24
    width: int = 768
    heads: int = 16
    mlp_ratio: float = 4.0
    code_width: int = 256
    dropout: float = 0.1
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        h, w = self.latent
        if h % self.window or w % self.window:
            raise InputError(f"generator.window = {self.window} does not divide the {h} x {w} token grid")
        if self.attention not in ("joint", "prefix"):
            raise InputError(f"generator.attention is 'joint' or 'prefix', not {self.attention!r}")

    @property
    def blocks(self):
        """The number of blocks of the grid."""
        return self.latent[0] * self.latent[1] // self.window**2

    @nn.compact
    def __call__(self, ids, visible, ring, target, block, label=None, deterministic=True):
        """-> logits [B,K,T,V] float32 for K target blocks of every image.

        ids [B,h,w] int32: what the global tokens summarize; visible [B,K,blocks] bool: which of them a target may see
        (its own never). ring [B,K,R], target [B,K,T] int32: the local tokens; MASK = V. block [B,K] int32: the
        targets' numbers. label [B] int32, when `classes` > 0.
        """
        dtype = jnp.dtype(self.dtype)
        batch, number = block.shape
        normal = nn.initializers.truncated_normal(0.02)  # MaskGIT
        dense = functools.partial(nn.Dense, dtype=dtype, kernel_init=normal)
        embed = nn.Embed(self.codes + 1, self.code_width, embedding_init=normal, dtype=dtype, name="codes_and_mask")
        position = self.param("position", normal, (self.latent[0] * self.latent[1], self.width))
        position_global = self.param("position_global", normal, (self.blocks, self.width))
        kind = self.param("kind", normal, (3, self.width))  # global, ring, target
        ring_index, target_index = (jnp.asarray(x) for x in layout(*self.latent, self.window, self.extend))

        # Globals: one convolution serves all targets; what a target may not see becomes a masked block.
        convolution = dense(self.width, name="global_convolution")

        def summarize(blocks_ids):
            x = embed(blocks_ids)
            return convolution(x.reshape(*x.shape[:-2], -1))

        seen = summarize(decoding.blocks_of(ids, self.window))[:, None]  # [B,1,blocks,c]
        masked = summarize(jnp.full((1, 1, 1, self.window**2), self.codes))
        own = jax.nn.one_hot(block, self.blocks, dtype=bool)
        x_global = jnp.where((visible & ~own)[..., None], seen, masked)
        x_global = x_global + (position_global + kind[:1])[None, None].astype(dtype)

        # Local tokens: the ring and the target, at their places in the whole grid.
        project = dense(self.width, name="code_projection")

        def place(tokens, index, which):
            x = project(embed(tokens))
            return x + position[index].astype(dtype) + kind[which][None, None, None].astype(dtype)

        ring_index, target_index = ring_index[block], target_index[block]  # [B,K,R], [B,K,T]
        parts = [x_global, place(ring, ring_index, 1), place(target, target_index, 2)]
        if self.classes:
            if label is None:
                raise ValueError("a class-conditional model needs labels")
            x_class = nn.Embed(self.classes, self.width, embedding_init=normal, dtype=dtype, name="class")(label)
            parts.insert(0, jnp.broadcast_to(x_class[:, None, None], (batch, number, 1, self.width)))
        groups = np.repeat(np.array([0, 0, 1, 2])[-len(parts) :], [p.shape[2] for p in parts])

        x = jnp.concatenate(parts, axis=2).reshape(batch * number, len(groups), self.width)
        valid = jnp.ones((batch, number, len(groups)), bool)
        valid = valid.at[:, :, groups == 1].set(ring_index != NOWHERE).reshape(batch * number, 1, 1, -1)
        allowed = groups[None, :] <= groups[:, None] if self.attention == "prefix" else np.ones((1, 1), bool)
        mask = valid & jnp.asarray(allowed)[None, None]

        x = Stack(
            layers=self.layers, heads=self.heads, mlp_ratio=self.mlp_ratio, dropout=self.dropout,
            remat=self.remat, dtype=dtype, name="transformer",
        )(x, mask, deterministic)  # fmt: skip
        x = nn.LayerNorm(dtype=dtype, name="norm")(x[:, -target.shape[2] :])
        logits = dense(self.codes, name="logits")(x)
        return logits.reshape(batch, number, target.shape[2], self.codes).astype(jnp.float32)


def random_visible(rng, batch, number, blocks, target):
    """Which blocks each target may see [B,K,blocks] bool: what inference meets (ours, "matched").

    Half of the targets see the raster prefix before them (generation), the others a random subset of random size
    (editing; orders other than raster). target [B,K] int32. A target's own block is never visible.
    """
    rng_kind, rng_share, rng_block = jax.random.split(rng, 3)
    every = jnp.arange(blocks)[None, None]
    share = jax.random.uniform(rng_share, (batch, number, 1))
    subset = jax.random.uniform(rng_block, (batch, number, blocks)) < share
    raster = jax.random.bernoulli(rng_kind, 0.5, (batch, number, 1))
    return jnp.where(raster, every < target[..., None], subset) & (every != target[..., None])


def random_mask(rng, shape, share):
    """True for exactly ceil(share * n) of the n last-axis positions; share [...] in (0, 1] (paper, Sec. 3.3)."""
    count = jnp.ceil(share * shape[-1]).astype(jnp.int32)
    scores = jax.random.uniform(rng, shape)
    rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)
    return rank < count[..., None]


def corrupt(model, ids, rng, masks, targets, share=None):
    """Draws targets and masks -> the arguments of `Model.__call__` but the label, and is_masked [B,K,T] bool.

    ids [B,h,w] int32. targets: K random blocks an image, or 0 = all. share: of tokens masked; None draws it by the
    cosine schedule, gamma(r) with r uniform.
    masks "matched" (ours): only the target is partly masked; other blocks are seen whole or not at all, ring and
    globals alike. masks "paper": one uniform token mask on the whole grid for the local tokens, an independent mask
    of whole blocks for the global ones (Sec. 3.3).
    """
    batch, h, w = ids.shape
    blocks, mask_id = model.blocks, model.codes
    rng_target, rng_visible, rng_share, rng_mask = jax.random.split(rng, 4)
    if targets:
        order = jax.vmap(lambda key: jax.random.permutation(key, blocks))(jax.random.split(rng_target, batch))
        block = order[:, :targets].astype(jnp.int32)
    else:
        block = jnp.broadcast_to(jnp.arange(blocks, dtype=jnp.int32)[None], (batch, blocks))
    number = block.shape[1]

    ring_index, target_index = (jnp.asarray(x)[block] for x in layout(h, w, model.window, model.extend))
    gather = jax.vmap(lambda grid, index: grid[index])
    flat = ids.reshape(batch, h * w)
    ring, target = gather(flat, ring_index), gather(flat, target_index)

    def draw(key, shape):
        return decoding.cosine(jax.random.uniform(key, shape))  # r < 1, so that gamma > 0

    def token_share(shape):
        return draw(rng_share, shape) if share is None else jnp.full(shape, share)

    if masks == "matched":
        visible = random_visible(rng_visible, batch, number, blocks, block)
        block_at = np.arange(h * w).reshape(h, w)
        block_at = (block_at // w // model.window) * (w // model.window) + block_at % w // model.window
        ring_known = jnp.take_along_axis(visible, jnp.asarray(block_at).reshape(-1)[ring_index], axis=-1)
        is_masked = random_mask(rng_mask, target.shape, token_share((batch, number)))
    elif masks == "paper":
        rng_grid, rng_count, rng_block = jax.random.split(rng_visible, 3)
        masked_blocks = random_mask(rng_block, (batch, blocks), draw(rng_count, (batch,)))
        visible = jnp.broadcast_to(~masked_blocks[:, None], (batch, number, blocks))
        grid_masked = random_mask(rng_grid, (batch, h * w), token_share((batch,)))
        ring_known, is_masked = ~gather(grid_masked, ring_index), gather(grid_masked, target_index)
    else:
        raise InputError(f"the generator's masks are 'matched' or 'paper', not {masks!r}")
    inputs = {
        "ids": ids,
        "visible": visible,
        "ring": jnp.where(ring_known, ring, mask_id),
        "target": jnp.where(is_masked, mask_id, target),
        "block": block,
    }
    return inputs, target, is_masked


def init(model, rng, label):
    """The parameters of `model`. label [1] int32."""
    ids = jnp.zeros((1, *model.latent), jnp.int32)
    inputs, _, _ = corrupt(model, ids, rng, "matched", 1)
    return model.init(rng, **inputs, label=label if model.classes else None)["params"]


def likelihood(model, params, ids, label, rng, masks, targets, label_smoothing=0.0, share=None, train=False):
    """-> negative log-likelihood, argmax is right, token is masked: each [B,K,T], of the target tokens."""
    rng_corrupt, rng_dropout = jax.random.split(rng)
    inputs, target, is_masked = corrupt(model, single(ids), rng_corrupt, masks, targets, share)
    label = label if model.classes else None
    rngs = {"dropout": rng_dropout}
    logits = model.apply({"params": params}, **inputs, label=label, deterministic=not train, rngs=rngs)
    one_hot = optax.smooth_labels(jax.nn.one_hot(target, model.codes), label_smoothing)
    return optax.softmax_cross_entropy(logits, one_hot), jnp.argmax(logits, axis=-1) == target, is_masked


def loss(model, params, ids, label, rng, *, masks="matched", targets=1, label_smoothing=0.0):
    """The negative log-likelihood of masked target tokens (paper, Eq. 2) -> scalar, {"accuracy", "masked"}.

    ids [B,h,w,1] int32, label [B] int32. The mean over all masked tokens of the batch. targets = 0 is Eq. 2's sum over
    all blocks, targets = k estimates it from k random blocks an image, in memory that does not grow with resolution.
    label_smoothing: 0 is Eq. 2's one-hot target (MaskGIT: 0.1).
    """
    nll, right, is_masked = likelihood(model, params, ids, label, rng, masks, targets, label_smoothing, train=True)
    weight = is_masked / jnp.maximum(jnp.sum(is_masked), 1)
    return jnp.sum(nll * weight), {"accuracy": jnp.sum(right * weight), "masked": jnp.mean(is_masked)}


def evaluate(model, params, ids, label, rng, *, masks="matched", targets=1, label_smoothing=0.0):
    """{"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}: an image's sum over masked tokens, and their number.

    By the share of tokens masked; 1.00 is the first step of sampling a block. Takes `loss`'s arguments; unsmoothed.
    """
    del label_smoothing
    result = {}
    for i, share in enumerate((0.25, 0.5, 0.75, 1.0)):
        key = jax.random.fold_in(rng, i)
        nll, right, is_masked = likelihood(model, params, ids, label, key, masks, targets, share=share)
        for name, value in (("cross_entropy", nll), ("accuracy", right)):
            pair = jnp.stack([jnp.sum(value * is_masked, (1, 2)), jnp.sum(is_masked, (1, 2))], axis=-1)
            result[f"{name}@{share:.2f}"] = pair
    return result


def sample(
    model, params, ids, mask, label, keys, *, steps=8, temperature=1.0, choice_temperature=4.5, schedule="cosine"
):
    """Generates ids [B,h,w,1] int32 where mask [B,h,w] is True; known tokens stay -> [B,h,w,1] int32.

    label [B] int32 (ignored by unconditional models); keys [B]: one random key an image; the others are arguments of
    `decoding.mask_predict`; steps: T, 8 in the paper (Sec. 4.2). All True is generation; a box, inpainting or
    class-conditional editing; a border, outpainting (paper, Sec. 4.3).
    """
    label = label if model.classes else None
    in_block = {
        "steps": steps, "temperature": temperature, "choice_temperature": choice_temperature, "schedule": schedule,
    }  # fmt: skip

    def context(grid, block):
        batch, h, w = grid.shape
        ring_index = jnp.asarray(layout(h, w, model.window, model.extend)[0])[block]
        inputs = {
            "ids": grid,
            "visible": jnp.ones((batch, 1, model.blocks), bool),
            "ring": grid.reshape(batch, 1, h * w)[:, :, ring_index],
            "block": jnp.full((batch, 1), block, jnp.int32),
            "label": label,
        }
        return lambda tokens: model.apply({"params": params}, target=tokens[:, None], **inputs)[:, 0]

    ids = decoding.block_raster(context, single(ids), mask, keys, window=model.window, codes=model.codes, **in_block)
    return ids[..., None]


def single(ids):
    """[B,h,w,1] -> [B,h,w]: this generator models one code a token."""
    if ids.shape[-1] != 1:
        raise InputError(f"the multigrained generator needs a quantizer of depth 1, not {ids.shape[-1]}")
    return ids[..., 0]
