"""Mask schedules: how many tokens are masked when so much is done (MaskGIT, Sec. 4.4).

Decoding follows one, step by step; in training the share of masked tokens is gamma of a random
number. To add one, give it a name in `Named`, which config.sample.schedule and the config.loss of
`maskgit` may then have, and a branch in `gamma`; `multigrained` trains with "cosine", as the paper
does.
"""

import math
import re
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from evqgan.core.kinds import Text

# MaskGIT, Sec. 4.4, and Halton-MaskGIT's
Named = Literal["cosine", "linear", "square", "cubic", "root", "log", "exp", "arccos"]
POWERS = {"linear": 1.0, "square": 2.0, "cubic": 3.0, "root": 0.5}
POWER = r"pow(?=.*[1-9])(\d+\.?\d*)"  # "pow2.5" is 1 - ratio^2.5
Schedule = Named | Annotated[str, Text(POWER, "a power such as pow2.5")]


def gamma(schedule: str, ratio: jax.Array, number: int | jax.Array = 2) -> jax.Array:
    """Return the share of tokens that are still masked, float32 in [1e-6, 1].

    "cosine" is cos(pi r / 2) (paper and MaskGIT, Sec. 3.3); "linear", "square", "cubic", "root" and
    "pow<a>" are 1 - r^a; "log" and "exp" also depend on the number of tokens. All are those of
    MaskGIT's code, 1e-6 included. "arccos" is 2 arccos(r) / pi (Besnier et al., ICLR 2025).

    ratio: how much of decoding is done, in [0, 1].
    number: the number of tokens that were masked at first.
    """
    bits = jnp.log2(jnp.maximum(number, 2).astype(jnp.float32))
    if schedule == "cosine":
        share = jnp.cos(math.pi / 2 * ratio)
    elif schedule == "arccos":
        share = 2 / math.pi * jnp.arccos(ratio)
    elif schedule == "log":
        share = -jnp.log2(ratio) / bits
    elif schedule == "exp":
        share = 1 - jnp.exp2(-bits * (1 - ratio))
    else:
        power = re.fullmatch(POWER, schedule)
        share = 1.0 - ratio ** (float(power[1]) if power else POWERS[schedule])
    return jnp.clip(share, 1e-6, 1.0)


def number_masked(
    step: jax.Array,
    steps: int,
    masked_at_start: jax.Array,
    masked_now: jax.Array,
    schedule: str = "cosine",
) -> jax.Array:
    """Return how many tokens of each image stay masked after a step, int32 [B].

    That is floor(gamma((step + 1) / steps) * masked_at_start), but fewer than now and then at least
    1, as in MaskGIT's code, and 0 after the last step (MaskGIT re-masks one token there too, and
    reads the tokens from before).

    step: 0 to steps - 1, may be traced.
    masked_at_start, masked_now: int32 [B].
    """
    share = gamma(schedule, (step + 1) / steps, masked_at_start)
    count = jnp.floor(masked_at_start * share).astype(jnp.int32)
    count = jnp.maximum(1, jnp.minimum(masked_now - 1, count))
    return jnp.where((step + 1 >= steps) | (masked_now == 0), 0, count)


def lowest(confidence: jax.Array, count: jax.Array) -> jax.Array:
    """Return True [...,N] for the `count` [...] lowest entries of confidence [...,N].

    Ties go to the left.
    """
    order = jnp.argsort(confidence, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True)
    return rank < count[..., None]
