"""Requests for images by their seed and number, on which alone an image depends."""

from collections.abc import Sequence

import jax
import numpy as np

from evqgan.generators import Request


def seeds_of(seed: int | Sequence[int], number: int) -> np.ndarray:
    """Return what a seed is in JAX, for each of `number` images, uint32 [number]."""
    return np.full(number, np.random.SeedSequence(seed).generate_state(1)[0])


def request_of(
    ids: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    seeds: jax.Array,
    numbers: jax.Array,
) -> Request:
    """Return the request for images of these seeds and numbers: each has a random key of its own.

    All random numbers of an image come from this key; `mask_predict.image_noise` and
    `autoregressive.autoregress` draw them.
    """

    def key(seed: jax.Array, number: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.key(seed), number)

    return Request(ids, mask, labels, jax.vmap(key)(seeds, numbers))
