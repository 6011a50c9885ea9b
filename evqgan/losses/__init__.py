"""Losses of tokenizers: perceptual distances (modules with a `Distance`) and critics (`Critic`).

To add one, write a module with a class of one of the forms below, and PRETRAINED; a config then
says `perceptual.distance.name` or `adversarial.critic.name`, and the section's other keys are
arguments of the constructor. `gan` is the adversarial loss with any critic; `augment` is of
`projected`, and `pixels` of stage 1.
Tests run with jax_numpy_rank_promotion="raise": arrays of different rank are combined only after
`x[None]` or the like.
"""

from typing import Protocol

import jax


class LossModule(Protocol):
    """What a module in this folder has beside its `Distance` or `Critic`."""

    PRETRAINED: dict[str, str]  # {name in the collection `frozen`: network of `core.weights`}


class Distance(Protocol):
    """How different images look. Its network's weights are in the collection `frozen`."""

    def __call__(self, image: jax.Array, other: jax.Array) -> jax.Array:
        """Return a float32 distance for each pair [B], of images [B,H,W,3] in [-1, 1]."""


class Critic(Protocol):
    """A discriminator: its logits are larger for real images than for reconstructions.

    It may have the collections `batch_stats` and `frozen`, and draws from the rng `augment`.
    """

    label_classes: int  # the number of classes that it wants labels of; 0: it uses no labels
    trainable: bool  # whether training can begin with it

    def __call__(
        self, image: jax.Array, label: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Return logits [B,...] of images [B,H,W,3] in [-1, 1], larger for real ones.

        label: int32 [B].
        train: augment, and use the statistics of this batch.
        """
