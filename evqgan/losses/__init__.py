"""Losses of tokenizers: perceptual distances (modules with a `Distance`) and critics (with a `Critic`).

To add one, write a module with a class of one of the forms below; a config then says `perceptual.distance.name` or
`adversarial.critic.name`, and the section's other keys are arguments of the constructor.
"""

from typing import Protocol

import jax


class Distance(Protocol):
    """How far images look apart. Its network's weights are in the collection `frozen`.

    The module's PRETRAINED says which these are: {name in that collection: name of the network} (`core.weights`).
    """

    def __call__(self, image: jax.Array, other: jax.Array) -> jax.Array:
        """Return a distance for each pair [B], of images [B,H,W,3] in [-1, 1]."""


class Critic(Protocol):
    """What tells real images from reconstructions: a discriminator.

    It may have the collections `batch_stats` and `frozen` (then the module says PRETRAINED, as a `Distance`'s), draws
    from the rng `augment`, and, if it looks at labels, has `cond = True` and `classes`.
    """

    def __call__(self, image: jax.Array, label: jax.Array, train: bool = True) -> jax.Array:
        """Return logits [B,...] of images [B,H,W,3] in [-1, 1], larger for real ones. label: int32 [B]."""
