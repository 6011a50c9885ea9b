"""Remasking: tokens that are there already go back to [MASK], and are generated anew.

ReMDM (Wang et al., 2025, arXiv 2503.00307: "Remasking Discrete Diffusion Models with Inference-Time
Scaling"). Its alpha_t is the share of tokens that are there before a step, alpha_s that
after it; here both are exact counts, so that the mask schedule is kept to the token.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

RemaskSchedule = Literal["cap", "rescale", "conf"]
FIRST = -1e30  # below every confidence
STREAM = 2  # of an image's random numbers; 0 and 1 are those of `mask_predict.image_noise`


def remask_noise(keys: jax.Array, number: int) -> Callable[[jax.Array], jax.Array]:
    """Return noise(step) -> uniform numbers in [0, 1) [B,number], of keys [B], one for each image.

    They are others than those of `mask_predict.image_noise`, which stay as they are.
    """

    def noise(step: jax.Array) -> jax.Array:
        def drawn(key: jax.Array) -> jax.Array:
            return jax.random.uniform(
                jax.random.fold_in(jax.random.fold_in(key, step), STREAM), (number,)
            )

        return jax.vmap(drawn)(keys)

    return noise


def remask_chance(
    schedule: RemaskSchedule,
    strength: float,
    is_made: jax.Array,
    count: jax.Array,
    probability: jax.Array | None = None,
) -> jax.Array:
    """Return sigma_t, the chance of each token to be masked again after a step, float32 [B,N].

    The most it can be is (1 - alpha_s) / alpha_t, at most 1 (ReMDM): then all tokens that
    are masked after the step may be ones that were there before it.

    schedule: "cap": the strength, or the most if that is less; "rescale": the strength times the
      most; "conf": "rescale" times the token's share of softmax(-probability) over the tokens that
      are there, so that about `strength` tokens an image are masked again, the unlikely ones first.
    strength: eta in ReMDM, in [0, 1].
    is_made: bool [B,N], the tokens that were generated before the step.
    count: int32 [B], how many tokens are masked after the step.
    probability: float32 [B,N], of the tokens when they were generated; for "conf".
    """
    number = jnp.maximum(jnp.sum(is_made, axis=-1), 1)
    most = jnp.minimum(count / number, 1.0)[:, None]
    chance = jnp.minimum(strength, most) if schedule == "cap" else strength * most
    if schedule == "conf":
        assert probability is not None
        chance = chance * jax.nn.softmax(jnp.where(is_made, -probability, -jnp.inf), axis=-1)
    return jnp.where(is_made, chance, 0.0)


def with_remasked(confidence: jax.Array, chance: jax.Array, noise: jax.Array) -> jax.Array:
    """Return the confidence [B,N] of a step, below all others where a token is masked again.

    Of more such tokens than may be masked after the step, chance decides.

    chance: `remask_chance`. noise: `remask_noise`; a token is masked again where it is less.
    """
    return jnp.where(noise < chance, FIRST * (2 - noise), confidence)
