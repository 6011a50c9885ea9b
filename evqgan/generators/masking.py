"""What a generator over blocks trains on: which blocks it predicts, and what is known then.

Paper, Sec. 3.3.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.generators.blocks import NOWHERE, blocks_of, ring_and_target, step_of_block
from evqgan.generators.mask_schedule import gamma, lowest
from evqgan.generators.multigrained_network import Model

EDITS = 0.1  # ours: the share of images in which a rectangle is generated, and not the whole
WAVEFRONTS = 0.05  # ours: the share of images whose blocks come as a wavefront, not in raster order
Masks = Literal["matched", "raster", "paper"]


def random_mask(rng: jax.Array, candidates: jax.Array, share: jax.Array) -> jax.Array:
    """Return bool [...,N], True for ceil(share * n) random ones of the n candidates (Sec. 3.3).

    All is False where there is no candidate.

    candidates: bool [...,N]; share: [...] in (0, 1].
    """
    count = jnp.ceil(share * jnp.sum(candidates, axis=-1)).astype(jnp.int32)
    scores = jnp.where(candidates, jax.random.uniform(rng, candidates.shape), jnp.inf)
    return candidates & lowest(scores, count)


def random_rectangle(rng: jax.Array, batch: int, h: int, w: int) -> jax.Array:
    """Return bool [B,h,w], True in a rectangle of random sides at a random position."""

    def side(key: jax.Array, length: int) -> jax.Array:
        key_size, key_start = jax.random.split(key)
        size = jax.random.randint(key_size, (batch, 1), 1, length + 1)
        start = jnp.floor(jax.random.uniform(key_start, (batch, 1)) * (length - size + 1))
        start = start.astype(jnp.int32)
        at = jnp.arange(length)[None]
        return (at >= start) & (at < start + size)

    key_h, key_w = jax.random.split(rng)
    return side(key_h, h)[:, :, None] & side(key_w, w)[:, None]


def draw_blocks(
    rng: jax.Array,
    candidates: jax.Array,
    number: int,
) -> tuple[jax.Array, jax.Array]:
    """Draw `number` different candidates of each image, evenly over blocks.

    Returns block int32 [B,number], and which of them are candidates, bool [B,number]: where an
    image has fewer than `number`, the rest are not.

    The blocks stand in a circle in a random order; an image takes the next ones from where the
    image before it stopped. So as many images as there are blocks hold each of them once (if
    number = 1 and all are candidates).

    candidates: bool [B,blocks].
    """
    batch, blocks = candidates.shape
    rng_circle, rng_start = jax.random.split(rng)
    position = jax.random.permutation(rng_circle, blocks)
    first = jax.random.randint(rng_start, (), 0, blocks)
    start = (jnp.arange(batch) * number + first) % blocks
    distance = (position[None] - start[:, None]) % blocks + jnp.where(candidates, 0, blocks)
    block = jnp.argsort(distance, axis=-1)[:, :number].astype(jnp.int32)
    return block, jnp.take_along_axis(candidates, block, axis=-1)


def draw_generations(
    model: Model,
    rng: jax.Array,
    batch: int,
    edits: float,
    wavefronts: float,
) -> tuple[jax.Array, jax.Array]:
    """Draw which tokens of each image are generated, and in which order.

    Returns the hidden tokens, bool [B,h,w], and the ranks of the blocks, see `rank_blocks`.

    edits: the share of images in which a random rectangle is hidden, as in editing; in all others
      the whole image is.
    wavefronts: the share of images whose blocks come in wavefront order; in all others they come in
      raster order (`blocks.step_of_block`).
    """
    h, w = model.latent
    rng_kind, rng_rectangle, rng_order = jax.random.split(rng, 3)
    rectangle = random_rectangle(rng_rectangle, batch, h, w)
    hidden = rectangle | ~jax.random.bernoulli(rng_kind, edits, (batch, 1, 1))
    raster = jnp.asarray(step_of_block(*model.layout, "raster"))[None]
    wavefront = jnp.asarray(step_of_block(*model.layout, "wavefront"))[None]
    is_wavefront = jax.random.bernoulli(rng_order, wavefronts, (batch, 1))
    steps = jnp.where(is_wavefront, wavefront, raster)
    return hidden, rank_blocks(hidden, steps, model.layout.window)


def rank_blocks(hidden: jax.Array, step: jax.Array, window: int) -> jax.Array:
    """Return ranks, int32 [B,blocks]: 0 for a known block, else 1 + the step that generates it.

    A block of which only a part is hidden is generated, too.

    hidden: bool [B,h,w]; step: int32 [B or 1,blocks].
    """
    return jnp.where(jnp.any(blocks_of(hidden, window), axis=-1), step + 1, 0)


class Corrupted(NamedTuple):
    """What a network trains on: a batch with K target blocks an image, partly masked."""

    inputs: dict[str, Any]  # of `multigrained_network.Model`, all but the label
    target: jax.Array  # int32 [B,K,T], the ids of the target blocks
    is_masked: jax.Array  # bool [B,K,T], which of them are to be predicted


def corrupt(
    model: Model,
    ids: jax.Array,
    rng: jax.Array,
    masks: Masks,
    targets: int,
    share: float | jax.Array | None = None,
    edits: float = EDITS,
    wavefronts: float = WAVEFRONTS,
) -> Corrupted:
    """Draw K target blocks of each image and mask some of their tokens.

    Raises InputError for settings that make no sense.

    ids: int32 [B,h,w].
    masks: "matched" (ours): the states that sampling and editing meet, see `draw_generations`. A
      target sees what is known when it is generated, and only its own tokens are partly masked.
      "raster" (ours): the same for generation in raster order alone, as edits = wavefronts = 0.
      "paper": one uniform token mask on the whole grid for the local tokens, and an independent
      mask of whole blocks for the global ones (Sec. 3.3).
    targets: K, random blocks of each image, see `draw_blocks`; 0 = all blocks.
    share: the share of a target's hidden tokens that is masked; None draws it by the cosine
      schedule, gamma(r) with r uniform.
    edits, wavefronts: see `draw_generations`.
    """
    if not 0 <= targets <= model.blocks:
        expected = f"0 (all) or up to the {model.blocks} blocks"
        raise InputError(f"the generator's targets are {expected}, got {targets}")
    number = targets or model.blocks
    if masks == "paper":
        return corrupt_as_in_paper(model, ids, rng, number, share)
    if masks == "raster":
        edits = wavefronts = 0.0
    return corrupt_as_in_sampling(model, ids, rng, number, share, edits, wavefronts)


def corrupt_as_in_sampling(
    model: Model,
    ids: jax.Array,
    rng: jax.Array,
    number: int,
    share: float | jax.Array | None,
    edits: float,
    wavefronts: float,
) -> Corrupted:
    """Return `corrupt` by what sampling and editing know when they generate a target block.

    number: K; else as in `corrupt`.
    """
    rng_moment, rng_block, rng_share, rng_mask = jax.random.split(rng, 4)
    batch = ids.shape[0]
    hidden, rank = draw_generations(model, rng_moment, batch, edits, wavefronts)
    block, is_candidate = draw_blocks(rng_block, rank > 0, number)
    target_rank = jnp.take_along_axis(rank, block, axis=-1)[..., None]  # [B,K,1]
    ring_index, target_index = positions_of(model, block)
    token_rank = rank[:, model.layout.block_of_token()]  # [B,h*w]

    is_known = ~gather(hidden, ring_index) | (gather(token_rank, ring_index) < target_rank)
    candidates = gather(hidden, target_index) & is_candidate[..., None]
    shares = draw_share(rng_share, (batch, number), share)
    is_masked = random_mask(rng_mask, candidates, shares)
    if model.global_tokens == "ordered":
        of_globals = {"grid": ids[:, None], "rank": rank}
    else:
        is_seen = ~hidden.reshape(batch, 1, -1) | (token_rank[:, None] < target_rank)  # [B,K,h*w]
        grid = jnp.where(is_seen, ids.reshape(batch, 1, -1), model.codes)
        of_globals = {"grid": grid.reshape(batch, number, *model.latent)}
    return with_local(model, ids, block, is_known, is_masked, of_globals)


def corrupt_as_in_paper(
    model: Model, ids: jax.Array, rng: jax.Array, number: int, share: float | jax.Array | None
) -> Corrupted:
    """Return `corrupt` by the paper's masks (Sec. 3.3).

    Every block may be a target; its own global token is masked anyhow. number: K; else as in
    `corrupt`.
    """
    if model.global_tokens == "ordered":
        needed = 'generator.global_tokens = "masked"'
        raise InputError(f'masks = "paper" hides random blocks: it needs {needed}')
    rng_blocks, rng_block, rng_share, rng_mask = jax.random.split(rng, 4)
    batch, (h, w) = ids.shape[0], model.latent
    every_block = jnp.ones((batch, model.blocks), bool)
    block_shares = draw_share(jax.random.fold_in(rng_share, 1), (batch,), None)
    hidden = random_mask(rng_blocks, every_block, block_shares)
    block, _ = draw_blocks(rng_block, every_block, number)
    shares = draw_share(rng_share, (batch,), share)
    mask = random_mask(rng_mask, jnp.ones((batch, h * w), bool), shares)
    ring_index, target_index = positions_of(model, block)
    is_known, is_masked = ~gather(mask, ring_index), gather(mask, target_index)
    is_hidden = hidden[:, model.layout.block_of_token()]
    grid = jnp.where(is_hidden, model.codes, ids.reshape(batch, -1)).reshape(batch, 1, h, w)
    of_globals = {"grid": jnp.broadcast_to(grid, (batch, number, h, w))}
    return with_local(model, ids, block, is_known, is_masked, of_globals)


def with_local(
    model: Model,
    ids: jax.Array,
    block: jax.Array,
    is_known: jax.Array,
    is_masked: jax.Array,
    of_globals: dict[str, jax.Array],
) -> Corrupted:
    """Return what a network trains on, given the inputs of its global tokens.

    block: int32 [B,K], the targets. is_known: bool [B,K,R], which tokens of their rings they see,
      anything where there is none. is_masked: bool [B,K,T], which tokens of their own they do not.
    """
    ring_index, target_index = positions_of(model, block)
    is_known &= ring_index != NOWHERE
    target = gather(ids, target_index)
    local = {
        "ring": jnp.where(is_known, gather(ids, ring_index), model.codes),
        "target": jnp.where(is_masked, model.codes, target),
        "block": block,
    }
    return Corrupted({**of_globals, **local}, target, is_masked)


def positions_of(model: Model, block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the flat positions of rings [B,K,R] and targets [B,K,T] of blocks int32 [B,K]."""
    ring, target = ring_and_target(*model.layout)
    return jnp.asarray(ring)[block], jnp.asarray(target)[block]


def draw_share(
    rng: jax.Array, shape: tuple[int, ...], share: float | jax.Array | None
) -> jax.Array:
    """Return the share of tokens to mask, gamma(r) with r uniform (paper, Sec. 3.3).

    share: taken instead, where it is given.
    """
    if share is not None:
        return jnp.full(shape, share)
    return gamma("cosine", jax.random.uniform(rng, shape))


def gather(grid: jax.Array, index: jax.Array) -> jax.Array:
    """Return the tokens at flat positions `index` int32 [B,K,S]; anything where it is NOWHERE.

    grid: [B,h,w] or [B,h*w].
    """
    return jax.vmap(lambda row, at: row.reshape(-1)[at])(grid, index)
