"""Sampling loops as pure functions of a logits function: mask-predict, the same block by block, one code at a time.

Nothing here knows a model, parameters or images. A token that is not known yet holds the id `codes` (= V, [MASK]).
Every image has its own random key, so that what it becomes depends on neither the batch around it nor its place in it.
"""

import math
import re
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.build import nearest
from evqgan.core.errors import InputError
from evqgan.core.kinds import Text
from evqgan.generators.blocks import NOWHERE, blocks_of, fronts, grid_of

SCHEDULES = ("cosine", "linear", "square", "cubic", "root", "log", "exp")  # MaskGIT, Sec. 4.4; and "pow2.5" etc.
Schedule = Annotated[str, Text(r"pow\d+\.?\d*|" + "|".join(SCHEDULES), f"one of {', '.join(SCHEDULES)}, or pow2.5")]
POWERS = {"linear": 1.0, "square": 2.0, "cubic": 3.0, "root": 0.5}


def gamma(schedule, ratio, number=2):
    """The share of tokens still masked at `ratio` in [0, 1] -> float32 in [1e-6, 1].

    "cosine": cos(pi r / 2) (paper and MaskGIT, Sec. 3.3); "linear", "square", "cubic", "root" and "pow<a>": 1 - r^a;
    "log" and "exp" depend on the `number` of tokens, too. All as MaskGIT's code has them, 1e-6 included.
    """
    power = re.fullmatch(r"pow(\d+\.?\d*)", schedule)
    if schedule not in SCHEDULES and not power:
        raise InputError(f"the sampler's schedule is {schedule!r}: {nearest(schedule, [*SCHEDULES, 'pow2.5'])}")
    bits = jnp.log2(jnp.maximum(number, 2).astype(jnp.float32))
    if schedule == "cosine":
        share = jnp.cos(math.pi / 2 * ratio)
    elif schedule == "log":
        share = -jnp.log2(ratio) / bits
    elif schedule == "exp":
        share = 1 - jnp.exp2(-bits * (1 - ratio))
    else:
        share = 1.0 - ratio ** (float(power[1]) if power else POWERS[schedule])
    return jnp.clip(share, 1e-6, 1.0)


def number_masked(step, steps, unknown_at_start, unknown_now, schedule="cosine"):
    """How many tokens [B] int32 stay masked after `step` (0-based) of `steps`.

    floor(gamma((step + 1) / steps) * unknown_at_start), but at least 1 and fewer than now, as in MaskGIT's code, and 0
    after the last step (MaskGIT re-masks one there too and reads the tokens from before).
    """
    share = gamma(schedule, (step + 1) / steps, unknown_at_start)
    count = jnp.floor(unknown_at_start * share).astype(jnp.int32)
    count = jnp.maximum(1, jnp.minimum(unknown_now - 1, count))
    return jnp.where((step + 1 >= steps) | (unknown_now == 0), 0, count)


def lowest(confidence, count):
    """True [B,N] for the `count` [B] entries of `confidence` [B,N] that are lowest; ties go to the left."""
    order = jnp.argsort(confidence, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True)
    return rank < count[:, None]


def restrict(logits, top_k=0, top_p=1.0):
    """logits [...,V] with -inf where a code may not be sampled.

    top_k: only the k likeliest codes (0 = all; codes as likely as the k-th stay). top_p: only the likeliest ones that
    together reach this probability (nucleus sampling, Holtzman et al., ICLR 2020); the likeliest one always.
    """
    if not top_k and top_p >= 1:
        return logits
    ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    least = ranked[..., min(top_k, logits.shape[-1]) - 1] if top_k else jnp.full(logits.shape[:-1], -jnp.inf)
    if top_p < 1:
        ranked = jnp.where(ranked < least[..., None], -jnp.inf, ranked)
        share = jax.nn.softmax(ranked, axis=-1)
        reached = jnp.cumsum(share, axis=-1) - share  # by the codes before
        last = jnp.sum(reached <= top_p, axis=-1, keepdims=True) - 1
        least = jnp.maximum(least, jnp.take_along_axis(ranked, last, axis=-1)[..., 0])
    return jnp.where(logits < least[..., None], -jnp.inf, logits)


def draw(logits, noise, temperature=1.0, top_k=0, top_p=1.0):
    """One code of each of logits [...,V] -> int32 [...], by Gumbel `noise` [...,V]; temperature 0: the likeliest."""
    allowed = restrict(logits / jnp.maximum(temperature, 1e-6), top_k, top_p) > -jnp.inf
    scores = logits + temperature * noise  # Gumbel-max of logits / temperature
    return jnp.argmax(jnp.where(allowed, scores, -jnp.inf), axis=-1).astype(jnp.int32)


def check_drawing(temperatures, top_k, top_p):
    """InputError for settings of `draw` that make no sense."""
    if min(temperatures) < 0:
        given = " and ".join(map(str, temperatures))
        raise InputError(f"the sampler's temperatures are not negative, got {given}")
    if not isinstance(top_k, int) or top_k < 0 or not 0 < top_p <= 1:
        raise InputError(f"the sampler's top_k is a whole number from 0 and top_p in (0, 1], got {top_k} and {top_p}")


def guided(logits, without, scale):
    """Classifier-free guidance (Ho and Salimans, 2022): away from what is likely `without` the class.

    scale 0 is no guidance.
    """
    return logits + scale * (logits - without)


GUIDANCE = {  # the share of the full scale at `ratio` in (0, 1] of a block's steps
    "constant": lambda ratio: jnp.ones_like(ratio),
    "linear": lambda ratio: ratio,  # Muse (Chang et al., 2023), Sec. 2.7
    "cosine": lambda ratio: (1 - jnp.cos(math.pi * ratio)) / 2,
}


def image_noise(keys, number, codes):
    """noise(t) -> Gumbel noise for the codes [B,number,codes] and for the choice [B,number]; one key [B] an image."""

    def noise(t):
        pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, t)))(keys)
        for_codes = jax.vmap(lambda pair: jax.random.gumbel(pair[0], (number, codes), jnp.float32))(pairs)
        return for_codes, jax.vmap(lambda pair: jax.random.gumbel(pair[1], (number,), jnp.float32))(pairs)

    return noise


def mask_predict(
    tokens_to_logits,
    tokens,
    keys,
    *,
    codes,
    steps=8,
    first=0,
    temperature=1.0,
    final_temperature=None,
    choice_temperature=4.5,
    schedule="cosine",
    top_k=0,
    top_p=1.0,
    guidance=0.0,
    guidance_schedule="linear",
    noise=None,
    trace=False,
):
    """Fills the masked tokens of `tokens` [B,N] int32 (MASK = `codes`) in `steps` parallel steps -> [B,N] int32.

    MaskGIT, Sec. 3.3 (the paper's in-block decoding): every step samples all masked tokens from
    `tokens_to_logits(tokens) -> [B,N,V]` and masks again those it is least sure of. Confidence is
    log p(sampled) + choice_temperature * (1 - ratio) * Gumbel noise. Known tokens are never changed.
    `keys` [B]: one random key an image; noise replaces what is drawn from them, see `image_noise`.
    first: the step to begin with; MaskGIT's code edits from step 2 of 12, as part of the image is known. trace=True: ->
    the tokens after each step [steps-first,B,N].

    temperature divides the logits before sampling, 0 takes the likeliest code; it goes linearly to final_temperature
    (default: stays). top_k, top_p: see `restrict`; they and the temperatures are not part of the confidence, as in
    MaskGIT. guidance > 0: the largest scale of `guided`, growing as guidance_schedule says; tokens_to_logits then
    returns a pair of logits, with and without the class. InputError for settings that make no sense.
    """
    final_temperature = temperature if final_temperature is None else final_temperature
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"the sampler's steps are a whole number from 1, not {steps!r}")
    if not isinstance(first, int) or not 0 <= first < steps:
        raise InputError(f"the sampler's first step is a whole number from 0 to {steps - 1}, not {first!r}")
    check_drawing((temperature, final_temperature, choice_temperature), top_k, top_p)
    if guidance < 0 or guidance_schedule not in GUIDANCE:
        raise InputError(
            f"the sampler's guidance is a number from 0 with the schedule {', '.join(GUIDANCE)}, got {guidance} and "
            f"{guidance_schedule!r}"
        )
    number = tokens.shape[1]
    noise = image_noise(keys, number, codes) if noise is None else noise
    unknown_at_start = jnp.sum(tokens == codes, axis=-1)

    def step(tokens, t):
        ratio = (t + 1) / steps
        logits = tokens_to_logits(tokens)
        if guidance:
            logits, without = (x.astype(jnp.float32) for x in logits)
            logits = guided(logits, without, guidance * GUIDANCE[guidance_schedule](ratio))
        logits = logits.astype(jnp.float32)
        for_codes, for_choice = noise(t)
        now = temperature + (final_temperature - temperature) * t / max(steps - 1, 1)
        sampled = draw(logits, for_codes, now, top_k, top_p)
        unknown = tokens == codes
        sampled = jnp.where(unknown, sampled, tokens)

        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), sampled[..., None], axis=-1)[..., 0]
        confidence = log_p + choice_temperature * (1 - ratio) * for_choice
        confidence = jnp.where(unknown, confidence, jnp.inf)
        count = number_masked(t, steps, unknown_at_start, jnp.sum(unknown, axis=-1), schedule)
        tokens = jnp.where(lowest(confidence, count), codes, sampled)
        return tokens, tokens if trace else None

    tokens, states = jax.lax.scan(step, tokens, jnp.arange(first, steps))
    return states if trace else tokens


def block_by_block(
    context, ids, mask, keys, *, window, codes, extend=0, order="raster", carry=(), complete=None, trace=False,
    **in_block,
):  # fmt: skip
    """Generates `ids` [B,h,w] int32 where `mask` [B,h,w] is True, block by block -> [B,h,w] int32.

    Paper, Sec. 3.3: autoregressive over blocks of `window` x `window` tokens, `mask_predict` (its arguments:
    `in_block`) inside each. `context(carry, grid, blocks)` is called once a turn with the grid as it stands (MASK =
    `codes`) and the numbers [K] of the turn's blocks (traced: one compilation serves all turns), and returns
    `tokens_to_logits` ([B*K, window*window] -> [B*K, window*window, V]). order: see `blocks.turns`; K is 1 in raster
    order. Turns in which nothing is to generate are skipped. trace=True: -> the grids after each turn [turns,B,h,w].

    carry: what a model keeps from turn to turn, a tree of arrays. `complete(carry, grid, front) -> carry` is called
    after each turn, with the grid that now holds its blocks and their numbers [K], NOWHERE where a turn has fewer.
    """
    batch, h, w = ids.shape
    if h % window or w % window:
        raise ValueError(f"a grid of {h} x {w} tokens cannot be cut into blocks of {window} x {window}")
    start = blocks_of(jnp.where(mask, codes, ids), window)
    number = start.shape[1]

    def fill(front, blocks, carry):
        real = front != NOWHERE
        at = jnp.where(real, front, front[0])  # what fills a narrow front up is computed and dropped
        tokens_to_logits = context(carry, grid_of(blocks, h, w, window), at)
        keys_b = jax.vmap(lambda key: jax.vmap(lambda block: jax.random.fold_in(key, block))(at))(keys)
        tokens = blocks[:, at].reshape(batch * len(at), -1)
        tokens = mask_predict(tokens_to_logits, tokens, keys_b.reshape(-1), codes=codes, **in_block)
        tokens = tokens.reshape(batch, len(at), -1)
        blocks = blocks.at[:, jnp.where(real, front, number)].set(tokens, mode="drop")
        return blocks, complete(carry, grid_of(blocks, h, w, window), front) if complete else carry

    def turn(loop, front):
        blocks, carry = loop
        there = front[None, :, None] == jnp.arange(number)[None, None]
        due = jnp.any(jnp.any(there, axis=1)[..., None] & (blocks == codes))
        loop = jax.lax.cond(due, fill, lambda front, *loop: loop, front, blocks, carry)
        return loop, grid_of(loop[0], h, w, window) if trace else None

    order = jnp.asarray(np.asarray(fronts(h, w, window, extend, order)))
    (blocks, _), grids = jax.lax.scan(turn, (start, carry), order)
    return grids if trace else grid_of(blocks, h, w, window)


def autoregress(place, depth, carry, ids, keys, *, codes, temperature=1.0, top_k=0, top_p=1.0, noise=None):
    """Fills the unknown codes of `ids` [B,N,D] int32 (unknown = `codes`) one after the other -> [B,N,D] int32.

    Places come in order, at each one its depths in order (VQGAN, Sec. 3.2; RQ-VAE, Sec. 3.2). Known codes stay.

    place(carry, n, before [B,D]) -> carry, state: once a place n, given the codes at n - 1 (of n = 0: zeros).
    depth(state, d, before [B]) -> state, logits [B,V]: once a depth d, given the code at d - 1 (of d = 0: zeros).
    Both are traced once; carry and state keep their shapes and dtypes. keys [B]: one random key an image; noise(n, d)
    -> Gumbel noise [B,V] takes the place of what is drawn from them. temperature, top_k, top_p: see `draw`.
    """
    check_drawing((temperature,), top_k, top_p)

    def drawn(n, d):
        at = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, n), d))(keys)
        return jax.vmap(lambda key: jax.random.gumbel(key, (codes,), jnp.float32))(at)

    noise = noise or drawn

    def one_place(loop, inputs):
        carry, before = loop
        n, given = inputs
        carry, state = place(carry, n, before)

        def one_depth(loop, inputs):
            state, before = loop
            d, given = inputs
            state, logits = depth(state, d, before)
            made = draw(logits.astype(jnp.float32), noise(n, d), temperature, top_k, top_p)
            made = jnp.where(given == codes, made, given)
            return (state, made), made

        _, made = jax.lax.scan(one_depth, (state, jnp.zeros_like(before[:, 0])), (jnp.arange(ids.shape[2]), given.T))
        return (carry, made.T), made.T

    places = jnp.arange(ids.shape[1]), jnp.swapaxes(ids, 0, 1)
    _, made = jax.lax.scan(one_place, (carry, jnp.zeros_like(ids[:, 0])), places)
    return jnp.swapaxes(made, 0, 1)


def row_by_row(ids, made, codes):
    """The grids after each row of `made` [B,h,w,D], what `ids` [B,h,w,D] knew (not `codes`) included -> [h,B,h,w,D]."""
    row = jnp.arange(ids.shape[1])
    done = row[None] <= row[:, None]  # [turn,h]
    return jnp.where(done[:, None, :, None, None], made[None], ids[None])


def check_prefix(mask, name):
    """InputError if mask bool [B,h,w] (True where tokens are to be made) has a known token after an unknown one."""
    rows = np.asarray(mask).reshape(len(mask), -1)
    if (rows[:, :-1] & ~rows[:, 1:]).any():
        raise InputError(
            f"the {name} generator makes tokens in raster order, each from those before it alone: it completes an "
            "image from some token on to the lower right corner, and this mask leaves known tokens after unknown ones. "
            "Hide all that follows (such as the lower part, with --outpaint=0,0,0,N), or take a maskgit or "
            "multigrained generator"
        )
