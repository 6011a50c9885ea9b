"""Which run a workdir belongs to, and which config keys may change when that run is resumed."""

import json
import os
from typing import Any

import jax
from ml_collections import ConfigDict

from evqgan.core import (
    build,
    checkpoint,
    config_files,
    exported,
    files,
    quickstart_record,
    schema,
    stores,
)
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.data.folder import check_apart
from evqgan.training import initial_state, run_length, stage2
from evqgan.training.stage import with_defaults

# Folders of pretrained weights. They may change when a run goes on, as the weights are in its own
# checkpoints by then; but not from or to "random", which is no folder but untrained weights.
WEIGHTS = (
    "tokenizer.weights",
    "perceptual.weights",
    "adversarial.weights",
    "evals.reconstruction.weights",
)
# Keys that may change when a run goes on: they say what is logged, where it runs and where files
# lie, how many broken images are forgiven, how many images are evaluated at a time, not what is
# learned. The folder of stored ids is one of them, as config.stored_ids says which ids it has to
# hold, and that of the images, as config.data says which these are.
MAY_CHANGE = (
    "eval_batch_size",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "evals",
    "sample",
    "mesh",
    "keep",
    "best",
    "alarm",
    "stall",
    "resume",
    "dataset.codes",
    "dataset.folder",
    "dataset.data_dir",
    "dataset.max_bad",
    "dataset.workers",
    "changed_data",
    *WEIGHTS,
)
# Names of keys, in any section, that may change, too: what is kept for the backward pass, and how
# much of a model is compiled or computed at a time. They change rounding, and `chunk` what dropout
# draws. `optimizer.accumulate` is none of them: what is no mean over images, such as a codebook of
# moving averages, an adaptive weight, or a mean over all masked tokens, is then of each part.
MEMORY_KEYS = ("remat", "unroll", "chunk")
# Keys by which numbers are measured, and names of such in them that change none.
MEASURES = ("evals", "sample", "eval_batch_size", "best")
MEASURE_NOTHING = ("show", "weights")
# What to do with a workdir that holds another run.
AGAIN = "give the config it was made with, or another --workdir, for a new run"
# Keys of what weights are of: a run with others of these does not begin with them.
OF_WEIGHTS = ("tokenizer", "generator", "dataset.size")
OF_DATA = ("class_names", "data", "changed_data")  # what a run was trained on
# Keys that say how one command goes on with a run: config.json does not keep them for the next one.
OF_COMMAND = ("changed_data", "resume")
# Keys that training adds to the config it is given (`prepare.note_data`, `stage2.resolve`).
ADDED_BY_TRAINING = {
    "stage1": ("class_names", "data"),
    "stage2": ("class_names", "data", "tokenizer", "stored_ids"),
}


def may_change(key: str) -> bool:
    """Return whether a dotted key may be another when a run goes on (MAY_CHANGE, MEMORY_KEYS)."""
    return build.within(key, MAY_CHANGE) or key.split(".")[-1] in MEMORY_KEYS


def claim(workdir: str | os.PathLike, config: Any, fresh: bool = False) -> None:
    """Claim `workdir` for `config`, which its config.json holds but for OF_COMMAND.

    fresh: whatever it holds was not trained, and another config's may be overwritten; else raises
      InputError when the workdir holds a run of another config.
    """
    if not fresh:
        check_claim(workdir, config)
    if jax.process_index() == 0:
        found = json.loads(config.to_json())
        lasting = {key: value for key, value in found.items() if key not in OF_COMMAND}
        files.save_json(stores.path(workdir) / "config.json", lasting)


def changes(workdir: str | os.PathLike, config: Any) -> tuple[str, ...]:
    """Return lines for the log on what `config`, which may go on with a run, changes of it.

    What is measured otherwise is apart: the numbers themselves, by their cards, say later if it is.
    A key that a command leaves out has its default again, and config.json keeps that.
    """
    saved = read_config(workdir)
    if saved is None:
        return (
            f"WARNING {workdir} has no config.json: nothing says how its steps so far were "
            "trained, and this config is not compared with that of then",
        )
    theirs, ours = _full(saved, workdir), with_defaults(config)
    measured, lines = _remeasured(saved, config), []
    found = {key: x for key, x in build.differences(theirs, ours).items() if may_change(key)}
    told = (*measured, *WEIGHTS, *OF_COMMAND)
    if others := {key: x for key, x in found.items() if not build.within(key, told)}:
        lines.append(f"{build.listed(others, 'config.')}: {workdir} goes by this from now on")
    if measured:
        lines.append(
            f"{build.listed(measured, 'config.')}: numbers that this changes are not compared with "
            "earlier ones, so the best checkpoint, alarms and curves of these begin anew"
        )
    return tuple(lines)


def _remeasured(saved: Any, config: Any) -> dict[str, tuple[Any, Any]]:
    """Return which keys of `config` measure otherwise than those of a run: {key: (there, now)}.

    saved: the config of the run.
    """
    ours, theirs = ({key: build.plain(c.get(key)) for key in MEASURES} for c in (config, saved))
    for one, other in ((ours, saved), (theirs, config)):  # of evaluators that both have
        one["evals"] = {name: x for name, x in one["evals"].items() if name in other.evals}
    found = build.differences(theirs, ours)
    return {key: x for key, x in found.items() if key.split(".")[-1] not in MEASURE_NOTHING}


def without_step(workdir: str | os.PathLike, config: Any) -> Any:
    """Return `config` with what the run in `workdir` was trained on, as no step is taken now."""
    theirs, config = read_config(workdir), config.copy_and_resolve_references()
    with config.unlocked():
        for key in OF_DATA:
            if key in config:
                del config[key]
            if theirs is not None and key in theirs:
                config[key] = theirs[key]
    return config


def is_trained(workdir: str | os.PathLike, last: int | None = None) -> bool:
    """Return whether a workdir has a checkpoint of a run, and not of converted weights alone.

    last: the step of the checkpoint that is asked, by default the latest; 0: there is none.
    """
    return last != 0 and "params" in checkpoint.parts_of(workdir, last)


def check_before_data(workdir: str | os.PathLike, config: Any, last: int | None = None) -> None:
    """Raise InputError when `workdir` holds a trained run of another config, before data are read.

    What the data alone tell is taken to be as it was there: `check_claim` says later if it is not.
    last: the step of the checkpoint that the run is to go on from, by default the latest.
    """
    check_apart(workdir, config.dataset.get("folder", ""))
    theirs = read_config(workdir)
    if theirs is None or not is_trained(workdir, last):
        return
    _check_stage(workdir, theirs, config)
    schema.check(theirs, f"{workdir}/config.json: config")
    ours = config.copy_and_resolve_references()
    with ours.unlocked():
        ours.update({key: theirs[key] for key in ("class_names", "data") if key in theirs})
        if ours.get("changed_data"):  # so many epochs may be longer or shorter now
            ours.duration = theirs.get("duration", ours.duration)
        examples = (theirs.get("data") or {}).get("examples", 1)
        ours.began = initial_state.start_of_leg(ours, workdir, examples, last)
    if "generator" in ours and "generator" in theirs:
        ours = stage2.with_classes(ours, theirs.generator.get("classes", 0))
    check_claim(workdir, ours, last)


def read_config(workdir: str | os.PathLike) -> ConfigDict | None:
    """Return the config of the run in `workdir`, or None if there is none."""
    file = stores.path(workdir) / "config.json"
    if not file.exists():
        return None
    return config_files.of_json(files.read_json(file), file)


def _full(saved: ConfigDict, workdir: str | os.PathLike) -> dict:
    """Return the config that a run has saved, with defaults; errors name its file."""
    try:
        return with_defaults(saved)
    except InputError as error:
        raise InputError(f"{workdir}/config.json: {error}") from None


def check_claim(workdir: str | os.PathLike, config: Any, last: int | None = None) -> None:
    """Raise InputError when `workdir` holds a run of another config.

    last: the step of the checkpoint that the run is to go on from, by default the latest.
    """
    saved = read_config(workdir)
    if saved is None:
        return
    last = checkpoint.latest(workdir) if last is None else last
    _check_stage(workdir, saved, config)
    theirs, ours = _full(saved, workdir), with_defaults(config)
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
    is_untrained = initial_state.is_untrained(saved, last) and not _taken_more(config, last)
    is_extended = ours.pop("began") > theirs.pop("began") or is_untrained
    found = build.differences(theirs, ours)
    found = {
        key: (a, b) for key, (a, b) in found.items() if not _may_differ(key, b, a, is_extended)
    }
    as_long = here and here == there and "duration" in found
    if as_long and len({_steps(duration, config) for duration in found["duration"]}) == 1:
        del found["duration"]  # it is as long, in other words
    if found:
        hint = f"{AGAIN}{_with_weights(found, workdir)}{_unfinished(found, config, last)}"
        raise _another(workdir, found, hint)


def _check_stage(workdir: str | os.PathLike, saved: ConfigDict, config: Any) -> None:
    """Raise InputError unless `config` is of the stage of that which `workdir` holds, `saved`."""
    if (there := saved.get("stage")) != config.stage:
        hint = "give the config it was made with, or another --workdir"
        raise _another(workdir, {"stage": (there, config.stage)}, hint)


def _with_weights(found: dict[str, tuple[Any, Any]], workdir: str | os.PathLike) -> str:
    """Return how a new run begins with the weights of a run in words, "" where it cannot.

    found: {key: (there, now)} of the new run.
    """
    if any(build.within(key, OF_WEIGHTS) for key in found):
        return ""
    place = stores.path(workdir)
    beside = any(
        (place.parent / name).is_file() for name in (quickstart_record.FILE, quickstart_record.PLAN)
    )
    if beside and place.name in exported.PARTS:
        return f", with these weights by --config.{place.name}.init={workdir}"
    return f", with these weights by --config.init={workdir}"


def _steps(duration: Any, config: Any) -> int:
    """Return a duration in steps of the data and the batches of `config`."""
    examples = (config.get("data") or {}).get("examples", 1)
    return run_length.to_steps(duration, examples, config.batch_size)


def _taken_more(config: Any, taken: int) -> tuple[int, int] | None:
    """Return the steps that a run has `taken`, and those of `config`, unless it has more."""
    asked = _steps(config.duration, config)
    return (taken, asked) if asked < taken else None


def _unfinished(found: dict[str, tuple[Any, Any]], config: Any, last: int) -> str:
    """Return what is to be said besides where durations differ; found: {key: (there, now)}.

    last: the step of the checkpoint that the run is to go on from.
    """
    if "duration" not in found:
        return ""
    if taken := _taken_more(config, last):
        return f"; it has taken {taken[0]:,} steps, and fewer, {taken[1]:,}, were asked for"
    asked, has = (_steps(duration, config) for duration in reversed(found["duration"]))
    if asked < has:
        return (
            f"; a run of {has:,} steps is not made one of {asked:,}: stop it there, and use it as "
            "it is, or begin a new one"
        )
    how = " and config.resume=last_good" if config.get("resume") == "last_good" else ""
    return (
        "; only a finished run goes on with a longer duration: first end it with that which it has "
        f"({found['duration'][0]}){how}, and then give the longer one"
    )


def _another(
    workdir: str | os.PathLike, found: dict[str, tuple[Any, Any]], hint: str
) -> InputError:
    """Return the error for a workdir whose config has other values: {key: (there, now)}."""
    keys = build.listed(found, "config.")
    return InputError(f"{workdir} holds a run of another config, {keys}: {hint}")


def _may_differ(key: str, here: Any, there: Any, is_extended: bool) -> bool:
    """Return whether a run may go on though config.key was `there`, and is `here` now.

    is_extended: whether it was finished, and goes on with a longer duration, or with another one
      than that of which nothing was trained.
    """
    if run_length.normalized(here) == run_length.normalized(there):
        return True
    if key in WEIGHTS and "random" in (here, there):
        return False
    return (is_extended and key == "duration") or may_change(key)


def settings(given: Any, workdir: str | os.PathLike) -> Any:
    """Return the config of a workdir with keys MAY_CHANGE of `given`: how to sample and evaluate.

    given: the config of --config. It has to be the one that the workdir was made with, or that of
      the quickstart which it is a part of; raises InputError if it is another.
    """
    config, folder = of_workdir(workdir)
    if given.stage == "quickstart":
        given = given.tokenizer if config.stage == "stage1" else given.generator
    same = config.stage == given.stage
    theirs = _full(config, folder) if same else {"stage": config.stage}
    if same and config.stage == "stage2":
        classes = config.generator.get("classes", 0)
        given = stage2.with_classes(given.copy_and_resolve_references(), classes)
        with given.unlocked():
            given.tokenizer = config.tokenizer  # it was found by training, as classes may be
    ours = with_defaults(given) if same else {"stage": given.stage}
    found = build.differences(theirs, ours)
    noted = ADDED_BY_TRAINING[config.stage]
    found = {
        key: x for key, x in found.items() if not (may_change(key) or build.within(key, noted))
    }
    if found:
        raise _another(folder, found, "give another --workdir, or leave --config out")
    with config.unlocked(), config.ignore_type():  # a list may stand for a number
        config.update({key: given[key] for key in MAY_CHANGE if key in given})
        for key in ("folder", "data_dir", "max_bad"):
            if given.dataset.get(key) is not None and given.dataset[key] != "":
                config.dataset[key] = given.dataset[key]
    return config
