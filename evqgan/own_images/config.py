"""The config of configs/folder.py, completed by what was given, proposed, or kept in a workdir."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from evqgan.core import (
    begun,
    build,
    checkpoint,
    config_files,
    exported,
    files,
    processes,
    schema,
    weights,
)
from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.data.dataset import Dataset
from evqgan.data.folder import check_apart
from evqgan.data.survey import Survey, survey
from evqgan.own_images import plans, proposal
from evqgan.own_images.estimate import estimate, lengths
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import optim, run_length, vacancy
from evqgan.training.initial_state import config_of
from evqgan.training.reporting import log

PARTS = {"tokenizer": "stage1", "generator": "stage2"}
PLAN, SURVEY = begun.PLAN, "survey.json"  # in the workdir
# Keys for both stages: what each is called in a stage.
SHARED = {
    "batch_size": "batch_size",
    "duration": "duration",
    "learning_rate": "optimizer.learning_rate",
    "seed": "seed",
    "changed_data": "changed_data",
}
ONCE = ("folder", "size")  # keys of dataset that are the same for both stages
NETWORK = "efficientnet_lite0"  # of the critic and the perceptual distance


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
    vacancy.check(workdir, both=True)
    dataset = dataset_of(config)
    check_apart(workdir, dataset.folder)
    check_factor(config.factor)
    check_given(config)
    if processes.this()[0] == 0:
        files.tried(workdir)
    plan, found = plans.read(workdir), None
    theirs = plans.parts(workdir) if plan is None else {}
    if plan is None or config.changed_data:
        log(f"looking through {dataset.folder}")
        found = survey(dataset, log)
        for line in found.lines():
            log(line)
    is_new = plan is None
    if found and plan is None:
        plan = planned(plans.asked(config, theirs), found, proposal.here())
        plan = plans.made_again(plan, theirs)
        if theirs:
            there = " and ".join(str(workdir / part) for part in theirs)
            log(f"there was no {workdir / PLAN}: {there} stays as it was begun")
    if found:
        check_batches(config, plan or {}, found.train)
    complete = completed(config, plan or {}, workdir)
    if found and is_new:
        for line in lengths(complete, found.train):
            log(f"  {line}")
    check(complete)
    plans.check(complete, workdir, theirs)
    if found and processes.this()[0] == 0:
        files.save_json(workdir / SURVEY, found.as_json())
    if is_new and processes.this()[0] == 0:
        files.save_json(workdir / PLAN, plan)
    if not checkpoint.latest(workdir / "tokenizer"):
        estimate(complete, proposal.here().name, log)
    return complete


def saved(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """Return the complete config of a workdir that `begin` began, for other modes than train."""
    plan = plans.read(workdir)
    if plan is None:
        raise InputError(
            f"{workdir} is no workdir of this config: there is no {workdir / PLAN}; leave --config "
            "out"
        )
    return completed(config, plan, workdir)


def dataset_of(config: ConfigDict) -> Dataset:
    """Return the data set of both stages; InputError unless it is a folder, given once."""
    keys = {name: value for name, value in build.plain(config.dataset).items() if value is not None}
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


def check_factor(factor: int | None) -> None:
    """Raise InputError unless the pixels of a token's side are some that can be proposed."""
    if factor not in (None, *proposal.FACTORS):
        few = ", ".join(map(str, proposal.FACTORS))
        raise InputError(f"config.factor = {factor}: expected one of {few}, pixels of a token")


def check_given(config: ConfigDict) -> None:
    """Raise InputError for a given value that is wrong whatever the folder holds."""
    shared = {key: config[key] for key in SHARED}
    rate = {"learning_rate": shared.pop("learning_rate")}
    sections: list[tuple[Callable[..., Any], dict[str, Any], str]]
    sections = [(optim.optimizer, rate, "config"), (schema.Experiment, shared, "config")]
    sections += [(schema.STAGES[PARTS[x]], build.plain(config[x]), f"config.{x}") for x in PARTS]
    sections += [
        (optim.optimizer, build.plain(config[x].get("optimizer", {})), f"config.{x}.optimizer")
        for x in PARTS
    ]
    for takes, keys, where in sections:
        given = {key: value for key, value in keys.items() if value is not None}
        build.check(takes, given, where)
        with build.at_key(f"{where}.duration"):
            run_length.to_steps(given.get("duration", 1), 1, 1)


def check_batches(config: ConfigDict, plan: Mapping[str, Any], images: int) -> None:
    """Raise InputError for a given batch that is larger than all images to train on.

    plan: what is proposed, which of few images may be larger, too; images: to train on.
    """
    for part in PARTS:
        own = config[part].get("batch_size")
        key = f"{part}.batch_size" if own is not None else "batch_size"
        given = config.batch_size if own is None else own
        if given is not None and given > max(images, plan[part].get("batch_size", 0)):
            raise InputError(
                f"config.{key} = {given:,} is more than the {counted(images, 'image')} to train "
                f"on: give at most {images:,}, or leave it out"
            )


def planned(config: ConfigDict, found: Survey, device: proposal.Device) -> dict[str, Any]:
    """Return what is proposed for a folder, as plan.json has it, and say it.

    {"tokenizer", "generator": {dotted key: value}, "critic": bool, "factor": the given one or None,
    "reasons": [sentence, ...]}
    """
    inits = {part: config_of_init(config, part) for part in PARTS}
    size, grid = config.dataset.size, None
    for part, theirs in inits.items():
        known = theirs and theirs["dataset"].get("size")
        if theirs and size not in (None, known):
            raise InputError(
                f"config.dataset.size = {size} is given beside config.init, whose {part} is of "
                f"images of {known}: leave one of them out"
            )
    if theirs := inits["tokenizer"]:
        size = size or theirs["dataset"].get("size")
        factor = tokenizers.make(ConfigDict(theirs["tokenizer"]), theirs["dtype"]).factor
        grid = (min(size) if isinstance(size, list | tuple) else size) // factor
    asked = proposal.Asked(size, config.factor, config.critic)
    has = weights.path("", NETWORK).is_file()
    made = proposal.propose(found.train, found.shorter["tenth"], device, asked, grid, has)
    plan: dict[str, Any] = {part: getattr(made, part) for part in PARTS}
    for part, theirs in inits.items():
        if theirs:
            check_model(config, part, plan[part])
            plan[part] = with_model(plan[part], part, theirs)
    log("proposed, where it is not given by its key (see the head of configs/folder.py):")
    reasons = made.reasons
    if any(inits.values()):
        ours = ("tokens:", "models:") if config.dataset.size else ("size", "tokens:", "models:")
        reasons = [line for line in reasons if not line.startswith(ours)]
        of = " and ".join(part for part in PARTS if inits[part])
        reasons.append(f"models: the {of} as in config.init")
    if given := given_keys(config, made):
        reasons = [*reasons, f"given, and so not as proposed: {', '.join(given)}"]
    for reason in reasons:
        log(f"  {reason}")
    if found.train < proposal.FEW:
        log(
            f"WARNING {counted(found.train, 'image')} to train on are few: samples will be "
            f"much like them; with {proposal.SOME:,} or more there is something to learn"
        )
    plan |= {"critic": made.critic, "factor": config.factor, "reasons": reasons}
    return json.loads(json.dumps(plan))


def given_keys(config: ConfigDict, made: proposal.Proposal) -> list[str]:
    """Return "duration = '100 steps'" and the like of keys that are given and would be proposed."""
    found = {key: config[key] for key in SHARED if config[key] is not None}
    for part in PARTS:
        values = {key: value_of(config[part], key) for key in getattr(made, part)}
        found |= {f"{part}.{key}": value for key, value in values.items() if value is not None}
    return [f"{key} = {value!r}" for key, value in found.items()]


def init_of(config: ConfigDict, part: str) -> str:
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


def config_of_init(config: ConfigDict, part: str) -> dict[str, Any] | None:
    """Return the config of the model that a stage begins with; None if it begins untrained."""
    init = init_of(config, part)
    return config_of(exported.find(init), PARTS[part]) if init else None


def check_model(config: ConfigDict, part: str, keys: Iterable[str]) -> None:
    """Raise InputError for a given key of the model of a stage that begins with another's weights.

    keys: the dotted ones that are proposed otherwise.
    """
    given = [key for key in keys if key.startswith(f"{part}.") and value_of(config[part], key)]
    name = f"config.{part}.{given[0]}" if given else "config.factor"
    if given or (config.factor and part == "tokenizer"):
        raise InputError(
            f"{name} is given beside config.init, whose model is as it is: leave one of them out"
        )


def value_of(section: ConfigDict, key: str) -> Any:
    """Return the value of a dotted key."""
    *names, last = key.split(".")
    return config_files.at(section, names).get(last)


def with_model(values: Mapping[str, Any], part: str, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return proposed `values` of a stage with the model of another run's config, `theirs`."""
    kept = {key: value for key, value in values.items() if not key.startswith(f"{part}.")}
    model = dict(theirs[part])
    if part == "generator":
        model["classes"] = None  # as many as the data have
    return {**kept, part: model}


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
            if init := init_of(config, part):
                section.init = init
            for key, value in values_of(config, part, plan[part], workdir).items():
                fill(section, key, value)
    critic = plan["critic"] if config.critic is None else config.critic
    with config.tokenizer.unlocked():
        with_or_without_critic(config.tokenizer, critic)
    names = ("stage", "samples", *PARTS)
    return ConfigDict({name: config[name] for name in names})


def values_of(
    config: ConfigDict, part: str, proposed: Mapping[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
    """Return {dotted key: value} of a stage: what is given for both, before what is proposed."""
    shared = {name: config[key] for key, name in SHARED.items() if config[key] is not None}
    data = {name: x for name, x in build.plain(config.dataset).items() if x is not None}
    own, after = (workdir / name / "config.json" for name in (part, "generator"))
    kept = {"duration": files.read_json(own)["duration"]} if own.is_file() else {}
    if part == "tokenizer" and after.is_file():
        shared.pop("duration", None)
    return {**proposed, **kept, **shared, **{f"dataset.{name}": x for name, x in data.items()}}


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
