"""Classifier-free guidance (Ho and Salimans, 2022): class dropout, and guided logits.

In training some images lose their class: theirs is then `classes`, which stands for none. Sampling
moves the logits away from those without a class.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError

GuidanceSchedule = Literal["constant", "linear", "cosine"]
# The share of the full scale at `ratio` in (0, 1] of the steps.
GUIDANCE_SCHEDULES: dict[GuidanceSchedule, Callable[[jax.Array], jax.Array]] = {
    "constant": lambda ratio: jnp.ones_like(ratio),
    "linear": lambda ratio: ratio,  # Muse (Chang et al., 2023), Sec. 2.7
    "cosine": lambda ratio: (1 - jnp.cos(math.pi * ratio)) / 2,
}


def check_class_dropout(class_dropout: float, classes: int) -> None:
    """Raise InputError for class dropout of a model without classes."""
    if class_dropout and not classes:
        raise InputError(
            f"generator.class_dropout = {class_dropout}, but the generator has no classes: set it "
            "to 0"
        )


def drop_class(rng: jax.Array, label: jax.Array, classes: int, share: float) -> jax.Array:
    """Return labels int32 [B], of which about this share is `classes`, no class."""
    if not share:
        return label
    return jnp.where(jax.random.bernoulli(rng, share, label.shape), classes, label)


def guided(logits: jax.Array, without: jax.Array, scale: float | jax.Array) -> jax.Array:
    """Return the logits moved away from those `without` the class by `scale` times the difference.

    Scale 0 is no guidance.
    """
    return logits + scale * (logits - without)
