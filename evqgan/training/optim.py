"""From a config to an optax chain; durations, schedules, gradient accumulation, averaged weights."""

import itertools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import DURATION, Dtype, PartialShare, Positive, Steps


def to_steps(duration, examples, batch_size, total=None):
    """A duration as a number of steps: 1000 or "1000 steps", "20 epochs" of `examples`, or "5%" of `total` steps."""
    found = DURATION.fullmatch(str(duration))
    if not found or (found[2] == "%" and total is None):
        raise InputError(f"a duration is a number of steps, '20 epochs', '1000 steps' or '5%', not {duration!r}")
    number = float(re.sub("[,_]", "", found[1]))
    if found[2] == "%":
        return round(number / 100 * total)
    return round(number * examples / batch_size) if found[2].startswith("epoch") else round(number)


def spelt(duration):
    """A duration in one spelling, for "3000 steps", "3,000steps" and 3000 are one; anything else as it is."""
    found = DURATION.fullmatch(str(duration))
    return (float(re.sub("[,_]", "", found[1])), found[2].rstrip("s") or "step") if found else duration


def schedule(kind, peak, warmup, total, final=0.0, hold=0):
    """The learning rate by step: `warmup` steps up from 0, `hold` more at the peak, then as `kind` says.

    "constant", or "cosine", "linear" or "exponential" to `final`, which it reaches at step `total`.
    """
    rest = max(total - warmup - hold, 1)
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, final / peak if peak else 0.0),
        "linear": lambda: optax.linear_schedule(peak, final, rest),
        "exponential": lambda: optax.exponential_decay(peak, rest, final / peak, end_value=final),
    }
    if kind not in after:
        raise InputError(f"config.optimizer.decay is {kind!r}: {build.nearest(kind, after)}")
    if kind == "exponential" and not 0 < final <= peak:
        raise InputError(f"exponential decay needs config.optimizer.final above 0 and up to the peak, got {final}")
    before = [(optax.linear_schedule(0.0, peak, warmup), warmup)] if warmup else []
    before += [(optax.constant_schedule(peak), hold)] if hold else []
    if not before:
        return after[kind]()
    ends = itertools.accumulate(length for _, length in before)
    return optax.join_schedules([*(part for part, _ in before), after[kind]()], list(ends))


def is_decayed(params):
    """Which leaves weight decay touches: matrices, by name; biases, norms, positions and codebooks are left alone.

    By name and not by rank, because scanned layers stack their biases into matrices.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


class AdamW(NamedTuple):
    """Loshchilov and Hutter, ICLR 2019, as optax.adamw after optax.clip_by_global_norm; see `optimizer`."""

    rate: Callable  # rate(step) -> the learning rate
    b1: float
    b2: float
    weight_decay: float
    clip: float
    moment_dtype: str


def optimizer(
    learning_rate: float,
    b1: PartialShare = 0.9,
    b2: PartialShare = 0.999,
    weight_decay: float = 0.0,
    clip: float = 0.0,
    warmup: Steps = 0,
    decay: str = "constant",
    final: float = 0.0,
    hold: Steps = 0,
    moment_dtype: Dtype = "float32",
    ema: PartialShare = 0.0,
    accumulate: Positive = 1,
    *,
    examples,
    batch_size,
    total,
    began=0,
):
    """The AdamW of config.optimizer, which holds these keys, with `ema` and `accumulate`; the four last are the run's.

    clip: largest global gradient norm, 0 = none. warmup and hold are durations; decay names the schedule after them,
    final is its end (see `schedule`). moment_dtype: of the first moment; "bfloat16" saves an eighth of the state (Zhai
    et al., "Scaling Vision Transformers", 2022). ema: decay of the averaged weights. accumulate: the number of parts a
    batch is cut into. The rate's warm-up, and its way to `total`, are those of a run that begins at the step `began`.
    """
    if batch_size % accumulate:
        raise InputError(f"config.optimizer.accumulate = {accumulate} does not divide config.batch_size = {batch_size}")
    warmup, hold = (to_steps(x, examples, batch_size, total - began) for x in (warmup, hold))
    rate = schedule(decay, learning_rate, warmup, total - began, final, hold)
    adamw = AdamW(lambda step: rate(jnp.maximum(step - began, 0)), b1, b2, weight_decay, clip, moment_dtype)
    return adamw, ema, accumulate


class Updater(NamedTuple):
    """How a config changes weights; made by `updater`. A part of a stage's state is {"params", "opt"}, maybe "ema"."""

    init: Callable  # init(params) -> that part
    gradients: Callable  # gradients(value_and_grad) -> the same over parts of a batch, see `accumulated`
    step: Callable  # step(part, grads, now, go) -> part, {"gradient_norm", "learning_rate"}; unchanged unless `go`


def updater(keys, where, ema=None, *, examples, batch_size, total, began=0):
    """The Updater of `keys`, those of `optimizer`; `where` is what they are called in messages.

    ema: its default. With None (a second optimizer of a step) nothing is averaged, and neither `ema` nor `accumulate`
    is a key.
    """
    run = {"examples": examples, "batch_size": batch_size, "total": total, "began": began}
    if ema is None:
        adamw, pieces, decay = build.call(optimizer, keys, where, ema=None, accumulate=1, **run)[0], 1, None
    else:
        adamw, decay, pieces = build.call(optimizer, {"ema": ema, **build.plain(keys)}, where, **run)

    def init(params):
        first = jax.tree.map(lambda x: jnp.zeros(x.shape, adamw.moment_dtype), params)
        opt = {"count": jnp.zeros((), jnp.int32), "mu": first, "nu": jax.tree.map(jnp.zeros_like, params)}
        # The averages are buffers of their own, as the state is donated.
        return {"params": params, "opt": opt} | ({} if decay is None else {"ema": jax.tree.map(jnp.copy, params)})

    def gradients(value_and_grad):
        return accumulated(value_and_grad, pieces)

    def step(part, grads, now, go):
        # By the updates made, not by the step: averages that a run begins with (config.init) are not forgotten at once.
        keep = None if decay is None else average_decay(part["opt"]["count"], decay)
        return adamw_step(adamw, part, grads, now, go, keep)

    return Updater(init, gradients, step)


def adamw_step(adamw, part, grads, step, go, ema_decay=None):
    """A step of `adamw`, number `step` -> part, {"gradient_norm", "learning_rate"}; the same bits unless `go` (bool).

    Ours, not optax's chain, for memory: there XLA computes the moments again where the weights need them, and a choice
    between old and new afterwards keeps both, so that the step needs two more copies of the weights (README, Table 6).
    Here every number is written once, over the one before it.
    """
    count, norm = part["opt"]["count"], optax.tree.norm(grads)
    rate, now = adamw.rate(step), count + 1.0
    scale = jnp.minimum(1.0, adamw.clip / jnp.maximum(norm, 1e-30)) if adamw.clip else 1.0
    b1, b2, ema_keep = (jnp.where(go, x, 1.0) for x in (adamw.b1, adamw.b2, 1.0 if ema_decay is None else ema_decay))
    step_size = jnp.where(go, rate, 0.0)
    corrections = 1 - adamw.b1**now, 1 - adamw.b2**now

    def leaf(p, grad, mu, nu, decayed, ema):
        grad = jnp.where(go, grad * scale, 0.0)  # what is not finite is gone here
        mu = (b1 * mu + (1 - b1) * grad).astype(mu.dtype)
        nu = b2 * nu + (1 - b2) * grad * grad
        mu, nu = jax.lax.optimization_barrier((mu, nu))  # read what is stored: do not compute it again
        change = mu / corrections[0] / (jnp.sqrt(nu / corrections[1]) + 1e-8)  # 1e-8: optax's epsilon
        p = p - step_size * (change + (adamw.weight_decay * p if decayed else 0.0))
        if ema is None:
            return p, mu, nu
        p = jax.lax.optimization_barrier(p)
        return p, mu, nu, ema_keep * ema + (1 - ema_keep) * p

    params, treedef = jax.tree.flatten(part["params"])
    trees = (grads, part["opt"]["mu"], part["opt"]["nu"], is_decayed(part["params"]))
    flat = [params, *map(jax.tree.leaves, trees)]
    flat.append(jax.tree.leaves(part["ema"]) if ema_decay is not None else [None] * len(params))
    done = [treedef.unflatten(x) for x in zip(*(leaf(*x) for x in zip(*flat, strict=True)), strict=True)]
    new = {"params": done[0], "opt": {"count": count + go, "mu": done[1], "nu": done[2]}}
    if ema_decay is not None:
        new["ema"] = done[3]
    return new, {"gradient_norm": norm, "learning_rate": rate}


def begin():
    """What every stage's state holds: the steps done, and those skipped: in a row now, in all, in a row at most."""
    return {"step": jnp.zeros((), jnp.int32), "skipped": jnp.zeros((3,), jnp.int32)}


def restarted(state, weights):
    """The `state` of a new run, from weights alone {"ema", ...}, as those converted from public checkpoints are."""
    return {**state, **weights, "params": jax.tree.map(jnp.copy, weights["ema"])}


def finite(metrics, *grads):
    """Whether all metrics and trees of gradients are finite -> bool; the same on all devices, as both are global."""
    norms = [optax.tree.norm(tree) for tree in grads]
    return jnp.all(jnp.isfinite(jnp.stack([*metrics.values(), *norms])))


def keep(go, new, old):
    """The tree `new`, or `old` unless `go`."""
    return jax.tree.map(lambda x, before: jnp.where(go, x, before), new, old)


def advance(state, new, metrics, go):
    """One step on -> state with `new`, metrics. Unless `go`, what is `finite`, nothing changed: the step is skipped.

    A skipped step is counted: the loop reports it and stops when there are many in a row.
    """
    in_a_row, total, longest = state["skipped"]
    in_a_row, total = jnp.where(go, 0, in_a_row + 1), jnp.where(go, total, total + 1)
    longest = jnp.maximum(longest, in_a_row)
    metrics = {**metrics, "skipped_in_a_row": in_a_row, "skipped": total, "skipped_longest": longest}
    skipped = jnp.stack([in_a_row, total, longest])
    return {**state, **new, "step": state["step"] + 1, "skipped": skipped}, metrics


def average_decay(step, decay):
    """The decay of the averaged weights after this step, which warms up as (1 + n) / (10 + n).

    The warm-up, that of TensorFlow's ExponentialMovingAverage, keeps the random start out of short runs.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


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
