"""The plan.json of a workdir, what was proposed for its folder: read, or made again."""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from evqgan.core import begun, build, exported, files
from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import resume_rules

KEYS = {*exported.PARTS, "factor", "critic"}


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Return what was proposed for a workdir, None where there is no plan.json."""
    file = workdir / begun.PLAN
    if not file.is_file():
        return None
    plan = files.read_json(file, "what was proposed for the folder")
    if missing := KEYS - plan.keys():
        raise InputError(
            f"{file} has no {sorted(missing)[0]!r}: replace it by a copy, or move it away and "
            f"{files.ANEW}"
        )
    return plan


def parts(workdir: pathlib.Path) -> dict[str, ConfigDict]:
    """Return the configs of the parts of a workdir that have begun, {part: config}."""
    found = {part: resume_rules.read_config(workdir / part) for part in exported.PARTS}
    return {part: config for part, config in found.items() if config is not None}


def asked(config: ConfigDict, theirs: dict[str, ConfigDict]) -> ConfigDict:
    """Return the config of a run whose plan is made again, with the size of its parts, `theirs`.

    Without its own, a generator that has not begun would be proposed for other images.
    """
    if "tokenizer" not in theirs:
        return config
    config, first = config.copy_and_resolve_references(), theirs["tokenizer"]
    with build.config_of(first), config.unlocked(), config.ignore_type():
        config.dataset.size = first.dataset.size
        if not first.get("init"):
            config.factor = tokenizers.make(first.tokenizer, first.dtype).factor
    return config


def made_again(plan: dict[str, Any], theirs: dict[str, ConfigDict]) -> dict[str, Any]:
    """Return a plan with the values that the parts of a run, `theirs`, were begun with.

    plan: proposed now, maybe for other images, or on another device.
    """
    plan = dict(plan)
    for part, config in theirs.items():
        values = {key: value_of(config, key) for key in plan[part]}
        if isinstance(values.get("generator"), dict):  # of another model, by config.init
            values["generator"]["classes"] = None
        plan[part] = values
    if "tokenizer" in theirs:
        plan["critic"] = "adversarial" in theirs["tokenizer"]
    return plan


def value_of(config: ConfigDict, key: str) -> Any:
    """Return the value of a dotted key as JSON has it; None where there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, ConfigDict) else None
    return value.to_dict() if isinstance(value, ConfigDict) else value


def check(complete: ConfigDict, workdir: pathlib.Path, theirs: dict[str, ConfigDict]) -> None:
    """Raise InputError unless the parts of a run, `theirs`, were begun with a config."""
    for part, config in theirs.items():
        ours = complete[part].copy_and_resolve_references()
        ours.duration = config.duration  # which may grow
        resume_rules.settings(ours, workdir / part)
