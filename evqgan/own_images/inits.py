"""Own images whose stages begin with the weights of another model (config.init)."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from evqgan.core import build, config_files, exported
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.own_images.given import PARTS
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training.initial_state import config_of
from evqgan.training.resume_rules import MEMORY_KEYS

Configs = dict[str, dict[str, Any] | None]  # of the models that both stages begin with, by part


def of(config: ConfigDict, part: str) -> str:
    """Return config.init of a stage: given for it, or for both."""
    if config[part].get("init") or not config.init:
        return config[part].get("init", "")
    folder = exported.find(config.init)
    if exported.is_one(folder):
        return config.init
    if not all((folder / name / "config.json").is_file() for name in PARTS):
        raise InputError(
            f"config.init = {config.init}: expected the workdir of both stages, or an exported "
            "model; the workdir of one is given by --config.tokenizer.init or "
            "--config.generator.init"
        )
    return str(folder / part)


def configs(config: ConfigDict) -> Configs:
    """Return the config of the model that each stage begins with; None: it begins untrained.

    Raises InputError for a model of another stage, or of images of another size than is given.
    """
    found: Configs = {}
    for part, stage in PARTS.items():
        init = of(config, part)
        theirs = found[part] = config_of(exported.find(init), stage) if init else None
        if theirs and config.dataset.size and shape(config.dataset.size) != shape_of(theirs):
            raise InputError(
                f"config.dataset.size = {config.dataset.size} is given beside config.init, whose "
                f"{part} is of images of {size_of(theirs)}: leave one of them out"
            )
    return found


def size_of(theirs: Mapping[str, Any]) -> int | tuple[int, int]:
    """Return the size of the images of a config: a number, or (height, width)."""
    return build.plain(theirs["dataset"]).get("size", Dataset.size)


def shape_of(theirs: Mapping[str, Any]) -> tuple[int, int]:
    """Return the (height, width) of the images of a config."""
    return shape(size_of(theirs))


def shape(size: Any) -> tuple[int, int]:
    """Return (height, width) of a size, which is one number for both or a pair."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return height, width


def grid_of(theirs: Mapping[str, Any]) -> int:
    """Return how many tokens the shorter side of a tokenizer's images has."""
    factor = tokenizers.make(ConfigDict(theirs["tokenizer"]), theirs["dtype"]).factor
    return min(shape_of(theirs)) // factor


def of_model(config: ConfigDict, part: str) -> dict[str, Any]:
    """Return {dotted key: value} of a stage's model that are not as configs/folder.py has them."""
    usual = config_files.read_file("folder")[part][part]
    found = build.differences(build.plain(usual), build.plain(config[part][part]))
    return {key: now for key, (_, now) in found.items() if now is not None}


def is_of_memory(key: str) -> bool:
    """Return whether a dotted key of a model says how it is computed, and not what it is."""
    return key.split(".")[-1] in MEMORY_KEYS


def check_model(config: ConfigDict, part: str) -> None:
    """Raise InputError for a given key of a stage's model, which begins with another's weights."""
    given = [f"{part}.{part}.{key}" for key in of_model(config, part) if not is_of_memory(key)]
    if part == "tokenizer" and config.factor:
        given.append("factor")
    if given:
        raise InputError(
            f"config.{given[0]} is given beside config.init, whose model is as it is: leave one of "
            "them out"
        )


def with_model(values: Mapping[str, Any], part: str, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the proposed `values` of a stage with the model of another run's config, `theirs`."""
    kept = {key: value for key, value in values.items() if not key.startswith(f"{part}.")}
    model = dict(theirs[part])
    if part == "generator":
        model["classes"] = None  # as many as the data have
    return {**kept, part: model}
