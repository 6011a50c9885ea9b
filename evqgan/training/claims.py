"""Whose a workdir is: the run of which config, and which of its keys may be others when it goes on or is used."""

import json
import pathlib

import jax
from ml_collections import ConfigDict

from evqgan.core import build, files
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.training import optim, stage2
from evqgan.training.stage import filled

# Keys that say how a run is watched and where it runs, not what it computes: they may change when it goes on. So may
# the places of a generator's tokenizer and of frozen networks, which are in the run's own checkpoints, and of stored
# ids, as config.stored_ids says which they are; "random" is no place.
FREE = (
    "log_every", "eval_every", "checkpoint_every", "evals", "sample", "mesh", "keep", "alarm", "tokenizer.weights",
    "perceptual.weights", "adversarial.weights", "dataset.codes", "changed_data",
)  # fmt: skip


def claim(workdir, config, anew=False):
    """Makes `workdir` the place of `config`, or raises InputError when it holds a run of another one, unless `anew`."""
    if not anew:
        check_claim(workdir, config)
    if jax.process_index() == 0:
        files.save_json(pathlib.Path(workdir) / "config.json", json.loads(config.to_json()))


def check_claim(workdir, config):
    """InputError when `workdir` holds a run of another config."""
    file = pathlib.Path(workdir) / "config.json"
    if file.exists():
        ours, theirs = filled(config), filled(ConfigDict(files.read_json(file)))
        for one in (ours, theirs):  # what a generator's tokenizer computes in unless it is said, see `dtype_of`
            if "generator" in one:
                one["tokenizer"]["dtype"] = one["tokenizer"].get("dtype") or one["dtype"]
        here, there = ours.pop("data", None), theirs.pop("data", None)
        if here and there and here != there and not config.get("changed_data"):
            other = f"{here['examples']:,}" if here["examples"] != there["examples"] else "others, as many,"
            raise InputError(
                f"{workdir} was trained on {there['examples']:,} examples, and {other} are there now: give another "
                "--workdir, or go on with these by --config.changed_data=True"
            )
        grown = ours.pop("began") > theirs.pop("began")
        for key, (here, there) in build.differences(ours, theirs).items():
            if optim.spelt(here) == optim.spelt(there):
                continue
            free = (grown and key == "duration") or any(f"{key}.".startswith(f"{name}.") for name in FREE)
            if not free or (key.endswith(".weights") and "random" in (here, there)):
                more = "; only a finished run goes on with a longer one" if key == "duration" else ""
                raise InputError(
                    f"{workdir} holds a run with config.{key} = {there}, now it is {here}: give the config it was made "
                    f"with, or another --workdir, for a new run, with these weights by --config.init={workdir}{more}"
                )


def settings(given, workdir):
    """The config of a workdir, with the keys of `given` that say how to sample and evaluate.

    given: the config the workdir was made with, or that of the quickstart which it is a part of; InputError when it is
    another one's.
    """
    config, place = of_workdir(workdir)
    if given.stage == "quickstart":
        given = given.tokenizer if config.stage == "stage1" else given.generator
    same = config.stage == given.stage
    if same and config.stage == "stage2":
        given = stage2.with_classes(given.copy_and_resolve_references(), config.generator.get("classes", 0))
        with given.unlocked():
            given.tokenizer = config.tokenizer  # it was found by training, as classes may be
    ours, theirs = (filled(c) if same else {"stage": c.stage} for c in (given, config))
    found_by_training = ("class_names", "data", *(("tokenizer", "stored_ids") if config.stage == "stage2" else ()))
    for key, (here, there) in build.differences(ours, theirs).items():
        if not any(f"{key}.".startswith(f"{free}.") for free in (*FREE, *found_by_training)):
            raise InputError(
                f"{place} holds a run with config.{key} = {there}, --config says {here}: give another --workdir, or "
                "leave --config out"
            )
    with config.unlocked():
        config.update({key: given[key] for key in FREE if key in given})
    return config
