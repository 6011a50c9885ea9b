"""Stage 1: training a tokenizer (paper, Sec. 3.1).

Eq. 1 is L = L_perceptual + L_2 + L_VQ + lambda * L_adv. Tokenizer and critic learn in one step,
from one reconstruction. `TokenizerStage.update` is that step; `adversarial` holds the critic.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evqgan import models
from evqgan.core import build, schema, weights
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype
from evqgan.data import transforms
from evqgan.losses.pixels import logit_laplace_loss
from evqgan.tokenizers.quantizers.revival import replace_dead
from evqgan.training import adversarial, contracts, optim, skipping
from evqgan.training.run_length import RunLength
from evqgan.training.skipping import Metrics


class Term(NamedTuple):
    """Some terms of Eq. 1."""

    loss: jax.Array  # their sum
    gradient: jax.Array  # of it, with respect to the reconstruction [B,H,W,3]
    metrics: Metrics


class FrozenNetworks(NamedTuple):
    """The pretrained networks of a term of the loss."""

    folder: str  # that holds their weights, "" for the cache, or "random"
    names: dict[str, str]  # {name in the collection "frozen": name of the network}
    key: str  # of the config, that says the folder


def resolve(config: Any, classes: int | None = None) -> Any:
    """Return the config as it is: a tokenizer needs nothing of another workdir.

    Raises InputError where the file of a frozen network is missing.
    classes: not used; see `stage.StageModule`.
    """
    needed: dict[str, list[str]] = {}
    for networks in frozen_networks(config).values():
        needed.setdefault(networks.folder, []).extend(networks.names.values())
    for folder, names in needed.items():
        if folder != "random":
            weights.require(folder, names)
    return config


def frozen_networks(config: Any) -> dict[str, FrozenNetworks]:
    """Return {"perceptual": FrozenNetworks, "critic": FrozenNetworks} of those that there are."""
    found = {}
    distance = ("perceptual", "perceptual", "distance", "Distance")
    for part, section, key, entry in (distance, ("critic", "adversarial", "critic", "Critic")):
        name = uses(config, section) and config[section].get(key, {}).get("name")
        if name:
            module = build.module("losses", name, f"config.{section}.{key}", entry, "PRETRAINED")
            folder, where = config[section].get("weights", ""), f"config.{section}.weights"
            found[part] = FrozenNetworks(folder, module.PRETRAINED, where)
    return {part: networks for part, networks in found.items() if networks.names}


def uses(config: Any, term: str) -> bool:
    """Return whether the loss has this term: its section is there and its weight is not 0."""
    return bool(config.get(term)) and config[term].get("weight", 1.0) != 0


def pixel_losses(l2: float = 1.0, l1: float = 0.0, logit_laplace: float = 0.0) -> dict[str, float]:
    """Return the weights in config.loss that are not 0.

    l2: of the mean squared difference of pixels (paper, Eq. 1).
    l1: of the mean absolute one (VQGAN's code).
    logit_laplace: of `logit_laplace_loss` (ViT-VQGAN, Sec. 3.3: 0.1, beside l2 = 1).
    """
    terms = {"l2": l2, "l1": l1, "logit_laplace": logit_laplace}
    return {name: weight for name, weight in terms.items() if weight}


def perceptual(
    distance: dict, weight: float = 1.0, weights: str = "", dtype: Dtype = "float32"
) -> tuple[Any, float]:
    """Return the Distance module of config.perceptual, and its weight (paper, Eq. 1: 1).

    distance: the module in evqgan/losses and its arguments.
    weights: the folder of its networks, see `core.weights`.
    """
    where = "config.perceptual.distance"
    return build.build("losses", "Distance", distance, where, dtype=dtype), weight


def make(config: Any, examples: int = 1, classes: int | None = None) -> "TokenizerStage":
    """Return the stage of `config`.

    examples: the size of the training set.
    classes: how many the data has, if known.
    """
    schema.check(config)
    model, run = models.of_stage1(config), RunLength.of(config, examples)
    contracts.check_quantizer(model)
    # 0.999: MaskGIT's tokenizer
    updater = optim.updater(config.optimizer, "config.optimizer", run, ema=0.999)
    pixels = build.call(pixel_losses, config.get("loss", {}), "config.loss")
    distance, distance_weight, adversary = None, 0.0, None
    if uses(config, "perceptual"):
        distance, distance_weight = build.call(
            perceptual, config.perceptual, "config.perceptual", dtype=config.dtype
        )
    if uses(config, "adversarial"):
        adversary = adversarial.make(config.adversarial, config.dtype, run)
        critics = adversary.critic.label_classes
        if classes is not None and critics not in (0, classes):
            raise InputError(
                f"config.adversarial.critic.classes is {critics}, but the data set has {classes}"
            )
    return TokenizerStage(config, model, updater, pixels, distance, distance_weight, adversary)


@dataclasses.dataclass(frozen=True, eq=False)  # jit asks for a hash, and by identity there is one
class TokenizerStage:
    """The stage as the loop knows it, see `training.stage.Stage`; made by `make`. Its state:

    step, skipped: counters, see `skipping`.
    params, codebook: what is trained.
    ema: averaged params, which are evaluated and kept; absent where none are averaged.
    opt: the optimizer's.
    critic: its params, opt and variables.
    frozen: the networks of the perceptual loss and of the critic, and the critic's random
      projections, which exist nowhere else.
    """

    config: Any
    model: models.ImageTokenizer
    updater: optim.Updater
    pixels: dict[str, float]  # weights of the losses of pixels
    distance: Any  # the perceptual distance, or None
    distance_weight: float
    adversary: adversarial.AdversarialLoss | None
    progress_keys: tuple[str, ...] = ("l2", "perceptual", "lambda", "real_logits", "fake_logits")
    data_advice = "for a new run write record files near its size (evqgan.data.from_folder --size)"

    @property
    def networks(self) -> dict[str, FrozenNetworks]:
        """The frozen networks, see `frozen_networks`."""
        return frozen_networks(self.config)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the log: the loss, the adversarial term's course, and what is not trained."""
        terms = [f"{weight:g} x {name}" for name, weight in self.pixels.items()]
        if self.distance:
            name = self.config.perceptual.distance.name
            terms.append(f"{self.distance_weight:g} x perceptual ({name})")
        if self.adversary:
            terms.append("lambda x adversarial")
        notes = [" + ".join(["loss: quantizer", *terms])]
        if self.adversary:
            notes.append(self.adversary.note)
        for networks in self.networks.values():
            if networks.folder == "random":
                names = ", ".join(networks.names.values())
                notes.append(
                    f'{networks.key} = "random": {names} are UNTRAINED, their terms mean little'
                )
        return tuple(notes)

    def init(self) -> dict:
        """Return the state of an untrained tokenizer; networks that `load` fills in are zeros."""
        rngs = jax.random.split(jax.random.key(self.config.seed), 4)
        image = jnp.zeros((1, *self.model.shape, 3))
        keys = {"params": rngs[0], "codebook": rngs[1]}
        with build.at_key("config.tokenizer"):
            variables = self.model.network.init(keys, image, train=True)
        params, codebook = variables["params"], variables.get("codebook", {})
        self._check_last_layer(params)
        critic, frozen = dict[str, Any](), dict[str, dict]()
        if self.distance:
            with build.at_key("config.perceptual.distance"):
                frozen["perceptual"] = self.distance.init(rngs[2], image, image)["frozen"]
        if self.adversary:
            with build.at_key("config.adversarial.critic"):
                critic, frozen["critic"] = self.adversary.init(rngs[3], image)
        for part, networks in self.networks.items():
            if networks.folder != "random":  # XLA drops the random numbers
                zeros = {name: frozen[part][name] for name in networks.names}
                frozen[part] |= jax.tree.map(jnp.zeros_like, zeros)
        state = {**skipping.init_counters(), **self.updater.init(params), "codebook": codebook}
        return {**state, "critic": critic, "frozen": frozen}

    def check(self, state: dict) -> None:
        """Do nothing: `make` has checked the quantizer already."""

    def load(self, state: dict, saved: Any = ()) -> dict:
        """Return the state with the trained weights of the frozen networks."""
        frozen = dict(state["frozen"])
        for part, networks in self.networks.items():
            if networks.folder != "random":
                frozen[part] = weights.fill(frozen[part], networks.names, networks.folder)
        return {**state, "frozen": frozen}

    @property
    def early_steps(self) -> int:
        """The number of steps before the adversarial term sets in; 0 without it.

        The loop calls `early_update` for these, and `update` for all others.
        """
        return self.adversary.start if self.adversary else 0

    def early_update(self, state: dict, batch: dict) -> tuple[dict, Metrics]:
        """Take a step as `update` does, but without the critic, for steps before it sets in.

        The compiled program is smaller, as nothing of the critic is in it.
        """
        return dataclasses.replace(self, adversary=None).update(state, batch)

    def update(self, state: dict, batch: dict) -> tuple[dict, Metrics]:
        """Take one step down the gradient of Eq. 1, and one of the critic down its own loss.

        The gradient of Eq. 1 is first taken with respect to the reconstruction, where all but
        L_VQ are functions of it, and then pulled back through the tokenizer, together with L_VQ.
        batch: {"image" uint8 [B,H,W,3], "label" int32 [B]}. Returns the state, and metrics.
        """
        rng = jax.random.fold_in(jax.random.key(self.config.seed + 1), state["step"])
        frozen, (params, variables) = state["frozen"], self._trained(state)

        def equation_1(params: dict, variables: dict, batch: dict, rng: jax.Array) -> tuple:
            image, rngs = transforms.scale(batch["image"]), jax.random.split(rng)
            (reconstruction, l_vq), pull_back, (codebook, aux) = self._reconstruct(
                params["generator"], variables["codebook"], image, rngs[0]
            )
            l_rec = self._of_reconstruction(reconstruction, image, frozen)
            loss, gradient, grads = l_rec.loss + l_vq, l_rec.gradient, {}  # L_2 + L_perc. + L_VQ
            variables = {**variables, "codebook": codebook}
            metrics = self._joined(l_rec.metrics, aux)
            if self.adversary:
                seen = adversarial.CriticBatch(image, reconstruction, batch["label"], state["step"])
                critic = params["critic"], variables["critic"], frozen["critic"]
                with build.at_key("config.adversarial.critic"):
                    l_adv = self.adversary.losses(*critic, seen, rngs[1])
                weight, more = self._lambda(self.adversary, pull_back, l_rec, l_adv, state["step"])
                loss = loss + weight * l_adv.loss  # + lambda * L_adv
                gradient = gradient + weight * l_adv.gradient
                variables["critic"], grads["critic"] = l_adv.variables, l_adv.grads
                metrics = self._joined(metrics, more)
            (grads["generator"],) = pull_back((gradient, jnp.ones(())))
            return (loss, (variables, metrics)), grads

        differentiate = self.updater.gradients(equation_1)
        (loss, (variables, metrics)), grads = differentiate(params, variables, batch, rng)
        return self._learn(state, variables, self._joined({"loss": loss}, metrics), grads)

    def _joined(self, *parts: Metrics) -> Metrics:
        """Return metrics in one dict, the quantizer's among them; see `contracts.joined`."""
        return contracts.joined(contracts.file_of(self.model.network.quantizer), *parts)

    def _trained(self, state: dict) -> tuple[dict, dict]:
        """Return what Eq. 1 is a function of: params, and variables that a step also changes."""
        params, variables = {"generator": state["params"]}, {"codebook": state["codebook"]}
        if self.adversary:
            params["critic"] = state["critic"]["params"]
            variables["critic"] = state["critic"]["variables"]
        return params, variables

    def _reconstruct(
        self, params: dict, codebook: dict, image: jax.Array, rng: jax.Array
    ) -> tuple[tuple, Callable, tuple]:
        """Return (reconstruction, L_VQ), their vector-Jacobian product, and (new codebook, aux)."""

        def reconstruct(params: dict) -> tuple[tuple, tuple]:
            variables = {"params": params, "codebook": codebook}
            how: dict[str, Any] = {"rngs": {"codebook": rng}, "mutable": ["codebook"]}
            out: Any = self.model.network.apply(variables, image, train=True, **how)
            (made, _, aux), changed = out
            return (made, aux["quantizer_loss"]), (changed.get("codebook", {}), aux)

        return jax.vjp(reconstruct, params, has_aux=True)

    def _of_reconstruction(self, reconstruction: jax.Array, image: jax.Array, frozen: dict) -> Term:
        """Return the Term L_2 + L_perceptual; distances of pixels without a weight are metrics."""

        def loss(reconstruction: jax.Array) -> tuple[jax.Array, Metrics]:
            error = reconstruction - image
            terms = {"l2": jnp.mean(jnp.square(error)), "l1": jnp.mean(jnp.abs(error))}
            terms["logit_laplace"] = logit_laplace_loss(reconstruction, image)
            weighted = (weight * terms[name] for name, weight in self.pixels.items())
            total = sum(weighted, jnp.zeros(()))
            if self.distance:
                variables = {"frozen": frozen["perceptual"]}
                distances = self.distance.apply(variables, image, reconstruction)
                terms["perceptual"] = jnp.mean(distances)
                total = total + self.distance_weight * terms["perceptual"]
            return total, terms

        (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(reconstruction)
        return Term(total, gradient, terms)

    def _lambda(
        self,
        adversary: adversarial.AdversarialLoss,
        pull_back: Callable,
        l_rec: Term,
        l_adv: adversarial.CriticOutput,
        step: jax.Array,
    ) -> tuple[jax.Array, Metrics]:
        """Return lambda of Eq. 1, and the metrics of the adversarial term.

        l_rec: L_2 + L_perceptual, to whose gradient that of `l_adv` is scaled (VQGAN, Eq. 7).
        """
        path = self.model.network.decoder.last_layer
        norms = [adversarial.last_layer_norm(pull_back, x.gradient, path) for x in (l_rec, l_adv)]
        weight = adversary.weight(norms[0], norms[1], step)
        metrics = {"reconstruction_gradient": norms[0], "adversarial_gradient": norms[1]}
        return weight, {"adversarial": l_adv.loss, "lambda": weight, **l_adv.metrics, **metrics}

    def _learn(
        self, state: dict, variables: dict, metrics: Metrics, grads: dict
    ) -> tuple[dict, Metrics]:
        """Return the state with what is trained one step further, and all metrics."""
        step, is_finite = state["step"], skipping.all_finite(metrics, *grads.values())
        part = optim.part_of(state)
        new, more = self.updater.step(part, grads["generator"], step, is_finite)
        # A step that is skipped keeps the old codebook. This comes before dead codes are replaced:
        # comparisons with NaN are false, so that among codes that are NaN none would be dead.
        codebook = skipping.select(is_finite, variables["codebook"], state["codebook"])
        new, new["codebook"] = replace_dead(new, codebook)
        metrics = self._joined(metrics, more)
        if self.adversary:
            new["critic"], more = self.adversary.update(
                state["critic"], variables["critic"], grads["critic"], step, is_finite
            )
            metrics = self._joined(metrics, more)
        state, counts = skipping.skip_if_nonfinite(state, new, is_finite)
        return state, self._joined(metrics, counts)

    def _check_last_layer(self, params: Any) -> None:
        """Raise InputError unless the decoder has the last layer that it declares."""
        path, found = self.model.network.decoder.last_layer, params["decoder"]
        for name in path:
            found = found.get(name, {}) if isinstance(found, dict) else {}
        if self.adversary and not hasattr(found, "shape"):
            raise InputError(
                "the losses' gradients are compared at the decoder's last layer, which it declares "
                f"as {'/'.join(path)} and does not have"
            )
