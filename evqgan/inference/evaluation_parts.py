"""What evaluation measures of a workdir: its parts, each with what the command line changes."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from evqgan.core import build, exported
from evqgan.core.config_files import of_tokenizer, of_workdir, replace_source
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.evals import MODELS, is_of_classes, stage_of
from evqgan.evals.feature_metrics import METRICS
from evqgan.features.names import OF_INCEPTION

# Keys of either stage that say how its numbers are computed.
OF_BOTH = ("batch_size", "dtype", "eval_batch_size")


class Part(NamedTuple):
    """One of the one or two models that are evaluated."""

    config: ConfigDict
    workdir: pathlib.Path


def parts_of(
    config: ConfigDict, top: pathlib.Path, tokenizer: ConfigDict | None = None
) -> list[Part]:
    """Return the configs and workdirs to evaluate; of two the tokenizer comes first.

    Two are a quickstart's workdir and an exported model of a generator.

    config: of the workdir, of a quickstart's the generator's. Where it differs from the saved one,
      config.dataset and the keys of OF_BOTH are changed for both, and config.evals.NAME for the
      part that NAME measures.
    tokenizer: that config of a quickstart's, if it is known; None: the saved one, so changed.
    """
    top = exported.find(top)
    saved, folder = of_workdir(top)
    both = exported.is_one(folder) and saved.stage == "stage2"
    if not both and (folder == top or not (top / "tokenizer" / "config.json").is_file()):
        return [Part(config, folder)]
    first, place = of_tokenizer(top)
    if tokenizer is not None:
        return [Part(tokenizer, place), Part(config, folder)]
    second = config.copy_and_resolve_references()
    changed = [key for key, x in second.dataset.items() if not _same(x, saved.dataset.get(key))]
    moved = [
        name
        for name in second.evals
        if stage_of(name) == first.stage or (name in first.evals and name not in saved.evals)
    ]
    with first.unlocked(), first.ignore_type(), second.unlocked():
        for key in changed:
            first.dataset[key] = second.dataset[key]
        for key in OF_BOTH:
            if not _same(second.get(key), saved.get(key)):
                first[key] = second[key]
        for name in moved:
            first.evals[name] = {**first.evals.get(name, {}), **second.evals[name]}
            del second.evals[name]
        replace_source(first, [f"dataset.{key}" for key in changed])
    return [Part(first, place), Part(second, folder)]


def _same(a: object, b: object) -> bool:
    """Return whether two values of a config are equal, a list of JSON being a tuple."""
    return bool(build.plain(a) == build.plain(b))


def check_metrics(
    metrics: Sequence[str],
    parts: Sequence[Part],
    samples: pathlib.Path,
) -> None:
    """Raise InputError for a metric that there is not, or that lacks its samples."""
    known = [*dict.fromkeys(name for part in parts for name in part.config.evals), "samples"]
    others = [name for name in build.having("evals", ["Evaluator"]) if name not in known]
    stages = [part.config.stage for part in parts]
    of_inception = {called: metric for metric, called in OF_INCEPTION.items() if metric in METRICS}
    for name in metrics:
        if name in known:
            continue
        key = "--config.evals.distribution."
        network = "inception" if name in of_inception else "digits"
        example = f"--metrics=distribution {key}features={network}"
        metric = of_inception.get(name, name)
        if metric in METRICS:
            raise InputError(f"{name!r} is of distribution: give {example} {key}metrics={metric}")
        if name == "distribution" and "stage2" in stages:
            raise InputError(f"{name!r} is not in this workdir's config: give {example}")
        if name in others:
            raise InputError(_not_here(name, parts, known))
        hint = build.suggestion(name, [*known, *others])
        more = f"; of distribution also {', '.join(METRICS)}" if "expected" in hint else ""
        raise InputError(f"there is no metric {name!r} in this workdir: {hint}{more}")
    if "samples" in metrics and not samples.is_file():
        raise InputError(
            f"there is no {samples}: make samples first, with --mode=sample --num=1000"
        )


def check_classes(config: ConfigDict, dataset: Dataset, names: Sequence[str]) -> None:
    """Raise InputError if images have other classes than a generator that is measured by them.

    A label is the place of a class among all, which differs where they are called otherwise.

    dataset: the images; names: what is measured, evaluators or "samples".
    """
    ours = tuple(config.get("class_names", ()))
    if config.stage != "stage2" or not config.generator.get("classes", 0) or not ours:
        return
    if not (of_classes := [x for x in names if x == "samples" or is_of_classes(x)]):
        return
    theirs = tuple(pipeline.open_split(dataset, dataset.validation).class_names)
    if theirs == ours:
        return
    differ = [(a, b) for a, b in itertools.zip_longest(ours, theirs) if a != b]
    mine, other = (f"class {x!r}" if x is not None else "no more class" for x in differ[0])
    where = dataset.folder or dataset.name
    raise InputError(
        f"the classes of {where} are not the model's, in their order: where it has {mine}, there "
        f"is {other}; give its images the model's classes, or measure what looks at none by "
        f"--metrics=distribution ({', '.join(of_classes)} look at classes)"
    )


def _not_here(name: str, parts: Sequence[Part], known: Sequence[str]) -> str:
    """Return what is said of an evaluator that exists and that no part's config has."""
    there = f"this workdir has {', '.join(known)}"
    if (wanted := stage_of(name)) and wanted not in {part.config.stage for part in parts}:
        place = f"a {MODELS[wanted]}'s workdir, such as --workdir=RUN/{MODELS[wanted]}"
        return f"{name!r} is measured of {place}; {there}"
    add = f"--metrics={name} --config.evals.{name}.show=0"
    return f"{name!r} is not in this workdir's config: give {add}; {there}"
