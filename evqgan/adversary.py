"""The adversarial term of stage 1 (paper, Eq. 1): a critic, its optimizer, when the term sets in, what it weighs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evqgan.core import build, optim
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype, Positive, Steps
from evqgan.critics import gan


class Adversary(NamedTuple):
    """config.adversarial as functions; made by `make`. A critic's state: {"params", "opt", "variables"}."""

    init: Callable  # init(rng, image) -> state, frozen variables
    judge: Callable  # judge(params, variables, frozen, batch, reconstruction, rng, step) -> Judgement
    weight: Callable  # weight(norm of the other losses' gradient, norm of this one's, step) -> lambda, float32
    update: Callable  # update(state, variables, grads, step) -> state, metrics
    classes: int  # that the critic wants labels of; 0: it looks at no labels
    note: str  # one line for the log


class Judgement(NamedTuple):
    """What the critic says of one batch."""

    loss: jax.Array  # the generator's
    gradient: jax.Array  # of it, with respect to the reconstruction [B,H,W,3]
    grads: dict  # of the critic's loss with respect to the critic's params, and nothing else
    variables: dict  # the critic's running statistics after a real and a fake batch
    metrics: dict


def make(
    critic: dict, weights: str = "", loss: str = "hinge", factor: float = 0.5, weight: float = 0.8,
    adaptive: bool = True, start: Steps = 0, ramp: Steps = 0, r1: float = 0.0, r1_every: Positive = 1,
    lecam: float = 0.0, optimizer: dict | None = None, dtype: Dtype = "float32", *, examples, batch_size, total,
    began=0,
):  # fmt: skip
    """config.adversarial -> Adversary. The critic exists and learns from step `start` on.

    critic: the module in evqgan/critics and its arguments; weights: of its frozen networks (see `core.weights`).
    loss, factor: see `critics.gan.critic_loss`.
    weight 0.8: VQGAN's code; with adaptive, times the adaptive weight (VQGAN, Eq. 7).
    start, ramp: durations; the weight grows linearly from 0 over `ramp`.
    r1: weight of the gradient penalty, taken every `r1_every` steps and then multiplied by that number (StyleGAN2,
    appendix B). lecam: weight of LeCAM's regularization.
    optimizer: keys of `core.optim.optimizer`; the four last are the run's. A share,
    as start="5%", is of the first `began` steps, if it has grown since.
    """
    run = {"examples": examples, "batch_size": batch_size, "total": began or total}
    if loss not in gan.LOSSES:
        raise InputError(f"config.adversarial.loss is {loss!r}: {build.nearest(loss, gan.LOSSES)}")
    model = build.build("critics", "Critic", critic, "config.adversarial.critic", dtype=dtype)
    if getattr(model, "norm", "") == "act":
        raise InputError('config.adversarial.critic.norm = "act" is for critics trained elsewhere: train with "batch"')
    first, length = (optim.to_steps(d, **run) for d in (start, ramp))
    run |= {"total": max(total - first, 1), "began": max(began - first, 0)}  # the steps that the critic learns in
    updater = optim.updater(optimizer or {}, "config.adversarial.optimizer", **run)

    def init(rng, image):
        rngs = dict(zip(("params", "augment"), jax.random.split(rng), strict=True))
        variables = dict(model.init(rngs, image, jnp.zeros(len(image), jnp.int32), train=True))
        params, frozen = variables.pop("params"), variables.pop("frozen", {})
        variables = {"batch_stats": {}, **variables, "averages": gan.averages()}
        return {**updater.init(params), "variables": variables}, frozen

    def judge(params, variables, frozen, batch, reconstruction, rng, step):
        real, label = batch
        rngs = jax.random.split(rng, 3)

        def discriminate(params, image, rng, stats):
            """Logits, and the running statistics after them."""
            given = {"params": params, "batch_stats": stats, "frozen": frozen}
            rngs = {"augment": rng}
            logits, changed = model.apply(given, image, label, train=True, rngs=rngs, mutable=["batch_stats"])
            return logits, changed.get("batch_stats", {})

        def generator_loss(reconstruction):
            logits, _ = discriminate(params, reconstruction, rngs[0], variables["batch_stats"])  # leaves no trace there
            return gan.generator_loss(loss, logits)

        def critic_loss(params):
            logits, stats = discriminate(params, real, rngs[1], variables["batch_stats"])
            fake_logits, stats = discriminate(params, reconstruction, rngs[2], stats)
            value = gan.critic_loss(loss, logits, fake_logits, factor)
            metrics = {"critic_loss": value, "real_logits": jnp.mean(logits), "fake_logits": jnp.mean(fake_logits)}
            averages = variables["averages"]
            if lecam:
                metrics["lecam"] = gan.lecam(logits, fake_logits, averages)
                averages = gan.follow(averages, logits, fake_logits)
                value = value + lecam * metrics["lecam"]
            if r1:

                def penalty():  # by the running statistics: see `gan.r1`
                    given = {"params": params, "batch_stats": variables["batch_stats"], "frozen": frozen}
                    return gan.r1(lambda image: model.apply(given, image, label, train=False), real)

                due = (step + 1) % r1_every == 0  # counted like the steps of the log
                metrics["r1"] = jax.lax.cond(due, penalty, lambda: jnp.zeros(()))
                value = value + r1 * r1_every * metrics["r1"]
            return value, ({"batch_stats": stats, "averages": averages}, metrics)

        value, gradient = jax.value_and_grad(generator_loss)(reconstruction)
        (_, (changed, metrics)), grads = jax.value_and_grad(critic_loss, has_aux=True)(params)
        judgement = Judgement(value, gradient, grads, changed, metrics)
        # Ours: before `start` this is computed and dropped. A lax.cond would save it, but on the CPU its branches run
        # five times slower than the same operations outside of it.
        nothing = jax.tree.map(jnp.zeros_like, judgement)._replace(variables=variables)
        return jax.tree.map(lambda x, other: jnp.where(step >= first, x, other), judgement, nothing)

    def weigh(norm, own_norm, step):
        now = weight * gan.ramp(step, first, length)
        return now * gan.adaptive_weight(norm, own_norm) if adaptive else now

    def update(state, variables, grads, step, go):
        part = {key: state[key] for key in ("params", "opt")}
        # Before it sets in nothing moves, the optimizer's counters included.
        new, metrics = updater.step(part, grads, step - first, go & (step >= first))
        new["variables"] = optim.keep(go, variables, state["variables"])
        return new, {f"critic_{name}": value for name, value in metrics.items()}

    epochs = [n * batch_size / examples for n in (first, first + length)]
    note = f"adversarial term: {critic['name']}, from step {first:,}, in full from step {first + length:,}"
    note += f" (epochs {epochs[0]:,.1f} and {epochs[1]:,.1f})"
    note += "; this run ends before it sets in" * (first >= total)
    note += "; this run ends before that" * (first < total <= first + length)
    classes = model.classes if getattr(model, "cond", False) else 0
    return Adversary(init, judge, weigh, update, classes, note)
