"""What a generator over blocks trains on: which blocks it predicts, and what is known then (paper, Sec. 3.3)."""

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError
from evqgan.generators import decoding
from evqgan.generators.blocks import NOWHERE, blocks_of, grid_of, layout, turns

EDITS = 0.5  # ours: the share of images in which a rectangle is generated, and not the whole
WAVEFRONTS = 0.25  # ours: the share of images whose blocks come in this order instead of raster order
MASKS = ("matched", "raster", "paper")


def random_mask(rng, candidates, share):
    """True for ceil(share * n) random ones of the n `candidates` bool [...,N]; share [...] in (0, 1] (Sec. 3.3).

    None where there is no candidate.
    """
    count = jnp.ceil(share * jnp.sum(candidates, axis=-1)).astype(jnp.int32)
    scores = jnp.where(candidates, jax.random.uniform(rng, candidates.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)
    return candidates & (rank < count[..., None])


def random_rectangle(rng, batch, h, w):
    """bool [B,h,w]: a rectangle of random sides at a random place."""

    def side(key, length):
        key_size, key_start = jax.random.split(key)
        size = jax.random.randint(key_size, (batch, 1), 1, length + 1)
        start = jnp.floor(jax.random.uniform(key_start, (batch, 1)) * (length - size + 1)).astype(jnp.int32)
        at = jnp.arange(length)[None]
        return (at >= start) & (at < start + size)

    key_h, key_w = jax.random.split(rng)
    return side(key_h, h)[:, :, None] & side(key_w, w)[:, None]


def as_in_sampling(model, rng, batch, number, edits):
    """A moment of sampling -> hidden, known bool [B,h,w], block [B,number] int32, the targets.

    Something is hidden: the whole image, or, in the share EDITS of images if `edits`, a rectangle. One of its blocks,
    drawn uniformly, is next; the hidden tokens of the blocks before it in the order are known by now. It is the first
    target; the others are drawn from the other blocks that are not complete yet, again and again if they are too few.
    """
    h, w = model.latent
    rng_kind, rng_rectangle, rng_order, rng_next, rng_others = jax.random.split(rng, 5)
    hidden = jnp.ones((batch, h, w), bool)
    order = [turns(h, w, model.window, model.extend, name) for name in ("raster", "wavefront")]
    turn = jnp.broadcast_to(jnp.asarray(order[0])[None], (batch, model.blocks))
    if edits:
        rectangle = random_rectangle(rng_rectangle, batch, h, w)
        hidden = jnp.where(jax.random.bernoulli(rng_kind, EDITS, (batch, 1, 1)), rectangle, hidden)
        other = jax.random.bernoulli(rng_order, WAVEFRONTS, (batch, 1))
        turn = jnp.where(other, jnp.asarray(order[1])[None], turn)
    open_blocks = jnp.any(blocks_of(hidden, model.window), axis=-1)
    following = jnp.argmax(jax.random.uniform(rng_next, open_blocks.shape) * open_blocks, axis=-1, keepdims=True)
    open_blocks &= turn >= jnp.take_along_axis(turn, following, axis=-1)
    side = model.window
    block_at = np.arange(model.blocks).reshape(h // side, -1).repeat(side, 0).repeat(side, 1)
    known = ~(hidden & open_blocks[:, block_at])

    scores = jax.random.uniform(rng_others, open_blocks.shape) * open_blocks
    scores = scores + (jnp.arange(model.blocks)[None] == following)
    ranked = jnp.argsort(-scores, axis=-1)
    slot = jnp.arange(number)[None] % jnp.sum(open_blocks, axis=-1, keepdims=True)
    return hidden, known, jnp.take_along_axis(ranked, slot, axis=-1).astype(jnp.int32)


def corrupt(model, ids, rng, masks, targets, share=None):
    """Draws targets and masks -> inputs of `Model.__call__` (but the label), target ids, is_masked, both [B,K,T].

    ids [B,h,w] int32. targets: K random blocks an image, or 0 = as many as there are. share: of the hidden tokens of a
    target that are masked; None draws it by the cosine schedule, gamma(r) with r uniform.
    masks "matched" (ours): what sampling and editing meet, see `as_in_sampling`; only targets are partly masked.
    "raster" (ours): the same of generation alone. "paper": one uniform token mask on the whole grid for the local
    tokens, an independent mask of whole blocks for the global ones (Sec. 3.3); targets are blocks masked there.
    """
    if masks not in MASKS:
        raise InputError(f"the generator's masks are one of {', '.join(MASKS)}, not {masks!r}")
    batch, h, w = ids.shape
    mask_id, number = model.codes, targets or model.blocks
    rng_draw, rng_share, rng_mask = jax.random.split(rng, 3)
    gather = jax.vmap(lambda grid, index: grid.reshape(-1)[index])
    ring_index, target_index = (jnp.asarray(x) for x in layout(h, w, model.window, model.extend))

    def draw(key, shape):
        return decoding.gamma("cosine", jax.random.uniform(key, shape))  # r < 1, so that gamma > 0

    def token_share(shape):
        return draw(rng_share, shape) if share is None else jnp.full(shape, share)

    if masks == "paper":
        rng_count, rng_block, rng_target = jax.random.split(rng_draw, 3)
        masked_blocks = random_mask(rng_block, jnp.ones((batch, model.blocks), bool), draw(rng_count, (batch,)))
        ranked = jnp.argsort(-jax.random.uniform(rng_target, masked_blocks.shape) * masked_blocks, axis=-1)
        slot = jnp.arange(number)[None] % jnp.sum(masked_blocks, axis=-1, keepdims=True)
        block = jnp.take_along_axis(ranked, slot, axis=-1).astype(jnp.int32)
        blocks = jnp.where(masked_blocks[..., None], mask_id, blocks_of(ids, model.window))
        known = ~random_mask(rng_mask, jnp.ones((batch, h * w), bool), token_share((batch,))).reshape(batch, h, w)
        is_masked = ~gather(known, target_index[block])
        grid = grid_of(blocks, h, w, model.window)
    else:
        hidden, known, block = as_in_sampling(model, rng_draw, batch, number, edits=masks == "matched")
        candidates = gather(hidden, target_index[block])
        is_masked = random_mask(rng_mask, candidates, token_share((batch, number)))
        grid = jnp.where(known, ids, mask_id)
    index = ring_index[block]
    ring = jnp.where((index != NOWHERE) & gather(known, index), gather(ids, index), mask_id)
    target = gather(ids, target_index[block])
    inputs = {"grid": grid, "ring": ring, "target": jnp.where(is_masked, mask_id, target), "block": block}
    return inputs, target, is_masked
