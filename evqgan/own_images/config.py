"""The config of configs/folder.py, completed by what was given, proposed, or kept in a workdir."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from evqgan.core import checkpoint, config_files, files, processes, quickstart_record
from evqgan.core.errors import InputError
from evqgan.core.processes import tell
from evqgan.core.progress import counted
from evqgan.data.dataset import Dataset
from evqgan.data.folder import check_apart
from evqgan.data.survey import Survey, survey
from evqgan.own_images import given, inits, plans, proposal
from evqgan.own_images.estimate import estimate, lengths
from evqgan.own_images.given import PARTS, SHARED, dataset_of
from evqgan.training import workdir_check

__all__ = ["PARTS", "begin", "dataset_of", "is_one", "saved"]
PLAN, SURVEY = quickstart_record.PLAN, "survey.json"  # in the workdir


def is_one(config: ConfigDict) -> bool:
    """Return whether a config is of the kind of configs/folder.py."""
    return config.stage == "quickstart" and "dataset" in config


def begin(
    config: ConfigDict, workdir: pathlib.Path, check: Callable[[ConfigDict], None]
) -> ConfigDict:
    """Return the config of a quickstart that a config of the kind of configs/folder.py makes.

    What is proposed is kept in the workdir, and not proposed again when a run goes on.
    check: raises InputError for a complete config that cannot be trained; nothing is written then.
    """
    workdir_check.check(workdir, both=True)
    dataset = dataset_of(config)
    check_apart(workdir, dataset.folder)
    given.check(config)
    chief = processes.this()[0] == 0
    if chief:
        files.tried(workdir)
    plan, theirs, found = plans.read(workdir), {}, None
    if is_new := plan is None:
        theirs, found = plans.parts(workdir), looked_through(dataset)
        plan = new_plan(config, workdir, theirs, found)
    elif config.changed_data:
        found = looked_through(dataset)
    if found:
        check_batches(config, plan, found.train)
    complete = completed(config, plan, workdir)
    if found and is_new:
        for line in lengths(complete, found.train):
            tell(f"  {line}")
    check(complete)
    plans.check(complete, workdir, theirs)
    if found and chief:
        files.save_json(workdir / SURVEY, found.as_json())
    if is_new and chief:
        files.save_json(workdir / PLAN, plan)
    if not checkpoint.latest(workdir / "tokenizer"):
        estimate(complete, proposal.here().name, tell)
    return complete


def looked_through(dataset: Dataset) -> Survey:
    """Return what a folder of images holds, and say it."""
    tell(f"looking through {dataset.folder}")
    found = survey(dataset, tell)
    for line in found.lines():
        tell(line)
    return found


def new_plan(
    config: ConfigDict, workdir: pathlib.Path, theirs: Mapping[str, ConfigDict], found: Survey
) -> dict[str, Any]:
    """Return the plan of a run that begins, or of one that has lost its own.

    theirs: the configs of the parts of `workdir` that have begun, which stay as they are.
    """
    plan = plans.planned(plans.asked(config, theirs), found, proposal.here())
    if theirs:
        there = " and ".join(str(workdir / part) for part in theirs)
        tell(f"there was no {workdir / PLAN}: {there} stays as it was begun")
    return plans.made_again(plan, theirs)


def saved(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """Return the complete config of a workdir that `begin` began, for other modes than train."""
    plan = plans.read(workdir)
    if plan is None:
        raise InputError(
            f"{workdir} is no workdir of this config: there is no {workdir / PLAN}; leave --config "
            "out"
        )
    return completed(config, plan, workdir)


def check_batches(config: ConfigDict, plan: Mapping[str, Any], images: int) -> None:
    """Raise InputError for a given batch that is larger than all images to train on.

    plan: what is proposed, which of few images may be larger, too; images: to train on.
    """
    for part in PARTS:
        own = config[part].get("batch_size")
        key = f"{part}.batch_size" if own is not None else "batch_size"
        size = config.batch_size if own is None else own
        if size is not None and size > max(images, plan[part].get("batch_size", 0)):
            raise InputError(
                f"config.{key} = {size:,} is more than the {counted(images, 'image')} to train "
                f"on: give at most {images:,}, or leave it out"
            )


def completed(config: ConfigDict, plan: Mapping[str, Any], workdir: pathlib.Path) -> ConfigDict:
    """Return the config of a quickstart: what is given, then what is common to both, then the plan.

    A run that goes on has the duration it had, and its tokenizer that in any case once a generator
    knows its codes.
    """
    if config.factor not in (None, plan["factor"]):
        raise InputError(
            f"{workdir} was begun with config.factor = {plan['factor']}, now it is "
            f"{config.factor}: give another --workdir"
        )
    config = config.copy_and_resolve_references()
    for part in PARTS:
        section = config[part]
        with section.unlocked(), section.ignore_type():
            if init := inits.of(config, part):
                section.init = init
            own = inits.of_model(config, part)
            for key, value in values_of(config, part, plan[part], workdir).items():
                fill(section, key, value)
            for key in filter(inits.is_of_memory, own):  # a model of config.init has its own, too
                *names, last = key.split(".")
                config_files.at(section[part], names)[last] = own[key]
    critic = plan["critic"] if config.critic is None else config.critic
    with config.tokenizer.unlocked():
        with_or_without_critic(config.tokenizer, critic)
    return ConfigDict({name: config[name] for name in ("stage", "samples", *PARTS)})


def values_of(
    config: ConfigDict, part: str, proposed: Mapping[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
    """Return {dotted key: value} of a stage: what is given for both, before what is proposed."""
    shared = {name: config[key] for key, name in SHARED.items() if config[key] is not None}
    data = {f"dataset.{name}": x for name, x in given.without_none(config.dataset).items()}
    own, after = (workdir / name / "config.json" for name in (part, "generator"))
    kept = {"duration": files.read_json(own).get("duration")} if own.is_file() else {}
    if part == "tokenizer" and after.is_file():
        shared.pop("duration", None)
    return {"checkpoint_every": proposal.OFTEN, **proposed, **kept, **shared, **data}


def fill(section: ConfigDict, key: str, value: Any) -> None:
    """Set a dotted key of an unlocked section, unless it has a value; a section is replaced."""
    *names, last = key.split(".")
    for name in names:
        section = section[name]
    old = section.get(last)
    if isinstance(old, ConfigDict):
        section[last] = ConfigDict(value)
    elif old is None:
        section[last] = value


def with_or_without_critic(tokenizer: ConfigDict, critic: bool) -> None:
    """Take the perceptual and the adversarial term out of a stage 1, unless it has a critic."""
    if not critic:
        del tokenizer.perceptual, tokenizer.adversarial
        tokenizer.evals.reconstruction = ConfigDict()
        tokenizer.best = "val/mse"
    elif tokenizer.dtype == "float32":
        # As configs/drawings_stage1.py has it for a CPU, and why.
        tokenizer.perceptual.weight = 0.2
        tokenizer.adversarial.critic.update({"interp224": False, "im_res": 128})
