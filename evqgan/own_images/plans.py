"""The plan.json of a workdir, what was proposed for its folder: made, read, or made again."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from evqgan.core import build, config_files, exported, files, quickstart_record, weights
from evqgan.core.errors import InputError
from evqgan.core.processes import tell
from evqgan.core.progress import counted
from evqgan.data.survey import Survey
from evqgan.own_images import inits, proposal
from evqgan.own_images.given import PARTS, SHARED
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import resume_rules

NETWORK = "efficientnet_lite0"  # of the critic and the perceptual distance
KINDS = {**dict.fromkeys(PARTS, dict), "factor": int | None, "critic": bool}  # of the keys


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Return what was proposed for a workdir, None where there is no plan.json."""
    file = workdir / quickstart_record.PLAN
    if not file.is_file():
        return None
    plan = files.read_json(file, "what was proposed for the folder")
    for key, kind in KINDS.items():
        if key not in plan or not isinstance(plan[key], kind):
            what = "is not as it was written" if key in plan else "is missing"
            raise InputError(
                f"{file} is damaged, its {key!r} {what}: replace it by a copy, or move it away and "
                f"{files.ANEW}"
            )
    return plan


def planned(config: ConfigDict, found: Survey, device: proposal.Device) -> dict[str, Any]:
    """Return what is proposed for a folder, as plan.json has it, and say it.

    {"tokenizer", "generator": {dotted key: value}, "critic": bool, "factor": the given one or None,
    "reasons": [sentence, ...]}
    """
    models = inits.configs(config)
    size, grid = config.dataset.size, None
    if theirs := models["tokenizer"]:
        size, grid = inits.size_of(theirs), inits.grid_of(theirs)
    asked = proposal.Asked(size, config.factor, config.critic)
    has = weights.path("", NETWORK).is_file()
    made = proposal.propose(found.train, found.shorter["tenth"], device, asked, grid, has)
    plan: dict[str, Any] = {part: getattr(made, part) for part in PARTS}
    for part, theirs in models.items():
        if theirs:
            inits.check_model(config, part)
            plan[part] = inits.with_model(plan[part], part, theirs)
    reasons = list(reasons_of(config, made, models))
    tell("proposed, where it is not given by its key (see the head of configs/folder.py):")
    for reason in reasons:
        tell(f"  {reason}")
    if found.train < proposal.FEW:
        tell(
            f"WARNING {counted(found.train, 'image')} to train on are few: samples will be "
            f"much like them; with {proposal.SOME:,} or more there is something to learn"
        )
    plan |= {"critic": made.critic, "factor": config.factor, "reasons": reasons}
    return json.loads(json.dumps(plan))  # as it is read again: with lists for tuples


def reasons_of(config: ConfigDict, made: proposal.Proposal, models: inits.Configs) -> Iterator[str]:
    """Yield why it was proposed, a line each; models: those that the stages begin with."""
    taken = [part for part, theirs in models.items() if theirs]
    of_model = ("tokens:", "models:") if config.dataset.size else ("size", "tokens:", "models:")
    for reason in made.reasons:
        if not (taken and reason.startswith(of_model)):
            yield reason
    if taken:
        yield f"models: the {' and '.join(taken)} as in config.init"
    if given := given_keys(config, made):
        yield f"given, and so not as proposed: {', '.join(given)}"


def given_keys(config: ConfigDict, made: proposal.Proposal) -> list[str]:
    """Return "duration = '100 steps'" and the like of keys that are given and would be proposed."""
    found = {key: config[key] for key in SHARED if config[key] is not None}
    for part in PARTS:
        for key in getattr(made, part):
            *names, last = key.split(".")
            value = config_files.at(config[part], names).get(last)
            if value is not None:
                found[f"{part}.{key}"] = value
    return [f"{key} = {value!r}" for key, value in found.items()]


def parts(workdir: pathlib.Path) -> dict[str, ConfigDict]:
    """Return the configs of the parts of a workdir that have begun, {part: config}."""
    found = {part: resume_rules.read_config(workdir / part) for part in exported.PARTS}
    return {part: config for part, config in found.items() if config is not None}


def asked(config: ConfigDict, theirs: Mapping[str, ConfigDict]) -> ConfigDict:
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


def made_again(plan: dict[str, Any], theirs: Mapping[str, ConfigDict]) -> dict[str, Any]:
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


def check(complete: ConfigDict, workdir: pathlib.Path, theirs: Mapping[str, ConfigDict]) -> None:
    """Raise InputError unless the parts of a run, `theirs`, were begun with a config."""
    for part, config in theirs.items():
        ours = complete[part].copy_and_resolve_references()
        ours.duration = config.duration  # which may grow
        resume_rules.settings(ours, workdir / part)
