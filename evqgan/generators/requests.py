"""Requests for images by seed and number, which alone decide an image's random numbers."""

from collections.abc import Sequence

import jax
import numpy as np

from evqgan.generators import Request


def seeds_of(seed: int | Sequence[int], number: int) -> np.ndarray:
    """Return a seed of any size as one that JAX takes, once for each image, uint32 [number].

    seed: a whole number, or several that are one seed together; number: how many images.
    """
    return np.full(number, np.random.SeedSequence(seed).generate_state(1)[0])


def request_of(
    ids: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    seeds: jax.Array,
    numbers: jax.Array,
) -> Request:
    """Return the Request whose random key of each image is made of its seed and number alone.

    All random numbers of an image come from this key; `mask_predict.image_noise` and
    `autoregressive.autoregress` draw them.

    ids, mask, labels: see `Request`. seeds, numbers: uint32 [B], see `seeds_of`.
    """

    def key(seed: jax.Array, number: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.key(seed), number)

    return Request(ids, mask, labels, jax.vmap(key)(seeds, numbers))
