"""From a config to an optax chain; durations, schedules, gradient accumulation, averaged weights."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from evqgan.core import build
from evqgan.core.errors import InputError


def to_steps(duration, examples, batch_size, total=None):
    """A duration as a number of steps: 1000 or "1000 steps", "20 epochs" of `examples`, or "5%" of `total` steps."""
    found = re.fullmatch(r"\s*(\d[\d,_]*\.?\d*)\s*(steps?|epochs?|%|)\s*", str(duration))
    if not found or (found[2] == "%" and total is None):
        raise InputError(f"a duration is a number of steps, '20 epochs', '1000 steps' or '5%', not {duration!r}")
    number = float(re.sub("[,_]", "", found[1]))
    if found[2] == "%":
        return round(number / 100 * total)
    return round(number * examples / batch_size) if found[2].startswith("epoch") else round(number)


def schedule(kind, peak, warmup, total, final=0.0):
    """The learning rate by step: `warmup` steps up from 0, then "constant", or "cosine" or "linear" to `final`."""
    rest = max(total - warmup, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest, final / peak if peak else 0.0),
        "linear": optax.linear_schedule(peak, final, rest),
    }
    if kind not in after:
        raise InputError(f"config.optimizer.schedule is {kind!r}: {build.nearest(kind, after)}")
    if not warmup:
        return after[kind]
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after[kind]], [warmup])


def is_decayed(params):
    """Which leaves weight decay touches: matrices, by name; biases, norms, positions and codebooks are left alone.

    By name and not by rank, because scanned layers stack their biases into matrices.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def optimizer(
    learning_rate,
    b1=0.9,
    b2=0.999,
    weight_decay=0.0,
    clip=0.0,
    warmup=0,
    decay="constant",
    final=0.0,
    *,
    examples,
    batch_size,
    total,
):
    """AdamW -> (optax transformation, learning-rate schedule). clip: largest global gradient norm, 0 = none.

    warmup is a duration; decay names the schedule after it. config.optimizer holds these keys; the three last are the
    run's: examples in the data set, global batch size, total steps.
    """
    rate = schedule(decay, learning_rate, to_steps(warmup, examples, batch_size, total), total, final)
    chain = [optax.clip_by_global_norm(clip)] if clip else []
    chain.append(optax.adamw(rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=is_decayed))
    return optax.chain(*chain), rate


class Updater(NamedTuple):
    """How a config changes weights; made by `updater`. A part of a stage's state is {"params", "opt"}, maybe "ema"."""

    init: Callable  # init(params) -> that part
    gradients: Callable  # gradients(value_and_grad) -> the same over parts of a batch, see `accumulated`
    step: Callable  # step(part, grads, now) -> part, {"gradient_norm", "learning_rate"}; now: steps done so far


def updater(keys, where, ema=None, *, examples, batch_size, total):
    """The Updater of `keys`, those of `optimizer` and two more; `where` is what they are called in messages.

    ema: decay of the averages, default as given. accumulate: the number of parts a batch is cut into. With ema=None (a
    second optimizer of a step) neither is a key, and nothing is averaged.
    """
    keys = build.plain(keys)
    decay, pieces = (None, 1) if ema is None else (keys.pop("ema", ema), keys.pop("accumulate", 1))
    run = {"examples": examples, "batch_size": batch_size, "total": total}
    change, rate = build.call(optimizer, keys, where, **run)

    def init(params):
        part = {"params": params, "opt": change.init(params)}
        if decay is not None:
            part["ema"] = jax.tree.map(jnp.copy, params)  # buffers of their own, as the state is donated
        return part

    def gradients(value_and_grad):
        return accumulated(value_and_grad, pieces)

    def step(part, grads, now):
        updates, opt = change.update(grads, part["opt"], part["params"])
        new = {**part, "params": optax.apply_updates(part["params"], updates), "opt": opt}
        if decay is not None:
            new["ema"] = average(part["ema"], new["params"], now, decay)
        return new, {"gradient_norm": optax.tree.norm(grads), "learning_rate": rate(now)}

    return Updater(init, gradients, step)


def begin():
    """What every stage's state holds: the steps done, and those skipped: in a row now, in all, in a row at most."""
    return {"step": jnp.zeros((), jnp.int32), "skipped": jnp.zeros((3,), jnp.int32)}


def advance(state, new, metrics):
    """One step on -> state, metrics: `state` with what `new` changes, or as it was if a metric is not finite.

    Such a step is skipped whole, on all devices alike as metrics are global, and counted: the loop reports it and
    stops when there are many in a row.
    """
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    kept = {key: state[key] for key in new}
    new = jax.tree.map(lambda x, old: jnp.where(finite, x, old), new, kept)
    in_a_row, total, longest = state["skipped"]
    in_a_row, total = jnp.where(finite, 0, in_a_row + 1), jnp.where(finite, total, total + 1)
    longest = jnp.maximum(longest, in_a_row)
    metrics = {**metrics, "skipped_in_a_row": in_a_row, "skipped": total, "skipped_longest": longest}
    skipped = jnp.stack([in_a_row, total, longest])
    return {**state, **new, "step": state["step"] + 1, "skipped": skipped}, metrics


def average(ema, params, step, decay):
    """The exponential moving average of weights after this step; the decay warms up as (1 + n) / (10 + n).

    The warm-up, that of TensorFlow's ExponentialMovingAverage, keeps the random start out of short runs.
    """
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema, 1.0 - decay)


def accumulated(value_and_grad, pieces):
    """`value_and_grad(params, variables, batch, rng)` over `pieces` equal parts of the batch, one after the other.

    value_and_grad returns ((loss, (variables, metrics)), grads), all means over its batch; so does the result. Memory
    is that of one part. `variables` (codebook statistics) pass from part to part. What is no mean over examples, such
    as batch norm and VQGAN's adaptive weight, is of each part by itself.
    """
    if pieces == 1:
        return value_and_grad

    def run(params, variables, batch, rng):
        # Part i takes every pieces-th example, so that a batch split over devices needs no communication.
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, pieces, *x.shape[1:]), 1, 0), batch)

        def one(variables, part_and_rng):
            (loss, (variables, metrics)), grads = value_and_grad(params, variables, *part_and_rng)
            return variables, (loss, metrics, grads)

        def add(carry, part_and_rng):
            variables, sums = carry
            variables, new = one(variables, part_and_rng)
            return (variables, jax.tree.map(jnp.add, sums, new)), None

        rngs = jax.random.split(rng, pieces)
        shapes = jax.eval_shape(
            lambda v, b, r: one(v, (b, r))[1], variables, jax.tree.map(lambda x: x[0], parts), rngs[0]
        )
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        (variables, sums), _ = jax.lax.scan(add, (variables, zeros), (parts, rngs))
        loss, metrics, grads = jax.tree.map(lambda x: x / pieces, sums)
        return (loss, (variables, metrics)), grads

    return run
