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
    """How a stage's config changes its weights; made by `updater`."""

    init: Callable  # init(params) -> {"step", "params", "ema", "opt"}: the part of a stage's state it knows
    gradients: Callable  # gradients(loss): loss(params, variables, batch, rng) with its gradients, see `accumulated`
    step: Callable  # step(state, value, grads, metrics) -> state, metrics: one step on


def updater(config, examples, ema):
    """The Updater of config.optimizer, config.duration and config.batch_size. ema: the default decay of averages.

    config.optimizer: the keys of `optimizer`, `ema`, and `accumulate`, the number of parts a batch is cut into.
    """
    total = to_steps(config.duration, examples, config.batch_size)
    keys = build.plain(config.optimizer)
    decay, pieces = keys.pop("ema", ema), keys.pop("accumulate", 1)
    run = {"examples": examples, "batch_size": config.batch_size, "total": total}
    change, rate = build.call(optimizer, keys, "config.optimizer", **run)

    def init(params):
        averages = jax.tree.map(jnp.copy, params)  # buffers of their own, as the state is donated
        return {"step": jnp.zeros((), jnp.int32), "params": params, "ema": averages, "opt": change.init(params)}

    def gradients(loss):
        return accumulated(jax.value_and_grad(loss, has_aux=True), pieces)

    def step(state, value, grads, metrics):
        updates, opt = change.update(grads, state["opt"], state["params"])
        params, now = optax.apply_updates(state["params"], updates), state["step"]
        averages = average(state["ema"], params, now, decay)
        norm = optax.tree.norm(grads)
        metrics = {"loss": value, **metrics, "gradient_norm": norm, "learning_rate": rate(now)}
        return {**state, "step": now + 1, "params": params, "ema": averages, "opt": opt}, metrics

    return Updater(init, gradients, step)


def average(ema, params, step, decay):
    """The exponential moving average of weights after this step; the decay warms up as (1 + n) / (10 + n).

    The warm-up, that of TensorFlow's ExponentialMovingAverage, keeps the random start out of short runs.
    """
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema, 1.0 - decay)


def accumulated(value_and_grad, pieces):
    """`value_and_grad(params, variables, batch, rng)` over `pieces` equal parts of the batch, one after the other.

    value_and_grad returns ((loss, (variables, metrics)), grads), all means over its batch; so does the result. Memory
    is that of one part. `variables` (codebook statistics) pass from part to part.
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
