"""The adversarial term of stage 1, lambda * L_adv (paper, Eq. 1): a critic and its optimizer."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive, Steps
from evqgan.losses import gan
from evqgan.training import optim
from evqgan.training.run_length import RunLength
from evqgan.training.skipping import Metrics, select


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of config.adversarial.

    Shares such as "5%" are of the first leg of a run, without extensions of a finished one.
    """

    critic: dict  # the module in evqgan/losses and its arguments
    weights: str = ""  # of the critic's frozen networks, see `core.weights`
    loss: gan.Loss = "hinge"  # the adversarial loss, see `gan.LOSSES`
    factor: float = 0.5  # of the critic's loss, see `gan.critic_loss`
    weight: float = 0.8  # of L_adv, times the adaptive weight if there is one; VQGAN's code
    adaptive: bool = True  # whether lambda has the adaptive weight (VQGAN, Eq. 7)
    start: Steps = 0  # from when on the critic learns and L_adv counts; both are off before
    ramp: Steps = 0  # from `start` on, lambda grows linearly from 0 over this duration
    r1: float = 0.0  # weight of the penalty of the critic's gradient, see `gan.r1`
    # Every r1_every steps the penalty is computed, times r1_every (StyleGAN2, app. B)
    r1_every: Positive = 1
    lecam: float = 0.0  # weight of LeCAM's regularization, see `gan.lecam`
    optimizer: dict | None = None  # keys of `training.optim.optimizer`


class CriticOutput(NamedTuple):
    """What a critic says of one batch."""

    loss: jax.Array  # L_adv, the generator's
    gradient: jax.Array  # of L_adv, with respect to the reconstruction [B,H,W,3]
    grads: dict  # of the critic's own loss, with respect to the critic's params
    variables: dict  # the critic's running statistics after a real and a fake batch
    metrics: Metrics


class CriticBatch(NamedTuple):
    """What a critic sees of one batch."""

    image: jax.Array  # float32 [B,H,W,3] in [-1, 1]
    reconstruction: jax.Array  # the same
    label: jax.Array  # int32 [B]
    step: jax.Array


def make(keys: Any, dtype: str, run: RunLength) -> "AdversarialLoss":
    """Return the AdversarialLoss of config.adversarial, `keys`, whose critic computes in `dtype`.

    Raises InputError for a key or a value that makes no sense.
    """
    settings = build.call(Settings, keys, "config.adversarial")
    where = "config.adversarial.critic"
    critic = build.build("losses", "Critic", settings.critic, where, dtype=dtype)
    if not critic.trainable:
        raise InputError(f"{where} with {settings.critic} is for critics trained elsewhere")
    start, ramp = (run.steps(x, of=run.first_leg) for x in (settings.start, settings.ramp))
    where = "config.adversarial.optimizer"
    updater = optim.updater(settings.optimizer or {}, where, run.after(start))
    note = _course(settings.critic["name"], start, start + ramp, run)
    return AdversarialLoss(settings, critic, updater, start, ramp, note)


def _course(name: str, first: int, full: int, run: RunLength) -> str:
    """Return a line that says from which step on the term is there, and from which in full."""
    note = f"adversarial term: {name}, from step {first:,}, in full from step {full:,}"
    note += f" (epochs {run.epochs(first):,.1f} and {run.epochs(full):,.1f})"
    if first >= run.total:
        return f"{note}; this run ends before it sets in"
    return f"{note}; this run ends before that" if run.total <= full else note


def last_layer_norm(pull_back: Callable, gradient: jax.Array, path: tuple[str, ...]) -> jax.Array:
    """Return the norm of a loss's gradient in the decoder's last layer (VQGAN, Eq. 7).

    gradient: of the loss with respect to the reconstruction [B,H,W,3].
    pull_back: the vector-Jacobian product of the tokenizer, which turns gradients with respect to
      its two outputs, the reconstruction and L_VQ, into those with respect to all its parameters.
      Only the last layer's are read here, so that XLA removes the computation of the others.
    path: of the layer's kernel, see `tokenizers.Decoder`.
    """
    (grads,) = pull_back((gradient, jnp.zeros(())))
    found = grads["decoder"]
    for name in path:
        found = found[name]
    return optax.tree.norm(found)


@dataclasses.dataclass(frozen=True, eq=False)
class AdversarialLoss:
    """lambda * L_adv, see `make`. A critic's state: {"params", "opt", "variables"}."""

    settings: Settings
    critic: Any  # a linen module, see `losses.Critic`
    updater: optim.Updater
    start: int  # in steps
    ramp: int
    note: str  # a line for the log

    def init(self, rng: jax.Array, image: jax.Array) -> tuple[dict, dict]:
        """Return the critic's state, and its frozen variables; image: [B,H,W,3]."""
        rngs = dict(zip(("params", "augment"), jax.random.split(rng), strict=True))
        label = jnp.zeros(len(image), jnp.int32)
        variables = dict(self.critic.init(rngs, image, label, train=True))
        params, frozen = variables.pop("params"), variables.pop("frozen", {})
        variables = {"batch_stats": {}, **variables, "averages": gan.averages()}
        return {**self.updater.init(params), "variables": variables}, frozen

    def losses(
        self, params: dict, variables: dict, frozen: dict, batch: CriticBatch, rng: jax.Array
    ) -> CriticOutput:
        """Return L_adv, and the gradients of it and of the critic's own loss.

        params, variables, frozen: the critic's. Before `start` all is 0, and the variables stay.
        """
        rngs = jax.random.split(rng, 3)

        # This leaves no trace in the running statistics.
        def generator_loss(reconstruction: jax.Array) -> jax.Array:
            given = {"params": params, "batch_stats": variables["batch_stats"], "frozen": frozen}
            logits, _ = self._logits(given, reconstruction, batch.label, rngs[0])
            return gan.generator_loss(self.settings.loss, logits)

        def critic_loss(params: dict) -> tuple:
            given = {"params": params, "batch_stats": variables["batch_stats"], "frozen": frozen}
            return self._critic_loss(given, variables["averages"], batch, rngs[1:])

        loss, gradient = jax.value_and_grad(generator_loss)(batch.reconstruction)
        (_, (changed, metrics)), grads = jax.value_and_grad(critic_loss, has_aux=True)(params)
        output = CriticOutput(loss, gradient, grads, changed, metrics)
        # A run takes its steps before `start` by `early_update`, without a critic. Where `update`
        # takes one, this is computed and dropped: the branches of a lax.cond would run five times
        # slower on a CPU.
        nothing = jax.tree.map(jnp.zeros_like, output)._replace(variables=variables)
        return select(batch.step >= self.start, output, nothing)

    def weight(
        self, norm_reconstruction: jax.Array, norm_adversarial: jax.Array, step: jax.Array
    ) -> jax.Array:
        """Return lambda, a float32 scalar.

        norm_reconstruction, norm_adversarial: norms of the gradients of L_2 + L_perceptual, and of
          L_adv, in the decoder's last layer. Their ratio is clipped: its clip is
          `gan.adaptive_weight`'s `limit`.
        """
        scheduled = self.settings.weight * gan.ramp(step, self.start, self.ramp)
        if not self.settings.adaptive:
            return scheduled
        return scheduled * gan.adaptive_weight(norm_reconstruction, norm_adversarial)

    def update(
        self, state: dict, variables: dict, grads: dict, step: jax.Array, is_finite: jax.Array
    ) -> tuple[dict, Metrics]:
        """Return the critic's state after a step, and metrics; it stays unless `is_finite`.

        variables, grads: of `losses`.
        """
        part = {key: state[key] for key in ("params", "opt")}
        # Before it sets in nothing moves, the optimizer's counters included.
        learns = is_finite & (step >= self.start)
        new, metrics = self.updater.step(part, grads, step - self.start, learns)
        new["variables"] = select(is_finite, variables, state["variables"])
        return new, {f"critic_{name}": value for name, value in metrics.items()}

    def _logits(
        self, variables: dict, image: jax.Array, label: jax.Array, rng: jax.Array
    ) -> tuple[jax.Array, dict]:
        """Return the logits of an image in training, and the running statistics after them."""
        how: dict[str, Any] = {"train": True, "rngs": {"augment": rng}, "mutable": ["batch_stats"]}
        out: Any = self.critic.apply(variables, image, label, **how)
        logits, changed = out
        return logits, changed.get("batch_stats", {})

    def _critic_loss(
        self, variables: dict, averages: dict, batch: CriticBatch, rngs: jax.Array
    ) -> tuple[jax.Array, tuple[dict, Metrics]]:
        """Return the critic's loss with its penalties, and (its variables afterwards, metrics)."""
        settings = self.settings
        real, stats = self._logits(variables, batch.image, batch.label, rngs[0])
        after = {**variables, "batch_stats": stats}
        fake, stats = self._logits(after, batch.reconstruction, batch.label, rngs[1])
        loss = gan.critic_loss(settings.loss, real, fake, settings.factor)
        means = {"real_logits": jnp.mean(real), "fake_logits": jnp.mean(fake)}
        metrics = {"critic_loss": loss, **means}
        if settings.lecam:
            metrics["lecam"] = gan.lecam(real, fake, averages)
            averages = gan.update_ema(averages, real, fake)
            loss = loss + settings.lecam * metrics["lecam"]
        if settings.r1:
            metrics["r1"] = self._penalty(variables, batch)
            loss = loss + settings.r1 * settings.r1_every * metrics["r1"]
        return loss, ({"batch_stats": stats, "averages": averages}, metrics)

    def _penalty(self, variables: dict, batch: CriticBatch) -> jax.Array:
        """Return R1 of real images every `r1_every` steps, counted as in the log; else 0.

        By the running statistics: see `gan.r1`.
        """

        def penalty() -> jax.Array:
            def logits(image: jax.Array) -> jax.Array:
                out: Any = self.critic.apply(variables, image, batch.label, train=False)
                return out

            return gan.r1(logits, batch.image)

        due = (batch.step + 1) % self.settings.r1_every == 0
        return jax.lax.cond(due, penalty, lambda: jnp.zeros(()))
