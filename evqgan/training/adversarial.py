"""The adversarial term of stage 1 (paper, Eq. 1): a critic, its optimizer, when the term sets in, what it weighs."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype, Positive, Steps
from evqgan.losses import gan
from evqgan.training import optim


def make(
    critic: dict, weights: str = "", loss: str = "hinge", factor: float = 0.5, weight: float = 0.8,
    adaptive: bool = True, start: Steps = 0, ramp: Steps = 0, r1: float = 0.0, r1_every: Positive = 1,
    lecam: float = 0.0, optimizer: dict | None = None, dtype: Dtype = "float32", *, examples, batch_size, total,
    began=0,
):  # fmt: skip
    """config.adversarial -> Adversary. The critic exists and learns from step `start` on.

    critic: the module in evqgan/losses and its arguments; weights: of its frozen networks (see `core.weights`).
    loss, factor: see `losses.gan.critic_loss`.
    weight 0.8: VQGAN's code; with adaptive, times the adaptive weight (VQGAN, Eq. 7).
    start, ramp: durations; the weight grows linearly from 0 over `ramp`.
    r1: weight of the gradient penalty, taken every `r1_every` steps and then multiplied by that number (StyleGAN2,
    appendix B). lecam: weight of LeCAM's regularization.
    optimizer: keys of `training.optim.optimizer`; the four last are the run's. A share,
    as start="5%", is of the first `began` steps, if it has grown since.
    """
    run = {"examples": examples, "batch_size": batch_size, "total": began or total}
    if loss not in gan.LOSSES:
        raise InputError(f"config.adversarial.loss is {loss!r}: {build.nearest(loss, gan.LOSSES)}")
    model = build.build("losses", "Critic", critic, "config.adversarial.critic", dtype=dtype)
    if getattr(model, "norm", "") == "act":
        raise InputError('config.adversarial.critic.norm = "act" is for critics trained elsewhere: train with "batch"')
    first, length = (optim.to_steps(d, **run) for d in (start, ramp))
    run |= {"total": max(total - first, 1), "began": max(began - first, 0)}  # the steps that the critic learns in
    updater = optim.updater(optimizer or {}, "config.adversarial.optimizer", **run)
    epochs = [n * batch_size / examples for n in (first, first + length)]
    note = f"adversarial term: {critic['name']}, from step {first:,}, in full from step {first + length:,}"
    note += f" (epochs {epochs[0]:,.1f} and {epochs[1]:,.1f})"
    note += "; this run ends before it sets in" * (first >= total)
    note += "; this run ends before that" * (first < total <= first + length)
    return Adversary(model, updater, loss, factor, weight, adaptive, first, length, r1, r1_every, lecam, note)


class DiscriminatorOutput(NamedTuple):
    """What the critic says of one batch."""

    loss: jax.Array  # the generator's
    gradient: jax.Array  # of it, with respect to the reconstruction [B,H,W,3]
    grads: dict  # of the critic's loss with respect to the critic's params, and nothing else
    variables: dict  # the critic's running statistics after a real and a fake batch
    metrics: dict


@dataclasses.dataclass(frozen=True, eq=False)
class Adversary:
    """config.adversarial, see `make`. A critic's state: {"params", "opt", "variables"}."""

    model: nn.Module
    updater: optim.Updater
    loss: str
    factor: float
    full_weight: float
    adaptive: bool
    start: int  # in steps
    ramp: int
    r1: float
    r1_every: int
    lecam: float
    note: str  # one line for the log

    @property
    def classes(self):
        """The number of classes that the critic wants labels of; 0: it looks at no labels."""
        return self.model.classes if getattr(self.model, "cond", False) else 0

    def init(self, rng, image):
        """-> state, frozen variables."""
        rngs = dict(zip(("params", "augment"), jax.random.split(rng), strict=True))
        variables = dict(self.model.init(rngs, image, jnp.zeros(len(image), jnp.int32), train=True))
        params, frozen = variables.pop("params"), variables.pop("frozen", {})
        variables = {"batch_stats": {}, **variables, "averages": gan.averages()}
        return {**self.updater.init(params), "variables": variables}, frozen

    def judge(self, params, variables, frozen, batch, reconstruction, rng, step):
        """batch: image [B,H,W,3] in [-1, 1], label [B] -> DiscriminatorOutput; of zeros before `start`."""
        (image, label), rngs = batch, jax.random.split(rng, 3)

        def discriminate(params, image, rng, stats):
            """Logits, and the running statistics after them."""
            given, rngs = {"params": params, "batch_stats": stats, "frozen": frozen}, {"augment": rng}
            logits, changed = self.model.apply(given, image, label, train=True, rngs=rngs, mutable=["batch_stats"])
            return logits, changed.get("batch_stats", {})

        def generator_loss(reconstruction):
            logits, _ = discriminate(params, reconstruction, rngs[0], variables["batch_stats"])  # leaves no trace there
            return gan.generator_loss(self.loss, logits)

        def critic_loss(params):
            real, stats = discriminate(params, image, rngs[1], variables["batch_stats"])
            fake, stats = discriminate(params, reconstruction, rngs[2], stats)
            loss = gan.critic_loss(self.loss, real, fake, self.factor)
            metrics = {"critic_loss": loss, "real_logits": jnp.mean(real), "fake_logits": jnp.mean(fake)}
            averages = variables["averages"]
            if self.lecam:
                metrics["lecam"] = gan.lecam(real, fake, averages)
                averages = gan.follow(averages, real, fake)
                loss = loss + self.lecam * metrics["lecam"]
            if self.r1:
                given = {"params": params, "batch_stats": variables["batch_stats"], "frozen": frozen}
                metrics["r1"] = self._penalty(given, image, label, step)
                loss = loss + self.r1 * self.r1_every * metrics["r1"]
            return loss, ({"batch_stats": stats, "averages": averages}, metrics)

        loss, gradient = jax.value_and_grad(generator_loss)(reconstruction)
        (_, (changed, metrics)), grads = jax.value_and_grad(critic_loss, has_aux=True)(params)
        output = DiscriminatorOutput(loss, gradient, grads, changed, metrics)
        # Ours: before `start` this is computed and dropped. A lax.cond would save it, but on the CPU its branches run
        # five times slower than the same operations outside of it.
        nothing = jax.tree.map(jnp.zeros_like, output)._replace(variables=variables)
        return jax.tree.map(lambda x, other: jnp.where(step >= self.start, x, other), output, nothing)

    def _penalty(self, given, image, label, step):
        """R1 of real images every `r1_every` steps, counted like the steps of the log; 0 in the others.

        By the running statistics: see `gan.r1`.
        """

        def penalty():
            return gan.r1(lambda image: self.model.apply(given, image, label, train=False), image)

        return jax.lax.cond((step + 1) % self.r1_every == 0, penalty, lambda: jnp.zeros(()))

    def weight(self, norm, own_norm, step):
        """Norms of the gradients of the other losses and of this one -> lambda, float32."""
        now = self.full_weight * gan.ramp(step, self.start, self.ramp)
        return now * gan.adaptive_weight(norm, own_norm) if self.adaptive else now

    def update(self, state, variables, grads, step, go):
        """-> state, metrics; nothing moves unless `go`."""
        part = {key: state[key] for key in ("params", "opt")}
        # Before it sets in nothing moves, the optimizer's counters included.
        new, metrics = self.updater.step(part, grads, step - self.start, go & (step >= self.start))
        new["variables"] = optim.keep(go, variables, state["variables"])
        return new, {f"critic_{name}": value for name, value in metrics.items()}
