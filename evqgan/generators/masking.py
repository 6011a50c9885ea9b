"""What a generator over blocks trains on: which blocks it predicts, and what is known then.

Paper, Sec. 3.3.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError
from evqgan.generators.blocks import NOWHERE, blocks_of, ring_and_target, step_of_block
from evqgan.generators.mask_schedule import gamma

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
    rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)
    return candidates & (rank < count[..., None])


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
    model: Any,
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
    geometry = h, w, model.window, model.extend
    raster = jnp.asarray(step_of_block(*geometry, "raster"))[None]
    wavefront = jnp.asarray(step_of_block(*geometry, "wavefront"))[None]
    is_wavefront = jax.random.bernoulli(rng_order, wavefronts, (batch, 1))
    return hidden, rank_blocks(hidden, jnp.where(is_wavefront, wavefront, raster), model.window)


def rank_blocks(hidden: jax.Array, step: jax.Array, window: int) -> jax.Array:
    """Return ranks, int32 [B,blocks]: 0 for a known block, else 1 + the step that generates it.

    A block of which only a part is hidden is generated, too.

    hidden: bool [B,h,w]; step: int32 [B or 1,blocks].
    """
    return jnp.where(jnp.any(blocks_of(hidden, window), axis=-1), step + 1, 0)


def corrupt(
    model: Any,
    ids: jax.Array,
    rng: jax.Array,
    masks: str,
    targets: int,
    share: float | None = None,
    edits: float = EDITS,
    wavefronts: float = WAVEFRONTS,
) -> tuple[dict[str, Any], jax.Array, jax.Array]:
    """Draw K target blocks of each image and mask some of their tokens.

    Returns the inputs of `multigrained_network.Model` (all but the label), the target ids [B,K,T],
    and which of them are masked [B,K,T]. Raises InputError for settings that make no sense.

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
    check(model, masks, targets, edits, wavefronts)
    rng_moment, rng_block, rng_share, rng_mask = jax.random.split(rng, 4)
    batch, number = ids.shape[0], targets or model.blocks
    if masks == "paper":
        rngs = rng_moment, rng_block, rng_share, rng_mask
        return corrupt_as_in_paper(model, ids, number, share, rngs)
    edits, wavefronts = (0.0, 0.0) if masks == "raster" else (edits, wavefronts)
    hidden, rank = draw_generations(model, rng_moment, batch, edits, wavefronts)
    block, is_candidate = draw_blocks(rng_block, rank > 0, number)
    target_rank = jnp.take_along_axis(rank, block, axis=-1)[..., None]  # [B,K,1]
    of_blocks = ring_and_target(*model.latent, model.window, model.extend)
    ring_index, target_index = (jnp.asarray(x)[block] for x in of_blocks)
    token_rank = rank[:, block_of_token(model)]  # [B,h*w]

    is_known = ~gather(hidden, ring_index) | (gather(token_rank, ring_index) < target_rank)
    is_known &= ring_index != NOWHERE
    candidates = gather(hidden, target_index) & is_candidate[..., None]
    shares = draw_share(rng_share, (batch, number), share)
    is_masked = random_mask(rng_mask, candidates, shares)
    if model.global_tokens == "ordered":
        inputs = {"grid": ids[:, None], "rank": rank}
    else:
        is_seen = ~hidden.reshape(batch, 1, -1) | (token_rank[:, None] < target_rank)  # [B,K,h*w]
        grid = jnp.where(is_seen, ids.reshape(batch, 1, -1), model.codes)
        inputs = {"grid": grid.reshape(batch, number, *model.latent)}
    target = gather(ids, target_index)
    inputs["ring"] = jnp.where(is_known, gather(ids, ring_index), model.codes)
    inputs["target"] = jnp.where(is_masked, model.codes, target)
    inputs["block"] = block
    return inputs, target, is_masked


def corrupt_as_in_paper(
    model: Any,
    ids: jax.Array,
    number: int,
    share: float | None,
    rngs: tuple[jax.Array, ...],
) -> tuple[dict[str, Any], jax.Array, jax.Array]:
    """Return `corrupt` by the paper's masks (Sec. 3.3).

    Every block may be a target; its own global token is masked anyhow.
    """
    rng_blocks, rng_block, rng_share, rng_mask = rngs
    batch, (h, w) = ids.shape[0], model.latent
    every_block = jnp.ones((batch, model.blocks), bool)
    block_shares = draw_share(jax.random.fold_in(rng_share, 1), (batch,), None)
    hidden = random_mask(rng_blocks, every_block, block_shares)
    block, _ = draw_blocks(rng_block, every_block, number)
    shares = draw_share(rng_share, (batch,), share)
    mask = random_mask(rng_mask, jnp.ones((batch, h * w), bool), shares)
    of_blocks = ring_and_target(h, w, model.window, model.extend)
    ring_index, target_index = (jnp.asarray(x)[block] for x in of_blocks)
    is_masked, target = gather(mask, target_index), gather(ids, target_index)
    is_known = (ring_index != NOWHERE) & ~gather(mask, ring_index)
    flat = ids.reshape(batch, -1)
    grid = jnp.where(hidden[:, block_of_token(model)], model.codes, flat).reshape(batch, 1, h, w)
    inputs = {
        "grid": jnp.broadcast_to(grid, (batch, number, h, w)),
        "ring": jnp.where(is_known, gather(ids, ring_index), model.codes),
        "target": jnp.where(is_masked, model.codes, target),
        "block": block,
    }
    return inputs, target, is_masked


def check(model: Any, masks: str, targets: int, edits: float, wavefronts: float) -> None:
    """Raise InputError for settings of `corrupt` that make no sense."""
    if not 0 <= targets <= model.blocks:
        expected = f"0 (all) or up to the {model.blocks} blocks"
        raise InputError(f"the generator's targets are {expected}, got {targets}")
    if not (0 <= edits <= 1 and 0 <= wavefronts <= 1):
        given = f"{edits} and {wavefronts}"
        raise InputError(f"the shares of edits and wavefronts lie in [0, 1], got {given}")
    if masks == "paper" and model.global_tokens == "ordered":
        needed = 'generator.global_tokens = "masked"'
        raise InputError(f'masks = "paper" hides random blocks: it needs {needed}')


def draw_share(rng: jax.Array, shape: tuple[int, ...], share: float | None) -> jax.Array:
    """Return the share of tokens to mask, gamma(r) with r uniform (paper, Sec. 3.3).

    share: taken instead, where it is given.
    """
    if share is not None:
        return jnp.full(shape, share)
    return gamma("cosine", jax.random.uniform(rng, shape))  # r < 1, so that gamma > 0


def gather(grid: jax.Array, index: jax.Array) -> jax.Array:
    """Return the tokens at flat positions `index` int32 [B,K,S]; anything where it is NOWHERE.

    grid: [B,h,w] or [B,h*w].
    """
    return jax.vmap(lambda row, at: row.reshape(-1)[at])(grid, index)


def block_of_token(model: Any) -> np.ndarray:
    """Return the block that each token of the grid lies in, int32 NumPy [h*w]."""
    (h, w), side = model.latent, model.window
    blocks = np.arange(model.blocks, dtype=np.int32).reshape(h // side, w // side)
    return blocks.repeat(side, 0).repeat(side, 1).reshape(-1)
