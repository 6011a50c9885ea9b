"""Whose a workdir is: the run of which config, and which of its keys may be others later on."""

import json
import os
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from evqgan.core import build, files
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.training import run_length, stage2
from evqgan.training.stage import with_defaults

# Keys of weights that are in the run's own checkpoints, so that it matters no more where they came
# from; but from or to "random", which is no place, they cannot change.
WEIGHTS = (
    "tokenizer.weights",
    "perceptual.weights",
    "adversarial.weights",
    "evals.reconstruction.weights",
)
# Keys that say how a run is watched and where it runs, not what it computes: they may change when
# it goes on. So may the place of stored ids, as config.stored_ids says which they are.
FREE = (
    "log_every",
    "eval_every",
    "checkpoint_every",
    "evals",
    "sample",
    "mesh",
    "keep",
    "alarm",
    "dataset.codes",
    "changed_data",
    *WEIGHTS,
)
# What a config does not say and training finds out.
FOUND = {
    "stage1": ("class_names", "data"),
    "stage2": ("class_names", "data", "tokenizer", "stored_ids"),
}


def within(key: str, sections: tuple[str, ...]) -> bool:
    """Return whether a dotted key is one of `sections`, or lies in one of them."""
    return any(f"{key}.".startswith(f"{section}.") for section in sections)


def claim(workdir: str | os.PathLike, config: Any, fresh: bool = False) -> None:
    """Claim `workdir` for `config`.

    fresh: whatever it holds was not trained, and another config's may be overwritten; else raises
      InputError when the workdir holds a run of another config.
    """
    if not fresh:
        check_claim(workdir, config)
    if jax.process_index() == 0:
        files.save_json(pathlib.Path(workdir) / "config.json", json.loads(config.to_json()))


def check_claim(workdir: str | os.PathLike, config: Any) -> None:
    """Raise InputError when `workdir` holds a run of another config."""
    file = pathlib.Path(workdir) / "config.json"
    if not file.exists():
        return
    ours, theirs = with_defaults(config), with_defaults(ConfigDict(files.read_json(file)))
    for one in (ours, theirs):  # what a tokenizer computes in unless it is said, see `dtype_of`
        if "generator" in one:
            one["tokenizer"]["dtype"] = one["tokenizer"].get("dtype") or one["dtype"]
    here, there = ours.pop("data", None), theirs.pop("data", None)
    if here and there and here != there and not config.get("changed_data"):
        other = "others, as many,"
        if here["examples"] != there["examples"]:
            other = f"{here['examples']:,}"
        raise InputError(
            f"{workdir} was trained on {there['examples']:,} examples, and {other} are there now: "
            "give another --workdir, or go on with these by --config.changed_data=True"
        )
    grown = ours.pop("began") > theirs.pop("began")
    for key, (here, there) in build.differences(ours, theirs).items():
        if not _may_differ(key, here, there, grown):
            more = "; only a finished run goes on with a longer one" if key == "duration" else ""
            raise InputError(
                f"{workdir} holds a run with config.{key} = {there}, now it is {here}: give the "
                "config it was made with, or another --workdir, for a new run, with these weights "
                f"by --config.init={workdir}{more}"
            )


def _may_differ(key: str, here: Any, there: Any, grown: bool) -> bool:
    """Return whether a run may go on though config.key was `there`, and is `here` now.

    grown: whether it was finished, and goes on with a longer duration.
    """
    if run_length.normalized(here) == run_length.normalized(there):
        return True
    if key in WEIGHTS and "random" in (here, there):
        return False
    return (grown and key == "duration") or within(key, FREE)


def settings(given: Any, workdir: str | os.PathLike) -> Any:
    """Return the config of a workdir, with the keys of `given` that say how to sample and evaluate.

    given: the config the workdir was made with, or that of the quickstart which it is a part of;
      raises InputError when it is another one's.
    """
    config, folder = of_workdir(workdir)
    if given.stage == "quickstart":
        given = given.tokenizer if config.stage == "stage1" else given.generator
    same = config.stage == given.stage
    if same and config.stage == "stage2":
        classes = config.generator.get("classes", 0)
        given = stage2.with_classes(given.copy_and_resolve_references(), classes)
        with given.unlocked():
            given.tokenizer = config.tokenizer  # it was found by training, as classes may be
    ours, theirs = (with_defaults(c) if same else {"stage": c.stage} for c in (given, config))
    free = (*FREE, *FOUND[config.stage])
    for key, (here, there) in build.differences(ours, theirs).items():
        if not within(key, free):
            raise InputError(
                f"{folder} holds a run with config.{key} = {there}, --config says {here}: give "
                "another --workdir, or leave --config out"
            )
    with config.unlocked():
        config.update({key: given[key] for key in FREE if key in given})
    return config
