"""Stage 1: training a tokenizer (paper, Sec. 3.1, Eq. 1).

L = L_2 + L_perceptual + L_VQ + lambda * L_adv; generator and critic learn in one step, from one reconstruction.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from evqgan import models
from evqgan.core import build, schema, weights
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype
from evqgan.data import transforms
from evqgan.tokenizers.quantizers.revival import replace_dead
from evqgan.training import adversarial, optim


def resolve(config, classes=None):
    """A tokenizer takes nothing from other workdirs, but frozen networks from files: InputError for a missing one."""
    wanted = {}
    for where, pretrained, _ in frozen_networks(config).values():
        wanted.setdefault(where, []).extend(pretrained.values())
    for where, networks in wanted.items():
        if where != "random":
            weights.require(where, networks)
    return config


def frozen_networks(config):
    """{"perceptual", "critic": (folder, "" for the cache, or "random"; {name: network}; key of the config)}."""
    found = {}
    for part, section, key in (("perceptual", "perceptual", "distance"), ("critic", "adversarial", "critic")):
        name = uses(config, section) and config[section].get(key, {}).get("name")
        if name:
            module = build.module("losses", name, f"config.{section}.{key}")
            where = config[section].get("weights", "")
            found[part] = where, getattr(module, "PRETRAINED", {}), f"config.{section}.weights"
    return {part: entry for part, entry in found.items() if entry[1]}


def uses(config, term):
    """Whether the loss has this term: its section is there and its weight is not 0."""
    return bool(config.get(term)) and config[term].get("weight", 1.0) != 0


def pixel_losses(l2: float = 1.0, l1: float = 0.0, logit_laplace: float = 0.0):
    """config.loss: weights of the mean squared (paper, Eq. 1) and mean absolute (VQGAN's code) difference of pixels.

    logit_laplace: weight of `logit_laplace_loss` (ViT-VQGAN, Sec. 3.3: 0.1, beside l2 = 1).
    """
    weights = {"l2": l2, "l1": l1, "logit_laplace": logit_laplace}
    return {name: weight for name, weight in weights.items() if weight}


def logit_laplace_loss(reconstruction, image):
    """Two images [...] float32, `image` in [-1, 1] -> the mean of |logit(p(image)) - logit(p(reconstruction))|.

    p maps [-1, 1] to [0.1, 0.9]. DALL-E (Ramesh et al., 2021, appendix A.3) gives pixels x in (0, 1) the density
    exp(-|logit(x) - mu| / b) / (2 b x (1 - x)); this is its negative logarithm without what no model can change.
    Differs from DALL-E: its decoder gives mu and b in six channels. Ours has three and is an image: b is 1, and mu the
    logit of p(reconstruction), clipped to [0.01, 0.99], beyond which the gradient is 0 and l2 alone brings it back.
    """
    low, edge = 0.1, 0.01  # DALL-E; ours: finite for all inputs, and well outside what images hold

    def logit(x):
        p = jnp.clip(low + (1 - 2 * low) * (x + 1) / 2, edge, 1 - edge)
        return jnp.log(p) - jnp.log1p(-p)

    return jnp.mean(jnp.abs(logit(image) - logit(reconstruction)))


def perceptual(distance: dict, weight: float = 1.0, weights: str = "", dtype: Dtype = "float32"):
    """config.perceptual -> Distance module, its weight in the loss. 1: paper, Eq. 1. weights: see `core.weights`."""
    return build.build("losses", "Distance", distance, "config.perceptual.distance", dtype=dtype), weight


def make(config, examples=1, classes=None):
    """The stage of `config`; examples: size of the training set; classes: how many the data has, if known."""
    schema.check(config)
    model = models.of(config)
    total = optim.to_steps(config.duration, examples, config.batch_size)
    run = {"examples": examples, "batch_size": config.batch_size, "total": total, "began": config.get("began", 0)}
    updater = optim.updater(config.optimizer, "config.optimizer", ema=0.999, **run)  # 0.999: MaskGIT's tokenizer
    pixels = build.call(pixel_losses, config.get("loss", {}), "config.loss")
    distance, distance_weight, adversary = None, 0.0, None
    if uses(config, "perceptual"):
        distance, distance_weight = build.call(perceptual, config.perceptual, "config.perceptual", dtype=config.dtype)
    if uses(config, "adversarial"):
        make_adversary, keys = adversarial.make, config.adversarial
        adversary = build.call(make_adversary, keys, "config.adversarial", dtype=config.dtype, **run)
        if classes is not None and adversary.classes not in (0, classes):
            wanted = adversary.classes
            raise InputError(f"config.adversarial.critic.classes is {wanted}, but the data set has {classes}")
    return TokenizerStage(config, model, updater, pixels, distance, distance_weight, adversary)


@dataclasses.dataclass(frozen=True, eq=False)  # jit asks for a hash, and by identity there is one
class TokenizerStage:
    """The stage as the loop knows it, see `training.stage.Stage`; made by `make`. Its state:

    step, skipped; params and codebook (what is trained), ema (averaged params: what is evaluated and kept), opt;
    critic (its params, opt and variables); frozen (the networks of the perceptual loss and of the critic, and the
    critic's random projections, which exist nowhere else).
    """

    config: Any
    model: models.ImageTokenizer
    updater: optim.Updater
    pixels: dict[str, float]  # weights of the losses of pixels
    distance: Any  # the perceptual distance, or None
    distance_weight: float
    adversary: adversarial.Adversary | None
    shown: tuple[str, ...] = ("l2", "perceptual", "lambda", "real_logits", "fake_logits")

    @property
    def networks(self):
        """The frozen networks, see `frozen_networks`."""
        return frozen_networks(self.config)

    @property
    def notes(self):
        """Lines for the log: the loss, the adversarial term's course, and what is not trained."""
        terms = [f"{weight:g} x {name}" for name, weight in self.pixels.items()]
        if self.distance:
            terms.append(f"{self.distance_weight:g} x perceptual ({self.config.perceptual.distance.name})")
        terms += ["lambda x adversarial"] * bool(self.adversary)
        notes = [" + ".join(["loss: quantizer", *terms]), *([self.adversary.note] if self.adversary else [])]
        for where, pretrained, key in self.networks.values():
            if where == "random":
                notes.append(
                    f'{key} = "random": {", ".join(pretrained.values())} are UNTRAINED, their terms mean little'
                )
        return tuple(notes)

    def init(self):
        """-> the state of an untrained tokenizer; networks that `load` fills in are zeros."""
        rngs, image = jax.random.split(jax.random.key(self.config.seed), 4), jnp.zeros((1, *self.model.shape, 3))
        variables = self.model.network.init({"params": rngs[0], "codebook": rngs[1]}, image, train=True)
        params, codebook = variables["params"], variables.get("codebook", {})
        if self.adversary and "to_rgb" not in params["decoder"]:
            raise InputError("the adaptive weight is taken at the decoder's last layer, which has to be called to_rgb")
        critic, frozen = {}, {}
        if self.distance:
            frozen["perceptual"] = self.distance.init(rngs[2], image, image)["frozen"]
        if self.adversary:
            critic, frozen["critic"] = self.adversary.init(rngs[3], image)
        for part, (where, pretrained, _) in self.networks.items():
            if where != "random":  # XLA drops the random numbers
                frozen[part] |= {name: jax.tree.map(jnp.zeros_like, frozen[part][name]) for name in pretrained}
        state = {**optim.begin(), **self.updater.init(params), "codebook": codebook}
        return {**state, "critic": critic, "frozen": frozen}

    def load(self, state, saved=()):
        """-> the state with the trained weights of the frozen networks."""
        frozen = dict(state["frozen"])
        for part, (where, pretrained, _) in self.networks.items():
            if where != "random":
                frozen[part] = weights.fill(frozen[part], pretrained, where)
        return {**state, "frozen": frozen}

    def update(self, state, batch):
        """One step of Eq. 1 -> state, metrics: tokenizer and critic learn from one reconstruction."""
        step = state["step"]
        rng = jax.random.fold_in(jax.random.key(self.config.seed + 1), step)
        params, variables = {"generator": state["params"]}, {"codebook": state["codebook"]}
        if self.adversary:
            params["critic"], variables["critic"] = (state["critic"][key] for key in ("params", "variables"))
        gradients = self.updater.gradients(functools.partial(self._gradients, state["frozen"], step))
        (loss, (variables, metrics)), grads = gradients(params, variables, batch, rng)
        metrics = {"loss": loss, **metrics}
        go = optim.finite(metrics, *grads.values())
        part = {key: state[key] for key in ("params", "ema", "opt")}
        new, how = self.updater.step(part, grads["generator"], step, go)
        codebook = optim.keep(go, variables["codebook"], state["codebook"])  # in which nothing is dead unless `go`
        (new, new["codebook"]), metrics = replace_dead(new, codebook), {**metrics, **how}
        if self.adversary:
            new["critic"], how = self.adversary.update(state["critic"], variables["critic"], grads["critic"], step, go)
            metrics |= how
        return optim.advance(state, new, metrics, go)

    def _gradients(self, frozen, step, params, variables, batch, rng):
        """((loss, (variables, metrics)), grads) of tokenizer and critic, from one part of the batch."""
        image, rngs = transforms.scale(batch["image"]), jax.random.split(rng)
        reconstruct = functools.partial(self._reconstruct, variables["codebook"], image, rngs[0])
        (reconstruction, quantizer_loss), pull, (codebook, aux) = jax.vjp(
            reconstruct, params["generator"], has_aux=True
        )
        near = jax.value_and_grad(self._reconstruction_loss, has_aux=True)
        (loss, terms), gradient = near(reconstruction, image, frozen)  # with respect to the reconstruction
        loss, metrics, grads = loss + quantizer_loss, {**terms, **aux}, {}
        variables = {**variables, "codebook": codebook}
        if self.adversary:
            critic = self.adversary.judge(
                params["critic"], variables["critic"], frozen["critic"], (image, batch["label"]), reconstruction,
                rngs[1], step,
            )  # fmt: skip
            norms = last_layer_norm(pull, gradient), last_layer_norm(pull, critic.gradient)
            weight = self.adversary.weight(*norms, step)
            loss, gradient = loss + weight * critic.loss, gradient + weight * critic.gradient
            variables["critic"], grads["critic"] = critic.variables, critic.grads
            metrics |= {"adversarial": critic.loss, "lambda": weight, **critic.metrics}
            metrics |= {"reconstruction_gradient": norms[0], "adversarial_gradient": norms[1]}
        (grads["generator"],) = pull((gradient, jnp.ones(())))
        return (loss, (variables, metrics)), grads

    def _reconstruct(self, codebook, image, rng, params):
        """-> (reconstruction, L_VQ), (the new codebook variables, aux)."""
        (reconstruction, _, aux), changed = self.model.network.apply(
            {"params": params, "codebook": codebook}, image, train=True, rngs={"codebook": rng}, mutable=["codebook"]
        )
        return (reconstruction, aux["quantizer_loss"]), (changed.get("codebook", {}), aux)

    def _reconstruction_loss(self, reconstruction, image, frozen):
        """L_2 + L_perceptual of Eq. 1, as config.loss and config.perceptual weigh them -> loss, {name: scalar}."""
        error = reconstruction - image
        terms = {"l2": jnp.mean(jnp.square(error)), "l1": jnp.mean(jnp.abs(error))}
        terms["logit_laplace"] = logit_laplace_loss(reconstruction, image)
        loss = sum(weight * terms[name] for name, weight in self.pixels.items())
        if self.distance:
            distances = self.distance.apply({"frozen": frozen["perceptual"]}, image, reconstruction)
            terms["perceptual"] = jnp.mean(distances)
            loss = loss + self.distance_weight * terms["perceptual"]
        return loss, terms


def last_layer_norm(pull, gradient):
    """The norm of a loss's gradient in the decoder's last layer, from its `gradient` in the reconstruction.

    pull: the pull-back of reconstruction and quantizer loss; the rest of it is dead code, which XLA removes.
    """
    (grads,) = pull((gradient, jnp.zeros(())))
    return optax.tree.norm(grads["decoder"]["to_rgb"]["kernel"])
