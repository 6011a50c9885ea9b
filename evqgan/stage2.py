"""Stage 2: training a generator on the ids of a frozen tokenizer (paper, Sec. 3.2 and 3.3, Eq. 2)."""

import dataclasses
import inspect
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import build, checkpoint, files, optim
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype
from evqgan.core.stage import OfStage, Stage
from evqgan.data import codes, pipeline, transforms
from evqgan.tokenizers import tokenizer as tokenizers

CONTRACT = ("Model", "init", "loss", "evaluate", "sample")  # what a module in evqgan/generators/ has
OURS = ("model", "params", "ids", "mask", "label", "rng", "keys", "codebook", "soft")  # what functions of a generator
# take that is no key of config.loss and config.sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keys(OfStage):
    """The keys of a generator's config. stored_ids: which ids it was trained from, noted by `resolve`."""

    generator: dict
    sample: dict = dataclasses.field(default_factory=dict)
    stored_ids: str | None = None


def of_tokenizer_section(model: dict, weights: str = "", dtype: Dtype | None = None, soft: float = 0.0):
    """The keys of config.tokenizer, see `resolve`."""


def resolve(config, classes=None):
    """Fills config.tokenizer.model and dtype from the tokenizer's workdir, config.tokenizer.weights.

    weights = "random" is an untrained tokenizer and needs `model` in the config: for tests of the machinery alone.
    config.tokenizer.soft: the temperature at which codes are drawn in training, and their chances taken as targets, by
    a generator that can (RQ-VAE, Sec. 3.2.3); 0 or absent: the nearest codes.
    With stored ids (config.dataset.codes) config.stored_ids says which: a run goes on with these alone.
    classes: how many the data have, once that is known, see `with_classes`.
    """
    with config.unlocked():
        for section, key in ((config.tokenizer, "weights"), (config.dataset, "codes")):
            if section.get(key):
                section[key] = os.path.expanduser(section[key])
    if not config.tokenizer.get("model"):
        config = with_model(config)
    if config.dataset.get("codes"):
        info = stored_info(config)
        with config.unlocked():
            config.stored_ids = codes.summary(info)
    return config if classes is None else with_classes(config, classes)


def with_classes(config, classes):
    """-> the config with config.generator.classes = `classes` where it is None, which is as many as the data have.

    Without classes there are none to be dropped: then config.generator.class_dropout becomes 0, too.
    """
    if "classes" not in config.generator or config.generator.classes is not None:
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.generator.classes = classes
        if not classes and "class_dropout" in config.generator:
            config.generator.class_dropout = 0.0
    return config


def with_model(config):
    """Fills config.tokenizer.model and, unless it is given, dtype: what the tokenizer was trained in.

    InputError if config.tokenizer.weights is no tokenizer's workdir.
    """
    weights = config.tokenizer.weights
    file = pathlib.Path(weights) / "config.json"
    if not weights or not file.is_file():
        raise InputError(
            f"config.tokenizer.weights = {weights!r} is no tokenizer workdir (no {file}): train one first, with "
            "--config of a stage 1, and give its --workdir here"
        )
    theirs = files.read_json(file)
    if theirs.get("stage") != "stage1":
        raise InputError(
            f"config.tokenizer.weights = {weights!r} is the workdir of {theirs.get('stage')}, not of stage1"
        )
    with config.unlocked():
        config.tokenizer.model = theirs["tokenizer"]
        config.tokenizer.dtype = config.tokenizer.get("dtype") or theirs["dtype"]
    return config


def stored_info(config):
    """The info of the stored ids config.dataset.codes; InputError unless grid, codes and dtype are the config's."""
    folder = config.dataset.codes
    info = codes.read_info(folder)
    tokenizer = tokenizers.of_generator(config)
    shape = build.call(pipeline.Dataset, config.dataset, "config.dataset").shape
    latent = [side // tokenizer.factor for side in shape]
    expected = {"codes": tokenizer.quantizer.codes, "depth": tokenizer.quantizer.depth, "latent": latent}
    expected["tokenizer"] = {**info["tokenizer"], "dtype": tokenizers.dtype_of(config)}
    codes.require(folder, info, expected)
    return info


def trained_tokenizer(tokenizer, workdir, shape):
    """The averaged weights of a tokenizer's workdir for images of `shape` -> {"params", "codebook"} as NumPy, step."""
    like = jax.eval_shape(lambda: blank_tokenizer(tokenizer, jax.random.key(0), shape))
    like = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), like)
    saved = checkpoint.Checkpoints(workdir, create=False)
    theirs = saved.restore({"ema": like["params"], "codebook": like["codebook"]})
    step = saved.steps()[-1]
    saved.close()
    return {"params": theirs["ema"], "codebook": theirs["codebook"]}, step


def blank_tokenizer(tokenizer, rng, shape):
    """An untrained tokenizer's {"params", "codebook"} for images of `shape`."""
    variables = tokenizer.init({"params": rng, "codebook": rng}, jnp.zeros((1, *shape, 3)), train=False)
    return {"params": variables["params"], "codebook": variables.get("codebook", {})}


def grid_of(generators, tokenizer, latent):
    """-> what a generator's Model is told of the token grid, and how many depths of codes are made a row's tokens.

    A Model with a field `depth` knows codes of several depths; for the others they lie side by side in a row, so that
    any generator works on any tokenizer. Fields `codebook_width` (of the codes' vectors) and `factor` are told, too.
    """
    known, quantizer = inspect.signature(generators.Model).parameters, tokenizer.quantizer
    flat = 1 if "depth" in known else quantizer.depth
    given = {"codes": quantizer.codes, "latent": (latent[0], latent[1] * flat)}
    more = {"depth": quantizer.depth, "codebook_width": quantizer.width, "factor": tokenizer.factor}
    return given | {name: value for name, value in more.items() if name in known}, flat


def flattened(ids, flat):
    """ids [B,h,w,D] -> [B,h,w*D,1], depths side by side, if `flat` > 1."""
    return ids if flat == 1 else ids.reshape(*ids.shape[:2], -1, 1)


def deepened(ids, flat):
    """ids [...,h,w*D,1] -> [...,h,w,D]: the inverse of `flattened`."""
    return ids if flat == 1 else ids.reshape(*ids.shape[:-2], -1, flat)


def make(config, examples=1, classes=None):
    """The stage of a resolved `config`; examples: size of the training set; classes: how many the data has, if known.

    Not known, config.generator.classes = None is checked as one class.

    State: step, params, ema (averaged params: what samples), opt, tokenizer (frozen; kept here so that a generator's
    workdir is complete in itself).
    """
    build.call(Keys, config, "config")
    config = with_classes(config, 1 if classes is None else classes)
    build.call(of_tokenizer_section, config.tokenizer, "config.tokenizer")
    tokenizer = tokenizers.of_generator(config)
    height, width = build.call(pipeline.Dataset, config.dataset, "config.dataset").shape
    latent = (height // tokenizer.factor, width // tokenizer.factor)
    if classes is not None and config.generator.get("classes", 0) not in (0, classes):
        raise InputError(f"config.generator.classes is {config.generator.classes}, but the data set has {classes}")
    generators = build.module("generators", config.generator.get("name"), "config.generator", *CONTRACT)
    depth = tokenizer.quantizer.depth
    grid, flat = grid_of(generators, tokenizer, latent)
    model = build.build("generators", "Model", config.generator, "config.generator", **grid, dtype=config.dtype)
    loss_keys, sample_keys = (build.plain(config.get(key, {})) for key in ("loss", "sample"))
    build.check(generators.loss, loss_keys, "config.loss", OURS)
    build.check(generators.sample, sample_keys, "config.sample", OURS)
    soft = config.tokenizer.get("soft", 0.0)
    if soft and "soft" not in inspect.signature(generators.loss).parameters:
        raise InputError(
            f"config.tokenizer.soft = {soft}, but the {config.generator.name} generator learns from the nearest codes "
            "alone: leave it out, or take rqtransformer"
        )
    if soft and config.dataset.get("codes"):
        raise InputError(
            "config.tokenizer.soft draws codes of images: it cannot be used with stored ids (dataset.codes)"
        )
    total = optim.to_steps(config.duration, examples, config.batch_size)
    run = {"examples": examples, "batch_size": config.batch_size, "total": total, "began": config.get("began", 0)}
    updater = optim.updater(config.optimizer, "config.optimizer", ema=0.9999, **run)

    def init():
        rng = jax.random.key(config.seed)
        label = jnp.zeros((1,), jnp.int32)
        params = generators.init(model, rng, label)
        frozen = blank_tokenizer(tokenizer, rng, (height, width))
        return {**optim.begin(), **updater.init(params), "tokenizer": frozen}

    def load(state, saved=()):
        if "tokenizer" in saved:
            return state
        if config.dataset.get("codes"):
            require_same_tokenizer()
        if config.tokenizer.weights == "random":
            return state
        like = {"ema": state["tokenizer"]["params"], "codebook": state["tokenizer"]["codebook"]}
        saved = checkpoint.Checkpoints(config.tokenizer.weights, create=False)
        theirs = saved.restore(like)
        saved.close()
        return {**state, "tokenizer": {"params": theirs["ema"], "codebook": theirs["codebook"]}}

    def require_same_tokenizer():
        """InputError unless the stored ids are of the weights that this run begins with."""
        folder, weights = config.dataset.codes, config.tokenizer.weights
        if weights == "random":
            raise InputError(f"config.dataset.codes = {folder!r}: there are no stored ids of an untrained tokenizer")
        info, theirs = codes.read_info(folder), trained_tokenizer(tokenizer, weights, (height, width))[0]
        same = {**info["tokenizer"], "fingerprint": codes.fingerprint(theirs)}
        codes.require(folder, info, {"tokenizer": same})

    def ids_of(state, batch):
        """The ids of a batch: stored, or of its images -> as the generator takes them."""
        ids = batch.get("ids")
        if ids is None:
            _, ids, _ = tokenizer.apply(state["tokenizer"], transforms.scale(batch["image"]), method="encode")
        return flattened(jax.lax.stop_gradient(ids), flat)

    def of_tokenizer(state):
        """What a generator's functions take of the tokenizer beside ids."""
        if not getattr(generators, "READS_CODEBOOK", False):
            return {}
        return {"codebook": tokenizer.apply(state["tokenizer"], method="codebook")}

    def update(state, batch):
        rng = jax.random.fold_in(jax.random.key(config.seed + 1), state["step"])
        if soft:
            rng, rng_codes = jax.random.split(rng)
            image = transforms.scale(batch["image"])
            ids, chances = tokenizer.apply(state["tokenizer"], image, soft, rng_codes, method="soft_codes")
            data = {"ids": ids, "label": batch["label"], "soft": chances}
        else:
            data = {"ids": ids_of(state, batch), "label": batch["label"]}
        given = {**loss_keys, **of_tokenizer(state)}

        def loss(params, variables, data, rng):  # a generator has no variables beside its parameters
            more = {"soft": data["soft"]} if soft else {}
            value, metrics = generators.loss(model, params, data["ids"], data["label"], rng, **given, **more)
            return value, (variables, metrics)

        differentiate = updater.gradients(jax.value_and_grad(loss, has_aux=True))
        (value, (_, metrics)), grads = differentiate(state["params"], {}, data, rng)
        metrics = {"loss": value, **metrics}
        go = optim.finite(metrics, grads)
        new, how = updater.step({key: state[key] for key in ("params", "ema", "opt")}, grads, state["step"], go)
        return optim.advance(state, new, {**metrics, **how}, go)

    def predict(state, batch, rng):
        ids = ids_of(state, batch)
        given = {**loss_keys, **of_tokenizer(state)}
        numbers = generators.evaluate(model, state["ema"], ids, batch["label"], rng, **given)
        return {"ids": deepened(ids, flat), **numbers}

    def sample(state, ids, mask, label, keys, **changes):
        build.check(generators.sample, changes, "the sampler", OURS)
        given = {**sample_keys, **changes, **of_tokenizer(state)}
        ids, mask = flattened(ids, flat), jnp.repeat(mask, flat, axis=2)
        ids = deepened(generators.sample(model, state["ema"], ids, mask, label, keys, **given), flat)
        if changes.get("trace"):
            return ids
        z_q = tokenizer.apply(state["tokenizer"], ids, method="embed")
        return ids, transforms.unscale(tokenizer.apply(state["tokenizer"], z_q, method="decode"))

    def check_mask(mask):
        if hasattr(generators, "check_mask"):
            generators.check_mask(np.repeat(mask, flat, axis=2))

    notes = (
        [f"a code at each of {depth} depths is a token of its own: {latent[0]} x {latent[1] * depth}"]
        if flat > 1
        else []
    )
    return Stage(init, load, update, predict, sample, check_mask, notes=tuple(notes))
