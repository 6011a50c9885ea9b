"""Gradients of a large batch from several small ones, to save memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def accumulated(value_and_grad: Callable, pieces: int) -> Callable:
    """Return `value_and_grad` over `pieces` equal parts of the batch, one after the other.

    value_and_grad(params, variables, batch, rng) returns ((loss, (variables, metrics)), grads),
    all means over its batch; so does the result, which needs the memory of one part.
    `variables` (codebook statistics) pass from part to part. What is no mean over examples, such
    as batch norm and VQGAN's adaptive weight, is of each part by itself.
    """
    if pieces == 1:
        return value_and_grad

    def run(params: Any, variables: Any, batch: Any, rng: jax.Array) -> tuple:
        parts = jax.tree.map(lambda x: _strided(x, pieces), batch)
        rngs = jax.random.split(rng, pieces)

        def one(variables: Any, part_and_rng: tuple) -> tuple:
            (loss, (variables, metrics)), grads = value_and_grad(params, variables, *part_and_rng)
            return variables, (loss, metrics, grads)

        def add(carry: tuple, part_and_rng: tuple) -> tuple[tuple, None]:
            variables, sums = carry
            variables, new = one(variables, part_and_rng)
            return (variables, jax.tree.map(jnp.add, sums, new)), None

        first = jax.tree.map(lambda x: x[0], parts), rngs[0]
        shapes = jax.eval_shape(lambda *given: one(*given)[1], variables, first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        (variables, sums), _ = jax.lax.scan(add, (variables, zeros), (parts, rngs))
        loss, metrics, grads = jax.tree.map(lambda x: x / pieces, sums)
        return (loss, (variables, metrics)), grads

    return run


def _strided(x: jax.Array, pieces: int) -> jax.Array:
    """Return x [B,...] as [pieces,B/pieces,...], part i of which has every pieces-th example.

    So a batch that is split over devices needs no communication.
    """
    return jnp.moveaxis(x.reshape(-1, pieces, *x.shape[1:]), 1, 0)
