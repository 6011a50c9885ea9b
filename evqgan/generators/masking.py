"""What a generator over blocks trains on: which blocks it predicts, and what is known then (paper, Sec. 3.3)."""

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError
from evqgan.generators import decoding
from evqgan.generators.blocks import NOWHERE, ORDERS, blocks_of, layout, turns

EDITS = 0.1  # ours: the share of images in which a rectangle is generated, and not the whole
WAVEFRONTS = 0.05  # ours: the share of images whose blocks come in this order instead of raster order
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


def in_turn(rng, candidates, number):
    """Draws `number` different candidates of each image, evenly over blocks -> block [B,number] int32, real bool.

    candidates: bool [B,blocks]. The blocks stand in a circle in a random order; an image takes the next ones from where
    the image before it stopped, so that as many moments as there are blocks hold each of them once, if all are
    candidates. Where an image has fewer than `number`, the rest are not `real`.
    """
    batch, blocks = candidates.shape
    rng_circle, rng_start = jax.random.split(rng)
    place = jax.random.permutation(rng_circle, blocks)
    start = (jnp.arange(batch) * number + jax.random.randint(rng_start, (), 0, blocks)) % blocks
    distance = (place[None] - start[:, None]) % blocks + jnp.where(candidates, 0, blocks)
    block = jnp.argsort(distance, axis=-1)[:, :number].astype(jnp.int32)
    return block, jnp.take_along_axis(candidates, block, axis=-1)


def generations(model, rng, batch, edits, wavefronts):
    """What is generated and when -> hidden bool [B,h,w], rank int32 [B,blocks]: 0 of blocks given whole, else its turn.

    The whole image is hidden, or, in the share `edits` of images, a rectangle; blocks come in raster order, or, in the
    share `wavefronts`, as a wavefront. A block of which a part is hidden has a turn, too.
    """
    h, w = model.latent
    rng_kind, rng_rectangle, rng_order = jax.random.split(rng, 3)
    rectangle = random_rectangle(rng_rectangle, batch, h, w)
    hidden = rectangle | ~jax.random.bernoulli(rng_kind, edits, (batch, 1, 1))
    raster, wavefront = (jnp.asarray(turns(h, w, model.window, model.extend, name)) for name in ORDERS)
    turn = jnp.where(jax.random.bernoulli(rng_order, wavefronts, (batch, 1)), wavefront[None], raster[None])
    return hidden, ranked(hidden, turn, model.window)


def ranked(hidden, turn, window):
    """hidden bool [B,h,w], turn int32 [B or 1,blocks] -> rank int32 [B,blocks], see `generations`."""
    return jnp.where(jnp.any(blocks_of(hidden, window), axis=-1), turn + 1, 0)


def corrupt(model, ids, rng, masks, targets, share=None, edits=EDITS, wavefronts=WAVEFRONTS):
    """Draws targets and masks -> inputs of `Model.__call__` (but the label), target ids, is_masked, both [B,K,T].

    ids [B,h,w] int32. targets: K random blocks an image, or 0 = all of them; see `in_turn`. share: of the hidden tokens
    of a target that are masked; None draws it by the cosine schedule, gamma(r) with r uniform.

    masks "matched" (ours): what sampling and editing meet, see `generations`: each target sees what is there when its
    turn comes, and only itself is partly masked. "raster" (ours): the same of generation in raster order alone, edits =
    wavefronts = 0. "paper": one uniform token mask on the whole grid for the local tokens, an independent mask of whole
    blocks for the global ones (Sec. 3.3). InputError for other masks, and for more targets than there are blocks.
    """
    check(model, masks, targets, edits, wavefronts)
    rng_moment, rng_block, rng_share, rng_mask = jax.random.split(rng, 4)
    batch, number = len(ids), targets or model.blocks
    if masks == "paper":
        return as_in_paper(model, ids, number, share, (rng_moment, rng_block, rng_share, rng_mask))
    edits, wavefronts = (0.0, 0.0) if masks == "raster" else (edits, wavefronts)
    hidden, rank = generations(model, rng_moment, batch, edits, wavefronts)
    block, real = in_turn(rng_block, rank > 0, number)
    now = jnp.take_along_axis(rank, block, axis=-1)[..., None]  # [B,K,1]
    ring_index, target_index = (jnp.asarray(x)[block] for x in layout(*model.latent, model.window, model.extend))
    of_token = rank[:, block_at(model)]  # [B,h*w]

    def known(index):
        return ~gather(hidden, index) | (gather(of_token, index) < now)

    candidates = gather(hidden, target_index) & real[..., None]
    is_masked = random_mask(rng_mask, candidates, drawn_share(rng_share, (batch, number), share))
    ring = jnp.where((ring_index != NOWHERE) & known(ring_index), gather(ids, ring_index), model.codes)
    if model.global_tokens == "ordered":
        inputs = {"grid": ids[:, None], "rank": rank}
    else:
        seen = ~hidden.reshape(batch, 1, -1) | (of_token[:, None] < now)  # [B,K,h*w]
        grid = jnp.where(seen, ids.reshape(batch, 1, -1), model.codes)
        inputs = {"grid": grid.reshape(batch, number, *model.latent)}
    target = gather(ids, target_index)
    inputs |= {"ring": ring, "target": jnp.where(is_masked, model.codes, target), "block": block}
    return inputs, target, is_masked


def as_in_paper(model, ids, number, share, rngs):
    """`corrupt` by the paper's masks (Sec. 3.3); every block may be a target, its own global token is masked anyhow."""
    rng_blocks, rng_block, rng_share, rng_mask = rngs
    batch, (h, w) = len(ids), model.latent
    every = jnp.ones((batch, model.blocks), bool)
    hidden = random_mask(rng_blocks, every, drawn_share(jax.random.fold_in(rng_share, 1), (batch,), None))
    block, _ = in_turn(rng_block, every, number)
    mask = random_mask(rng_mask, jnp.ones((batch, h * w), bool), drawn_share(rng_share, (batch,), share))
    ring_index, target_index = (jnp.asarray(x)[block] for x in layout(h, w, model.window, model.extend))
    is_masked, target = gather(mask, target_index), gather(ids, target_index)
    ring = jnp.where((ring_index != NOWHERE) & ~gather(mask, ring_index), gather(ids, ring_index), model.codes)
    grid = jnp.where(hidden[:, block_at(model)], model.codes, ids.reshape(batch, -1)).reshape(batch, 1, h, w)
    inputs = {
        "grid": jnp.broadcast_to(grid, (batch, number, h, w)), "ring": ring,
        "target": jnp.where(is_masked, model.codes, target), "block": block,
    }  # fmt: skip
    return inputs, target, is_masked


def check(model, masks, targets, edits, wavefronts):
    """InputError for settings of `corrupt` that make no sense."""
    if masks not in MASKS:
        raise InputError(f"the generator's masks are one of {', '.join(MASKS)}, not {masks!r}")
    if not 0 <= targets <= model.blocks:
        raise InputError(f"the generator's targets are 0 (all) or up to the {model.blocks} blocks, got {targets}")
    if not (0 <= edits <= 1 and 0 <= wavefronts <= 1):
        raise InputError(f"the shares of edits and wavefronts lie in [0, 1], got {edits} and {wavefronts}")
    if masks == "paper" and model.global_tokens == "ordered":
        raise InputError('masks = "paper" hides random blocks: it needs generator.global_tokens = "masked"')


def drawn_share(rng, shape, share):
    """The share of tokens to mask, gamma(r) with r uniform (paper, Sec. 3.3), or `share` where it is given."""
    if share is not None:
        return jnp.full(shape, share)
    return decoding.gamma("cosine", jax.random.uniform(rng, shape))  # r < 1, so that gamma > 0


def gather(grid, index):
    """grid [B,h,w] or [B,h*w], index int32 [B,K,S] of flat places -> [B,K,S]; where it is NOWHERE, anything."""
    return jax.vmap(lambda row, at: row.reshape(-1)[at])(grid, index)


def block_at(model):
    """The block that each token of the grid lies in: int32 [h*w], NumPy."""
    (h, w), side = model.latent, model.window
    blocks = np.arange(model.blocks, dtype=np.int32).reshape(h // side, w // side)
    return blocks.repeat(side, 0).repeat(side, 1).reshape(-1)
