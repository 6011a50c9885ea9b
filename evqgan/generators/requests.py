"""Requests for images by seed and number, which alone decide an image's random numbers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.generators import Request


def seeds_of(seed: int | Sequence[int], number: int) -> np.ndarray:
    """Return a seed of any size as one that JAX takes, once for each image, uint32 [number].

    seed: a whole number, or several that are one seed together; number: how many images.
    """
    return np.full(number, np.random.SeedSequence(seed).generate_state(1)[0])


def first_word(seed: jax.Array) -> jax.Array:
    """Return the seed of `seeds_of` for a seed uint32 [] that is traced.

    It is the first word of NumPy's SeedSequence, whose hash NumPy keeps for all versions: O'Neill's
    seed_seq_fe, with a pool of four words.
    """
    zero = jnp.zeros((), jnp.uint32)
    constant = 0x43B0D7E5

    def hashed(value: jax.Array) -> jax.Array:
        nonlocal constant
        value = value ^ jnp.uint32(constant)
        constant = constant * 0x931E8875 % 2**32
        value = value * jnp.uint32(constant)
        return value ^ value >> 16

    def mixed(x: jax.Array, y: jax.Array) -> jax.Array:
        value = x * jnp.uint32(0xCA01F9DD) - y * jnp.uint32(0x4973F715)
        return value ^ value >> 16

    pool = [hashed(value) for value in (seed, zero, zero, zero)]
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    word = (pool[0] ^ jnp.uint32(0x8B51F9DD)) * jnp.uint32(0x8B51F9DD * 0x58F38DED % 2**32)
    return word ^ word >> 16


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
