"""From config.optimizer to AdamW: learning rate, gradient accumulation, averaged weights.

The keys of config.optimizer are the arguments of `optimizer`. The learning rate is `schedule`. A
new one is a value in `Decay`, which config.optimizer.decay may then have, and an entry of the table
`after` in `schedule`: a function of the number of steps since warm-up and `hold` were over.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype, PartialShare, Positive, Steps
from evqgan.training.accumulation import accumulated
from evqgan.training.run_length import RunLength

Schedule = Callable[[jax.Array], jax.Array]
Decay = Literal["constant", "cosine", "linear", "exponential"]


def schedule(
    decay: Decay, peak: float, warmup: int, total: int, final: float = 0.0, hold: int = 0
) -> Schedule:
    """Return the learning rate as a function of the step.

    It rises over `warmup` steps from 0 to `peak`, stays there for `hold` steps, and then decays.

    decay: "constant" stays at the peak; "cosine", "linear" and "exponential" fall to `final`, which
      they reach at step `total`.
    """
    rest = max(total - warmup - hold, 1)
    after: dict[Decay, Callable[[], Schedule]] = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, final / peak if peak else 0.0),
        "linear": lambda: optax.linear_schedule(peak, final, rest),
        "exponential": lambda: optax.exponential_decay(peak, rest, final / peak, end_value=final),
    }
    if decay == "exponential" and not 0 < final <= peak:
        raise InputError(
            "exponential decay needs config.optimizer.final above 0 and up to the peak, "
            f"got {final}"
        )
    before = [(optax.linear_schedule(0.0, peak, warmup), warmup)] if warmup else []
    before += [(optax.constant_schedule(peak), hold)] if hold else []
    if not before:
        return after[decay]()
    ends = itertools.accumulate(length for _, length in before)
    return optax.join_schedules([*(part for part, _ in before), after[decay]()], list(ends))


def is_decayed(params: Any) -> Any:
    """Return, as a tree of bools like `params`, which leaves weight decay touches.

    It touches matrices, by their name; biases, norms, positions and codebooks are left alone. By
    name and not by rank, because scanned layers stack their biases into matrices.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


@dataclasses.dataclass(frozen=True, eq=False)
class AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019), as optax.adamw after optax.clip_by_global_norm."""

    rate: Schedule
    b1: float
    b2: float
    weight_decay: float
    clip: float  # the largest global norm of the gradient; 0: any
    moment_dtype: str  # of the first moment


def optimizer(
    learning_rate: float,
    b1: PartialShare = 0.9,
    b2: PartialShare = 0.999,
    weight_decay: float = 0.0,
    clip: float = 0.0,
    warmup: Steps = 0,
    decay: Decay = "constant",
    final: float = 0.0,
    hold: Steps = 0,
    moment_dtype: Dtype = "float32",
    ema: PartialShare = 0.999,
    accumulate: Positive = 1,
    *,
    run: RunLength,
) -> "Updater":
    """Return the Updater of config.optimizer, whose keys these are.

    learning_rate: the peak of the schedule.
    b1: decay of the first moment, the average of gradients.
    b2: decay of the second moment, the average of their squares.
    weight_decay: of kernels alone.
    clip: largest global gradient norm, 0 = none.
    warmup: how long the rate rises from 0 to its peak; "5%" is a share of the run, or of its
      extension where a finished run was given a longer duration.
    hold: how long it then stays there; "5%" as of `warmup`.
    decay: how the rate falls from then on, see `schedule`.
    final: the rate at the end of the run, of all but "constant".
    moment_dtype: of the first moment; "bfloat16" saves an eighth of the state (Zhai et al.,
      "Scaling Vision Transformers", 2022).
    ema: decay of the averaged weights, in stage 2 0.9999 where the key is left out; 0: there are
      none, and no memory is taken for them.
    accumulate: the number of parts that a batch is cut into.
    """
    if run.batch_size % accumulate:
        raise InputError(
            f"config.optimizer.accumulate = {accumulate} does not divide config.batch_size = "
            f"{run.batch_size}"
        )
    warmup_steps, hold_steps = (run.steps(x, of=run.leg) for x in (warmup, hold))
    rate = schedule(decay, learning_rate, warmup_steps, run.leg, final, hold_steps)

    def rate_of_run(step: jax.Array) -> jax.Array:
        return rate(jnp.maximum(step - run.began, 0))

    note = ""
    if warmup_steps >= run.leg:
        note = (
            f"the learning rate warms up for {warmup_steps:,} steps, and these are {run.leg:,}: it "
            f"does not come to its peak, {learning_rate:g}"
        )
    adamw = AdamW(rate_of_run, b1, b2, weight_decay, clip, moment_dtype)
    return Updater(adamw, ema, accumulate, note)


def updater(keys: Any, where: str, run: RunLength, ema: float | None = None) -> "Updater":
    """Return the Updater of `keys`, those of `optimizer`.

    where: what the keys are called in messages.
    ema: the default of the key. None, for a second optimizer of a step: nothing is averaged, and
      neither `ema` nor `accumulate` is a key.
    """
    if ema is None:
        return build.call(optimizer, keys, where, ema=0.0, accumulate=1, run=run)
    return build.call(functools.partial(optimizer, ema=ema), keys, where, run=run)


def part_of(state: dict) -> dict:
    """Return the part of a stage's state that its Updater changes."""
    return {key: state[key] for key in ("params", "ema", "opt") if key in state}


def averaged(state: dict) -> dict:
    """Return a stage's state with "ema", which are the params themselves where none are averaged.

    Who reads a state, or a checkpoint, finds the weights to use there.
    """
    return state if "ema" in state else {**state, "ema": state["params"]}


@dataclasses.dataclass(frozen=True, eq=False)
class Updater:
    """How a config changes weights; made by `optimizer`.

    What it changes is a part of a stage's state: {"params", "opt"}, and "ema" if it averages.
    """

    adamw: AdamW
    ema: float = 0.0  # decay of the averaged weights; 0: there are none
    pieces: int = 1  # that a batch is cut into
    note: str = ""  # a line for the log on a run that its schedule is too long for

    def init(self, params: Any) -> dict:
        """Return the part of a stage's state that begins with `params`."""
        mu = jax.tree.map(lambda x: jnp.zeros(x.shape, self.adamw.moment_dtype), params)
        nu = jax.tree.map(jnp.zeros_like, params)
        part = {"params": params, "opt": {"count": jnp.zeros((), jnp.int32), "mu": mu, "nu": nu}}
        if self.ema:
            part["ema"] = jax.tree.map(jnp.copy, params)  # own buffers, as the state is donated
        return part

    def gradients(self, value_and_grad: Callable) -> Callable:
        """Return the function over the parts of a batch, see `accumulation.accumulated`."""
        return accumulated(value_and_grad, self.pieces)

    def step(
        self, part: dict, grads: Any, step: jax.Array, is_finite: jax.Array
    ) -> tuple[dict, dict[str, jax.Array]]:
        """Return the part after a step, and {"gradient_norm", "learning_rate"}.

        step: its number, of the learning rate.
        is_finite: bool scalar; where it is False the part stays as it is, to the bit.
        """
        # By the number of updates made, not the step, so that it warms up in a run that begins with
        # other weights (config.init), too: their averages are forgotten after some ten updates.
        decay = average_decay(part["opt"]["count"], self.ema) if self.ema else None
        return adamw_step(self.adamw, part, grads, step, is_finite, decay)


def adamw_step(
    adamw: AdamW,
    part: dict,
    grads: Any,
    step: jax.Array,
    is_finite: jax.Array,
    ema_decay: jax.Array | None = None,
) -> tuple[dict, dict[str, jax.Array]]:
    """Return the part after a step of `adamw`, and metrics; see `Updater.step`.

    Ours, not optax's chain, for memory: there XLA computes the moments again where the weights
    need them, and a choice between old and new afterwards keeps both, so that the step needs two
    more copies of the weights (docs/results.md). Here every number is written once, over the one
    before it.
    """
    count, norm = part["opt"]["count"], optax.tree.norm(grads)
    rate = adamw.rate(step)
    leaf = _leaf_step(adamw, count, norm, rate, is_finite, ema_decay)
    params, treedef = jax.tree.flatten(part["params"])
    trees = (grads, part["opt"]["mu"], part["opt"]["nu"], is_decayed(part["params"]))
    flat = [params, *map(jax.tree.leaves, trees)]
    flat.append([None] * len(params) if ema_decay is None else jax.tree.leaves(part["ema"]))
    stepped = [leaf(*x) for x in zip(*flat, strict=True)]
    done = [jax.tree.unflatten(treedef, x) for x in zip(*stepped, strict=True)]
    new = {"params": done[0], "opt": {"count": count + is_finite, "mu": done[1], "nu": done[2]}}
    if ema_decay is not None:
        new["ema"] = done[3]
    return new, {"gradient_norm": norm, "learning_rate": rate}


def _leaf_step(
    adamw: AdamW,
    count: jax.Array,
    norm: jax.Array,
    rate: jax.Array,
    is_finite: jax.Array,
    ema_decay: jax.Array | None,
) -> Callable:
    """Return the step of one array: (p, grad, mu, nu, decayed, ema or None) -> p, mu, nu[, ema]."""
    now = count + 1.0
    scale = jnp.minimum(1.0, adamw.clip / jnp.maximum(norm, 1e-30)) if adamw.clip else 1.0
    decays = (adamw.b1, adamw.b2, 1.0 if ema_decay is None else ema_decay)
    b1, b2, keep = (jnp.where(is_finite, x, 1.0) for x in decays)
    step_size = jnp.where(is_finite, rate, 0.0)
    corrections = 1 - adamw.b1**now, 1 - adamw.b2**now

    def leaf(
        p: jax.Array,
        grad: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        decayed: bool,
        ema: jax.Array | None,
    ) -> tuple[jax.Array, ...]:
        grad = jnp.where(is_finite, grad * scale, 0.0)  # what is not finite is gone here
        # In float32 whatever `moment_dtype` is: in bfloat16 a decay of 0.99 would be 0.9883.
        mu = (b1 * mu.astype(jnp.float32) + (1 - b1) * grad).astype(mu.dtype)
        nu = b2 * nu + (1 - b2) * grad * grad
        mu, nu = jax.lax.optimization_barrier((mu, nu))  # read what is stored: no second time
        # 1e-8: optax's epsilon
        change = mu.astype(jnp.float32) / corrections[0] / (jnp.sqrt(nu / corrections[1]) + 1e-8)
        p = p - step_size * (change + (adamw.weight_decay * p if decayed else 0.0))
        if ema is None:
            return p, mu, nu
        p = jax.lax.optimization_barrier(p)
        return p, mu, nu, keep * ema + (1 - keep) * p

    return leaf


def average_decay(step: jax.Array, decay: float) -> jax.Array:
    """Return the decay of the averaged weights after this step, which warms up.

    It is (1 + n) / (10 + n) at most, that of TensorFlow's ExponentialMovingAverage, which keeps
    the random start out of short runs.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))
