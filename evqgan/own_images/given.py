"""What a command gives for own images, checked before their folder is looked through."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import build, config_files, schema
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.own_images import proposal
from evqgan.training import optim

PARTS = {"tokenizer": "stage1", "generator": "stage2"}
# Keys for both stages: what each is called in a stage.
SHARED = {
    "batch_size": "batch_size",
    "duration": "duration",
    "learning_rate": "optimizer.learning_rate",
    "seed": "seed",
    "checkpoint_every": "checkpoint_every",
    "changed_data": "changed_data",
}
ONCE = ("folder", "size")  # keys of dataset that are the same for both stages
# Sections of the stages that name a module: its folder, and the class there that takes the keys.
MODULES = {
    "tokenizer.tokenizer.encoder": ("tokenizers", "Encoder"),
    "tokenizer.tokenizer.decoder": ("tokenizers", "Decoder"),
    "tokenizer.tokenizer.quantizer": ("tokenizers.quantizers", "Quantizer"),
    "tokenizer.perceptual.distance": ("losses", "Distance"),
    "tokenizer.adversarial.critic": ("losses", "Critic"),
    "generator.generator": ("generators", "Model"),
}


class Section(NamedTuple):
    """Some given keys."""

    takes: Callable[..., Any]  # whose arguments they are
    keys: dict[str, Any]
    where: str  # their place in the config
    apart: Sequence[str] = ()  # its arguments that are no keys


def dataset_of(config: ConfigDict) -> Dataset:
    """Return the data set of both stages; InputError unless it is a folder, given once."""
    keys = without_none(config.dataset)
    if keys.get("name") or not keys.get("folder"):
        got = f"config.dataset.name = {keys['name']!r}" if keys.get("name") else "none"
        raise InputError(
            f"a folder of images is expected, got {got}: give --config.dataset.folder=FOLDER "
            "(data by name: configs/folder_stage1.py)"
        )
    for part in PARTS:
        for name in ONCE:
            value = config[part].dataset.get(name)
            if value not in (None, "", keys.get(name)):
                raise InputError(
                    f"config.{part}.dataset.{name} = {value!r}: both stages have the same images, "
                    f"give --config.dataset.{name} instead"
                )
    return build.call(Dataset, keys, "config.dataset")


def check(config: ConfigDict) -> None:
    """Raise InputError for a given key or value that is wrong whatever the folder holds."""
    if config.factor not in (None, *proposal.FACTORS):
        few = ", ".join(map(str, proposal.FACTORS))
        raise InputError(
            f"config.factor = {config.factor}: expected one of {few}, pixels of a token's side"
        )
    for takes, keys, where, apart in (*_of_stages(config), *_of_modules(config)):
        build.check(takes, keys, where, apart)


def _of_stages(config: ConfigDict) -> Iterator[Section]:
    """Yield the sections whose keys are those of a stage, or of its optimizer."""
    shared = without_none({key: config[key] for key in SHARED if key != "learning_rate"})
    rate = without_none({"learning_rate": config.learning_rate})
    yield Section(optim.optimizer, rate, "config")
    yield Section(schema.Experiment, shared, "config")
    for part, stage in PARTS.items():
        yield Section(schema.STAGES[stage], without_none(config[part]), f"config.{part}")
        keys = without_none(config[part].get("optimizer", {}))
        yield Section(optim.optimizer, keys, f"config.{part}.optimizer")


def _of_modules(config: ConfigDict) -> Iterator[Section]:
    """Yield the sections whose keys are those of a model, a loss or a sampler."""
    for place, (package, entry) in MODULES.items():
        keys, where = without_none(config_files.at(config, place.split("."))), f"config.{place}"
        module = build.module(package, keys.pop("name", None), where, entry)
        yield Section(getattr(module, entry), keys, where)
    section = config.generator
    module = build.module("generators", section.generator.name, "config.generator.generator")
    for key, takes in (("sample", module.Settings), ("loss", module.loss)):
        apart = models.GIVEN_TO_LOSS if key == "loss" else ()
        keys = without_none(section.get(key, {}))
        yield Section(takes, keys, f"config.generator.{key}", apart)


def without_none(section: Any) -> dict[str, Any]:
    """Return the keys of a section that have a value, as plain Python."""
    return {key: value for key, value in build.plain(section).items() if value is not None}
