"""Sampling loops as pure functions of a logits function: mask-predict, and mask-predict block by block.

Nothing here knows a model, parameters or images. A token that is not known yet holds the id `codes` (= V, [MASK]).
Every image has its own random key, so that what it becomes depends on neither the batch around it nor its place in it.
"""

import functools
import math

import jax
import jax.numpy as jnp

from evqgan.core.build import nearest
from evqgan.core.errors import InputError


def cosine(ratio):
    """The share of tokens still masked at `ratio` in [0, 1]: gamma(r) = cos(pi r / 2) (paper and MaskGIT, Sec. 3.3)."""
    return jnp.cos(math.pi / 2 * ratio)


def linear(ratio):
    """gamma(r) = 1 - r (MaskGIT, Sec. 4.4)."""
    return 1.0 - ratio


SCHEDULES = {"cosine": cosine, "linear": linear}


def number_masked(step, steps, unknown_at_start, unknown_now, schedule="cosine"):
    """How many tokens [B] int32 stay masked after `step` (0-based) of `steps`.

    floor(gamma((step + 1) / steps) * unknown_at_start), but at least 1 and fewer than now, as in MaskGIT's code, and 0
    after the last step (MaskGIT re-masks one there too and reads the tokens from before).
    """
    ratio = (step + 1) / steps
    gamma = jnp.clip(SCHEDULES[schedule](ratio), 1e-6, 1.0)  # 1e-6: MaskGIT's code
    count = jnp.floor(unknown_at_start * gamma).astype(jnp.int32)
    count = jnp.maximum(1, jnp.minimum(unknown_now - 1, count))
    return jnp.where((step + 1 >= steps) | (unknown_now == 0), 0, count)


def lowest(confidence, count):
    """True [B,N] for the `count` [B] entries of `confidence` [B,N] that are lowest; ties go to the left."""
    order = jnp.argsort(confidence, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True)
    return rank < count[:, None]


def gumbel(keys, shape):
    """Gumbel noise [B,*shape] float32, one key [B] an image."""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32))(keys)


def mask_predict(
    tokens_to_logits, tokens, keys, *, codes, steps=8, temperature=1.0, choice_temperature=4.5, schedule="cosine"
):
    """Fills the masked tokens of `tokens` [B,N] int32 (MASK = `codes`) in `steps` parallel steps -> [B,N] int32.

    MaskGIT, Sec. 3.3 (the paper's in-block decoding): every step samples all masked tokens from
    `tokens_to_logits(tokens) -> [B,N,V]` and masks again those it is least sure of. Confidence is
    log p(sampled) + choice_temperature * (1 - ratio) * Gumbel noise. Known tokens are never changed.
    `keys` [B]: one random key an image. `temperature` divides the logits before sampling; 0 takes the likeliest code.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"the sampler's schedule is {schedule!r}: {nearest(schedule, SCHEDULES)}")
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"the sampler's steps are a whole number from 1, not {steps!r}")
    if min(temperature, choice_temperature) < 0:
        raise InputError(f"the sampler's temperatures are not negative, got {temperature} and {choice_temperature}")
    number = tokens.shape[1]
    unknown_at_start = jnp.sum(tokens == codes, axis=-1)

    def step(t, tokens):
        logits = tokens_to_logits(tokens).astype(jnp.float32)
        keys_t = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        keys_code, keys_choice = jnp.moveaxis(jax.vmap(jax.random.split)(keys_t), 1, 0)
        noise = gumbel(keys_code, (number, codes))
        sampled = jnp.argmax(logits + temperature * noise, axis=-1).astype(
            jnp.int32
        )  # Gumbel-max, logits / temperature
        unknown = tokens == codes
        sampled = jnp.where(unknown, sampled, tokens)

        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), sampled[..., None], axis=-1)[..., 0]
        noise = gumbel(keys_choice, (number,))
        confidence = log_p + choice_temperature * (1 - (t + 1) / steps) * noise
        confidence = jnp.where(unknown, confidence, jnp.inf)
        count = number_masked(t, steps, unknown_at_start, jnp.sum(unknown, axis=-1), schedule)
        return jnp.where(lowest(confidence, count), codes, sampled)

    return jax.lax.fori_loop(0, steps, step, tokens)


def blocks_of(grid, window):
    """[B,h,w] -> [B, blocks, window * window]: blocks in raster order, each in raster order."""
    b, h, w = grid.shape
    x = grid.reshape(b, h // window, window, w // window, window)
    return x.transpose(0, 1, 3, 2, 4).reshape(b, -1, window * window)


def grid_of(blocks, h, w, window):
    """The inverse of `blocks_of`."""
    x = blocks.reshape(blocks.shape[0], h // window, w // window, window, window)
    return x.transpose(0, 1, 3, 2, 4).reshape(-1, h, w)


def block_raster(context, ids, mask, keys, *, window, codes, **in_block):
    """Generates `ids` [B,h,w] int32 where `mask` [B,h,w] is True, block by block in raster order -> [B,h,w] int32.

    Paper, Sec. 3.3: autoregressive over blocks of `window` x `window` tokens, `mask_predict` (its arguments:
    `in_block`) inside each. `context(grid, block)` is called once a block with the grid as it stands (MASK = `codes`)
    and the block's number (traced: one compilation serves all blocks), and returns `tokens_to_logits`
    ([B, window*window] -> [B, window*window, V]) for that block. Blocks that hold nothing to generate are skipped.
    """
    _, h, w = ids.shape
    if h % window or w % window:
        raise ValueError(f"a grid of {h} x {w} tokens cannot be cut into blocks of {window} x {window}")
    start = blocks_of(jnp.where(mask, codes, ids), window)

    def fill(block, blocks):
        tokens_to_logits = context(grid_of(blocks, h, w, window), block)
        tokens = jax.lax.dynamic_index_in_dim(blocks, block, 1, keepdims=False)
        keys_b = jax.vmap(jax.random.fold_in, (0, None))(keys, block)
        tokens = mask_predict(tokens_to_logits, tokens, keys_b, codes=codes, **in_block)
        return jax.lax.dynamic_update_index_in_dim(blocks, tokens, block, 1)

    def step(block, blocks):
        tokens = jax.lax.dynamic_index_in_dim(blocks, block, 1, keepdims=False)
        return jax.lax.cond(jnp.any(tokens == codes), functools.partial(fill, block), lambda b: b, blocks)

    return grid_of(jax.lax.fori_loop(0, start.shape[1], step, start), h, w, window)
