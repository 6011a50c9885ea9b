"""Skipped steps: where a loss or a gradient is not finite nothing learns, and it is counted.

A stage's state holds the counters that `init_counters` makes; the loop reports them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

Metrics = dict[str, jax.Array]


def init_counters() -> dict[str, jax.Array]:
    """Return what the state of every stage holds beside its weights.

    step: the number of steps done, int32 scalar.
    skipped: int32 [3], steps that were skipped: in a row until now, in all, in a row at most.
    """
    return {"step": jnp.zeros((), jnp.int32), "skipped": jnp.zeros((3,), jnp.int32)}


def all_finite(metrics: Metrics, *grads: Any) -> jax.Array:
    """Return whether all metrics and all trees of gradients are finite, bool scalar.

    It is the same on all devices, as metrics and gradients are those of the global batch.
    """
    norms = [optax.tree.norm(tree) for tree in grads]
    return jnp.all(jnp.isfinite(jnp.stack([*metrics.values(), *norms])))


def select(is_finite: jax.Array, new: Any, old: Any) -> Any:
    """Return the tree `new` if `is_finite` (bool scalar), else the tree `old`."""
    return jax.tree.map(lambda x, before: jnp.where(is_finite, x, before), new, old)


def skip_if_nonfinite(state: dict, new: dict, is_finite: jax.Array) -> tuple[dict, Metrics]:
    """Return the state after a step, and the counters of skipped steps as metrics.

    The step counts in any case, so that the next one sees other data and other random numbers.
    new: the parts of the state that learn, which have to be the old ones unless `is_finite`.
    is_finite: bool scalar, see `all_finite`; where it is False the step counts as skipped.
    """
    in_a_row, total, longest = state["skipped"]
    in_a_row = jnp.where(is_finite, 0, in_a_row + 1)
    total = jnp.where(is_finite, total, total + 1)
    longest = jnp.maximum(longest, in_a_row)
    counts = {"skipped_in_a_row": in_a_row, "skipped": total, "skipped_longest": longest}
    skipped = jnp.stack([in_a_row, total, longest])
    return {**state, **new, "step": state["step"] + 1, "skipped": skipped}, counts
