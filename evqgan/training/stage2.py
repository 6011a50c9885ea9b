"""Stage 2: training a generator on the ids of a frozen tokenizer (paper, Sec. 3.2 and 3.3, Eq. 2)."""

import dataclasses
import os
import pathlib
from typing import Any

import jax

from evqgan import models
from evqgan.core import build, files, schema
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype
from evqgan.data import codes, pipeline, transforms
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import optim


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


def make(config, examples=1, classes=None):
    """The stage of a resolved `config`; examples: size of the training set; classes: how many the data has, if known.

    Not known, config.generator.classes = None is checked as one class.
    """
    schema.check(config)
    config = with_classes(config, 1 if classes is None else classes)
    build.call(of_tokenizer_section, config.tokenizer, "config.tokenizer")
    model = models.of(config)
    if classes is not None and config.generator.get("classes", 0) not in (0, classes):
        raise InputError(f"config.generator.classes is {config.generator.classes}, but the data set has {classes}")
    build.check(model.module.loss, build.plain(config.get("loss", {})), "config.loss", models.OURS)
    model.settings(config.get("sample", {}), "config.sample")
    soft = config.tokenizer.get("soft", 0.0)
    if soft and not model.traits.soft_targets:
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
    return GeneratorStage(config, model, updater)


@dataclasses.dataclass(frozen=True, eq=False)  # jit asks for a hash, and by identity there is one
class GeneratorStage:
    """The stage as the loop knows it, see `training.stage.Stage`; made by `make`.

    State: step, params, ema (averaged params: what samples), opt, tokenizer (frozen; kept here so that a generator's
    workdir is complete in itself).
    """

    config: Any
    model: models.TokenGenerator
    updater: Any  # of `optim.updater`
    shown: tuple[str, ...] = ()

    @property
    def notes(self):
        """Lines for the log."""
        if self.model.flat == 1:
            return ()
        h, w = self.model.tokenizer.grid
        return (f"a code at each of {self.model.flat} depths is a token of its own: {h} x {w * self.model.flat}",)

    def init(self):
        """-> the state of an untrained generator on an untrained tokenizer."""
        rng = jax.random.key(self.config.seed)
        params = self.model.init(rng)
        return {**optim.begin(), **self.updater.init(params), "tokenizer": self.model.tokenizer.init(rng)}

    def load(self, state, saved=()):
        """-> the state with the tokenizer of config.tokenizer.weights, unless that is `saved`."""
        if "tokenizer" in saved:
            return state
        weights = self.config.tokenizer.weights
        if self.config.dataset.get("codes"):
            self._require_tokenizer_of_stored_ids()
        if weights == "random":
            return state
        return {**state, "tokenizer": self.model.tokenizer.restored(weights)[0]}

    def _require_tokenizer_of_stored_ids(self):
        """InputError unless the stored ids are of the weights that this run begins with."""
        folder, weights = self.config.dataset.codes, self.config.tokenizer.weights
        if weights == "random":
            raise InputError(f"config.dataset.codes = {folder!r}: there are no stored ids of an untrained tokenizer")
        info, (theirs, _) = codes.read_info(folder), self.model.tokenizer.restored(weights)
        codes.require(folder, info, {"tokenizer": {**info["tokenizer"], "fingerprint": codes.fingerprint(theirs)}})

    def update(self, state, batch):
        """One step of Eq. 2 -> state, metrics."""
        rng = jax.random.fold_in(jax.random.key(self.config.seed + 1), state["step"])
        data, rng = self._data(state["tokenizer"], batch, rng)
        keys = build.plain(self.config.get("loss", {}))

        def loss(params, variables, data, rng):  # a generator has no variables beside its parameters
            soft = data.get("soft")
            value, metrics = self.model.loss(
                params, state["tokenizer"], data["ids"], data["label"], rng, soft=soft, **keys
            )
            return value, (variables, metrics)

        differentiate = self.updater.gradients(jax.value_and_grad(loss, has_aux=True))
        (value, (_, metrics)), grads = differentiate(state["params"], {}, data, rng)
        metrics = {"loss": value, **metrics}
        go = optim.finite(metrics, grads)
        part = {key: state[key] for key in ("params", "ema", "opt")}
        new, how = self.updater.step(part, grads, state["step"], go)
        return optim.advance(state, new, {**metrics, **how}, go)

    def _data(self, tokenizer, batch, rng):
        """What the generator learns from: {"ids", "label"}, with soft targets {"soft"}, too; and the rest of `rng`."""
        soft = self.config.tokenizer.get("soft", 0.0)
        if not soft:
            return {"ids": self.model.ids_of(tokenizer, batch), "label": batch["label"]}, rng
        rng, rng_codes = jax.random.split(rng)
        image = transforms.scale(batch["image"])
        soft_codes = self.model.tokenizer.network.apply
        ids, chances = soft_codes(tokenizer, image, soft, rng_codes, method="soft_codes")
        return {"ids": ids, "label": batch["label"], "soft": chances}, rng
