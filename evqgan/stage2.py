"""Stage 2: training a generator on the ids of a frozen tokenizer (paper, Sec. 3.2 and 3.3, Eq. 2)."""

import json
import pathlib

import jax
import jax.numpy as jnp

from evqgan.core import build, checkpoint, optim
from evqgan.core.errors import InputError
from evqgan.core.stage import Stage
from evqgan.data import pipeline, transforms
from evqgan.tokenizers import tokenizer as tokenizers


def resolve(config):
    """Fills config.tokenizer.model from the tokenizer's workdir, config.tokenizer.weights.

    weights = "random" is an untrained tokenizer and needs `model` in the config: for tests of the machinery alone.
    """
    if config.tokenizer.get("model"):
        return config
    weights = config.tokenizer.weights
    file = pathlib.Path(weights) / "config.json"
    if not weights or not file.is_file():
        raise InputError(
            f"config.tokenizer.weights = {weights!r} is no tokenizer workdir (no {file}): train one first, with "
            "--config of a stage 1, and give its --workdir here"
        )
    theirs = json.loads(file.read_text())
    if theirs.get("stage") != "stage1":
        raise InputError(
            f"config.tokenizer.weights = {weights!r} is the workdir of {theirs.get('stage')}, not of stage1"
        )
    with config.unlocked():
        config.tokenizer.model = theirs["tokenizer"]
    return config


def make(config, examples=1, classes=None):
    """The stage of a resolved `config`; examples: size of the training set; classes: how many the data has, if known.

    State: step, params, ema (averaged params: what samples), opt, tokenizer (frozen; kept here so that a generator's
    workdir is complete in itself).
    """
    tokenizer = tokenizers.make(config.tokenizer.model, config.dtype)
    height, width = build.call(pipeline.Dataset, config.dataset, "config.dataset").shape
    latent = (height // tokenizer.factor, width // tokenizer.factor)
    codes = tokenizer.quantizer.codes
    if classes is not None and config.generator.get("classes", 0) not in (0, classes):
        raise InputError(f"config.generator.classes is {config.generator.classes}, but the data set has {classes}")
    generators = build.module("generators", config.generator.name, "config.generator")
    model = build.build(
        "generators", "Model", config.generator, "config.generator", codes=codes, latent=latent, dtype=config.dtype
    )
    loss_keys, sample_keys = build.plain(config.loss), build.plain(config.sample)
    build.check(generators.loss, loss_keys, "config.loss")
    build.check(generators.sample, sample_keys, "config.sample")
    total = optim.to_steps(config.duration, examples, config.batch_size)
    run = {"examples": examples, "batch_size": config.batch_size, "total": total}
    updater = optim.updater(config.optimizer, "config.optimizer", ema=0.9999, **run)

    def init():
        rng = jax.random.key(config.seed)
        label = jnp.zeros((1,), jnp.int32)
        params = generators.init(model, rng, label)
        rngs = {"params": rng, "codebook": rng}
        frozen = tokenizer.init(rngs, jnp.zeros((1, height, width, 3)), train=False)
        frozen = {"params": frozen["params"], "codebook": frozen.get("codebook", {})}
        return {**optim.begin(), **updater.init(params), "tokenizer": frozen}

    def load(state):
        if config.tokenizer.weights == "random":
            return state
        like = {"ema": state["tokenizer"]["params"], "codebook": state["tokenizer"]["codebook"]}
        saved = checkpoint.Checkpoints(config.tokenizer.weights, create=False)
        theirs = saved.restore(like)
        saved.close()
        return {**state, "tokenizer": {"params": theirs["ema"], "codebook": theirs["codebook"]}}

    def encode(state, image):
        _, ids, _ = tokenizer.apply(state["tokenizer"], transforms.scale(image), method="encode")
        return jax.lax.stop_gradient(ids)

    def update(state, batch):
        rng = jax.random.fold_in(jax.random.key(config.seed + 1), state["step"])
        data = {"ids": encode(state, batch["image"]), "label": batch["label"]}

        def loss(params, variables, data, rng):  # a generator has no variables beside its parameters
            value, metrics = generators.loss(model, params, data["ids"], data["label"], rng, **loss_keys)
            return value, (variables, metrics)

        differentiate = updater.gradients(jax.value_and_grad(loss, has_aux=True))
        (value, (_, metrics)), grads = differentiate(state["params"], {}, data, rng)
        new, how = updater.step({key: state[key] for key in ("params", "ema", "opt")}, grads, state["step"])
        return optim.advance(state, new, {"loss": value, **metrics, **how})

    def predict(state, batch, rng):
        ids = encode(state, batch["image"])
        return {"ids": ids, **generators.evaluate(model, state["ema"], ids, batch["label"], rng, **loss_keys)}

    def sample(state, ids, mask, label, keys, **changes):
        build.check(generators.sample, changes, "the sampler")
        ids = generators.sample(model, state["ema"], ids, mask, label, keys, **{**sample_keys, **changes})
        z_q = tokenizer.apply(state["tokenizer"], ids, method="embed")
        return ids, transforms.unscale(tokenizer.apply(state["tokenizer"], z_q, method="decode"))

    return Stage(init, load, update, predict, sample)
