"""Stage 1: training a tokenizer (paper, Sec. 3.1, Eq. 1).

L = L_2 + L_perceptual + L_VQ + lambda * L_adv; generator and critic learn in one step, from one reconstruction.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from evqgan import adversary as adversaries
from evqgan.core import build, optim, weights
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype
from evqgan.core.stage import OfStage, Stage
from evqgan.data import pipeline, transforms
from evqgan.tokenizers import quantizers
from evqgan.tokenizers import tokenizer as tokenizers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keys(OfStage):
    """The keys of a tokenizer's config: the terms of the loss beside those of `pixel_losses`, which are in `loss`."""

    perceptual: dict | None = None
    adversarial: dict | None = None


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
            module = build.module("critics", name, f"config.{section}.{key}")
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
    return build.build("critics", "Distance", distance, "config.perceptual.distance", dtype=dtype), weight


def make(config, examples=1, classes=None):
    """The stage of `config`; examples: size of the training set; classes: how many the data has, if known. State:

    step, skipped; params and codebook (what is trained), ema (averaged params: what is evaluated and kept), opt;
    critic (its params, opt and variables); frozen (the networks of the perceptual loss and of the critic, and the
    critic's random projections, which exist nowhere else).
    """
    build.call(Keys, config, "config")
    model = tokenizers.make(config.tokenizer, config.dtype)
    total = optim.to_steps(config.duration, examples, config.batch_size)
    run = {"examples": examples, "batch_size": config.batch_size, "total": total, "began": config.get("began", 0)}
    updater = optim.updater(config.optimizer, "config.optimizer", ema=0.999, **run)  # 0.999: MaskGIT's tokenizer
    pixels = build.call(pixel_losses, config.get("loss", {}), "config.loss")
    distance = adversary = None
    if uses(config, "perceptual"):
        distance, distance_weight = build.call(perceptual, config.perceptual, "config.perceptual", dtype=config.dtype)
    if uses(config, "adversarial"):
        make_adversary, keys = adversaries.make, config.adversarial
        adversary = build.call(make_adversary, keys, "config.adversarial", dtype=config.dtype, **run)
        if classes is not None and adversary.classes not in (0, classes):
            wanted = adversary.classes
            raise InputError(f"config.adversarial.critic.classes is {wanted}, but the data set has {classes}")
    height, width = build.call(pipeline.Dataset, config.dataset, "config.dataset").shape
    networks = frozen_networks(config)

    def init():
        rngs, image = jax.random.split(jax.random.key(config.seed), 4), jnp.zeros((1, height, width, 3))
        variables = model.init({"params": rngs[0], "codebook": rngs[1]}, image, train=True)
        if adversary and "to_rgb" not in variables["params"]["decoder"]:
            raise InputError("the adaptive weight is taken at the decoder's last layer, which has to be called to_rgb")
        state = {**optim.begin(), **updater.init(variables["params"]), "codebook": variables.get("codebook", {})}
        state |= {"critic": {}, "frozen": {}}
        if distance:
            state["frozen"]["perceptual"] = distance.init(rngs[2], image, image)["frozen"]
        if adversary:
            state["critic"], state["frozen"]["critic"] = adversary.init(rngs[3], image)
        for part, (where, pretrained, _) in networks.items():
            if where != "random":  # `load` fills these in; XLA drops the random numbers
                blank = {name: jax.tree.map(jnp.zeros_like, state["frozen"][part][name]) for name in pretrained}
                state["frozen"][part] |= blank
        return state

    def load(state, saved=()):
        frozen = dict(state["frozen"])
        for part, (where, pretrained, _) in networks.items():
            if where != "random":
                frozen[part] = weights.fill(frozen[part], pretrained, where)
        return {**state, "frozen": frozen}

    def update(state, batch):
        step, frozen = state["step"], state["frozen"]

        def reconstruction_loss(reconstruction, image):
            error = reconstruction - image
            terms = {"l2": jnp.mean(jnp.square(error)), "l1": jnp.mean(jnp.abs(error))}
            terms["logit_laplace"] = logit_laplace_loss(reconstruction, image)
            value = sum(weight * terms[name] for name, weight in pixels.items())
            if distance:
                terms["perceptual"] = jnp.mean(distance.apply({"frozen": frozen["perceptual"]}, image, reconstruction))
                value = value + distance_weight * terms["perceptual"]
            return value, terms

        def differentiate(params, variables, batch, rng):
            """((loss, (variables, metrics)), grads) of generator and critic, from one part of the batch."""
            image = transforms.scale(batch["image"])
            rngs = jax.random.split(rng)

            def reconstruct(params):
                (reconstruction, _, aux), changed = model.apply(
                    {"params": params, "codebook": variables["codebook"]}, image, train=True,
                    rngs={"codebook": rngs[0]}, mutable=["codebook"],
                )  # fmt: skip
                return (reconstruction, aux["quantizer_loss"]), (changed.get("codebook", {}), aux)

            (reconstruction, quantizer_loss), pull, (codebook, aux) = jax.vjp(
                reconstruct, params["generator"], has_aux=True
            )
            (value, terms), gradient = jax.value_and_grad(reconstruction_loss, has_aux=True)(reconstruction, image)
            value, metrics, grads = value + quantizer_loss, {**terms, **aux}, {}
            variables = {**variables, "codebook": codebook}
            if adversary:

                def last(gradient):
                    """The norm of a loss's gradient in the last layer, from its gradient in the reconstruction.

                    The rest of this pull-back is dead code, which XLA removes.
                    """
                    (grads,) = pull((gradient, jnp.zeros(())))
                    return optax.tree.norm(grads["decoder"]["to_rgb"]["kernel"])

                judged = adversary.judge(
                    params["critic"], variables["critic"], frozen["critic"], (image, batch["label"]), reconstruction,
                    rngs[1], step,
                )  # fmt: skip
                norms = last(gradient), last(judged.gradient)
                weight = adversary.weight(*norms, step)
                gradient, value = gradient + weight * judged.gradient, value + weight * judged.loss
                variables["critic"], grads["critic"] = judged.variables, judged.grads
                metrics |= {"adversarial": judged.loss, "lambda": weight, **judged.metrics}
                metrics |= {"reconstruction_gradient": norms[0], "adversarial_gradient": norms[1]}
            (grads["generator"],) = pull((gradient, jnp.ones(())))
            return (value, (variables, metrics)), grads

        rng = jax.random.fold_in(jax.random.key(config.seed + 1), step)
        params, variables = {"generator": state["params"]}, {"codebook": state["codebook"]}
        if adversary:
            params["critic"], variables["critic"] = (state["critic"][key] for key in ("params", "variables"))
        (value, (variables, metrics)), grads = updater.gradients(differentiate)(params, variables, batch, rng)
        part = {key: state[key] for key in ("params", "ema", "opt")}
        metrics = {"loss": value, **metrics}
        go = optim.finite(metrics, *grads.values())
        new, how = updater.step(part, grads["generator"], step, go)
        codebook = optim.keep(go, variables["codebook"], state["codebook"])  # in which nothing is dead unless `go`
        (new, new["codebook"]), metrics = quantizers.replace_dead(new, codebook), {**metrics, **how}
        if adversary:
            new["critic"], how = adversary.update(state["critic"], variables["critic"], grads["critic"], step, go)
            metrics |= how
        return optim.advance(state, new, metrics, go)

    def predict(state, batch, rng):
        variables = {"params": state["ema"], "codebook": state["codebook"]}
        reconstruction, ids, _ = model.apply(variables, transforms.scale(batch["image"]), train=False)
        return {"reconstruction": transforms.unscale(reconstruction), "ids": ids}

    terms = [f"{weight:g} x {name}" for name, weight in pixels.items()]
    terms += [f"{distance_weight:g} x perceptual ({config.perceptual.distance.name})"] if distance else []
    notes = [" + ".join(["loss: quantizer", *terms, *(["lambda x adversarial"] if adversary else [])])]
    notes += [adversary.note] if adversary else []
    for where, pretrained, key in networks.values():
        if where == "random":
            notes.append(f'{key} = "random": {", ".join(pretrained.values())} are UNTRAINED, their terms mean little')
    shown = ("l2", "perceptual", "lambda", "real_logits", "fake_logits")
    return Stage(init, load, update, predict, notes=tuple(notes), shown=shown)
