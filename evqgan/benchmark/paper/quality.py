"""What is measured of a workdir for the paper's tables: numbers, and the card that goes with them.

A Frechet distance of colours averaged down to 8x8 needs no network. With the weights of Inception
there is FID, too, as the paper has it.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from evqgan.benchmark import real_images, runs
from evqgan.benchmark.paper import choosing
from evqgan.benchmark.paper.beside import card_of
from evqgan.core import build, progress, stores, weights
from evqgan.core.cli import PATH, TEXT, Flag, whole
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.core.npz import Again, Pieces
from evqgan.data.dataset import Dataset
from evqgan.evals.against_real import AgainstReal
from evqgan.evals.feature_metrics import MetricName
from evqgan.evals.protocols import FOLDER
from evqgan.evals.provenance import Measured, Produced
from evqgan.features import extractor, inception
from evqgan.features.extractor import Extractor, extractors, several
from evqgan.inference import evaluation, rejection, resumable
from evqgan.inference.evaluators import evaluators_of
from evqgan.inference.mode_inputs import load_model
from evqgan.inference.model import Model
from evqgan.inference.resumable import SamplingTask

MEASURED: tuple[MetricName, ...] = ("frechet", "score")
# Of every generator; None where it cannot be measured. Those of other networks follow.
COLUMNS = ("fid", "inception_score", "frechet_pixels", "in_class")

WORKDIR = Flag("workdir", PATH, (), "[NAME=]PATH of a trained model; several times", repeated=True)
FEATURES = Flag(
    "features",
    TEXT,
    (),
    "networks of evqgan/features, a,b or several times (inception, where its weights are)",
    repeated=True,
)
WEIGHTS = Flag("weights", PATH, (), 'their weights: a folder, "" for the cache, or "random"', "")
SAMPLES = Flag("samples", whole(2), (), "how many images each generator makes (500)", 500)


def named(text: str) -> tuple[str, str]:
    """Return the name and the path of "NAME=PATH"; of a path alone its last part is the name."""
    name, is_named, path = text.partition("=")
    if is_named and name and "/" not in name:
        return name, path
    return pathlib.Path(text).name, text


def check_names(texts: Iterable[str]) -> None:
    """Raise InputError if one name stands for several workdirs: rows would look alike."""
    paths: dict[str, str] = {}
    for name, path in map(named, texts):
        other = paths.setdefault(name, path)
        if stores.real(other) != stores.real(path):
            raise InputError(
                f"--workdir: {other} and {path} are both called {name}: give each a name of its "
                "own, as --workdir=NAME=PATH"
            )


def networks(given: Any) -> list[str]:
    """Return the networks of --features: by default Inception's, if its weights are there."""
    if given.features:
        return [name for one in given.features for name in several(one)]
    there = weights.path(given.weights, inception.PRETRAINED["network"]).is_file()
    return ["inception"] if there else []


def check(given: Any, stage: str) -> None:
    """Raise InputError for features, weights or workdirs that there are not.

    Nothing is loaded or trained for it. stage: of the workdirs.
    """
    for text in given.workdir or ():
        check_stage(text, stage)
    for network in networks(given):
        extractor.card_of(network, given.weights, "--features")


def check_stage(text: str, stage: str) -> None:
    """Raise InputError if a --workdir is not of `stage`."""
    _, path = named(text)
    config, _ = of_workdir(path)
    if config.stage != stage:
        named_stages = {"stage1": "a tokenizer", "stage2": "a generator"}
        holds = named_stages[config.stage]
        raise InputError(f"{path} holds {holds}: give the workdir of {named_stages[stage]}")


def of_tokenizer(model: Model, given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a tokenizer, and their card.

    They are of the held-out images: rfid is of Inception's trained features, or None.
    """
    chosen = list(dict.fromkeys([*networks(given), "pixels"]))
    evals = {"reconstruction": {"features": tuple(chosen), "weights": given.weights}}
    dataset = evaluation.images_of(model.config)
    ready = evaluators_of(model.config, dataset, evals)
    ((numbers, card),) = evaluation.evaluate_model(model, ready)
    kept = ("psnr", "ssim", "codebook_usage")
    others = {name: x for name, x in numbers.items() if name.startswith("rfrechet_")}
    fid = numbers.get("rfid_inception")
    return {"rfid": fid, **{name: numbers[name] for name in kept}, **others}, card.as_json()


def of_generator(
    model: Model,
    given: Any,
    folder: pathlib.Path,
    acceptance: float = 1.0,
    views: int = 1,
    colour: bool = False,
    **sampler: Any,
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Return the columns of a generator's samples, their card, and the first few of the samples.

    Of data sets too large to be held in memory there are only numbers by --features.

    folder: keeps what is made until all is; a call that was stopped goes on there.
    acceptance: below 1 the best by a classifier, see `choosing`.
    views: random crops of each real image to measure against.
    colour: whether the classifier that judges sees colours.
    sampler: changes to config.sample.
    """
    dataset, chooser = evaluation.images_of(model.config), None
    if acceptance < 1:
        chooser = choosing.chooser_of(model, dataset, colour)
    images, labels = sampled(model, given.samples, folder, acceptance, chooser, sampler)
    keys = json.dumps(build.plain(model.config.dataset), sort_keys=True)
    numbers: dict[str, Any] = dict.fromkeys(COLUMNS)
    with progress.announced(f"measuring {given.samples:,} samples beside real images"):
        real, known, beside, held = _read(
            keys, views, colour, tuple(networks(given)), given.weights
        )
        if beside:
            found = beside.numbers_of(images, None)
            for network in known:
                numbers |= columns(network, found)
        if held:
            found = held.numbers_of(images, labels)
            numbers["frechet_pixels"] = found.get("frechet_pixels")
            numbers["in_class"] = found.get("sample_accuracy")
    features = beside.cards if beside else []
    lines = beside.warnings(given.samples) if beside else []
    if held:
        features += held.cards
        lines += held.warnings(given.samples, labels)
    for line in lines:
        progress.warn(line)
    settings = {**model.sampler, **sampler}
    if acceptance < 1:
        settings |= {"acceptance": acceptance, "classifier": getattr(chooser, "name", chooser)}
    produced = Produced(
        "samples",
        given.samples,
        model.size,
        seed=0,
        labels="none" if labels is None else "all classes in turn",
        sampler=settings,
    )
    measured = Measured(
        FOLDER.name,
        produced,
        real=real.image_set(dataset.train) if beside or held else None,
        features=features,
        settings={"views": views, **(held.settings if held else {})},
        warnings=lines,
    )
    card = evaluation.subject_of(model).card("samples", measured)
    return numbers, card.as_json(), next(iter(images.pieces))[: runs.SHOWN]


def sampled(
    model: Model,
    number: int,
    folder: pathlib.Path,
    acceptance: float,
    chooser: Any,
    sampler: Mapping[str, Any],
) -> tuple[Pieces, np.ndarray | None]:
    """Return samples of all classes in turn, decoded when they are asked for, and their labels.

    Of a model without classes there are no labels. Arguments as of `of_generator`.
    """
    labels = model.checked_labels(number, None, 0, acceptance, force=True)
    task = SamplingTask(labels, 0, sampler, folder, runs.sampling(model), force=True)
    with resumable.owned(task):
        if acceptance < 1:
            made, size = rejection.choose(model, task, acceptance, chooser)
        else:
            made, size = resumable.generate(model, task)
    ids = made["ids"]

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, number, size):
            yield model.to_images(ids[start : start + size], size)

    images = Pieces((number, *model.size, 3), np.uint8, Again(pieces))
    return images, labels if model.classes else None


@functools.lru_cache(maxsize=1)  # a table measures many models beside the same images
def _read(
    config: str, views: int, colour: bool, names: tuple[str, ...], weights_of: str
) -> tuple[real_images.Real, list[Extractor], AgainstReal | None, AgainstReal | None]:
    """Return the real images of a data set, the networks, and what is beside their features.

    Images that are not held in memory are read once for all networks: their digest is of one pass.

    config: of the data set, as JSON. The third is None without networks, the last, of colours, if
    the images are too many to be held in memory.
    """
    dataset = build.call(Dataset, json.loads(config), "config.dataset").of_images()
    real, size = real_images.real_of(dataset, views), dataset.shape
    known = extractors(names, weights_of, "--features", None) if names else []
    found = AgainstReal(real.train, None, size, known, MEASURED) if known else None
    if not real.is_held:
        return real, known, found, None
    return real, known, found, AgainstReal(real.train, real.heldout, size, colour=colour)


def columns(network: Extractor, numbers: dict[str, float]) -> dict[str, float]:
    """Return numbers of MEASURED of a network's features under the names of columns.

    Inception's are "fid" and "inception_score" if its weights are trained.
    """
    usual = {"fid_inception": "fid", "is_inception": "inception_score"}
    names = [network.name_of(name) for name in MEASURED]
    return {usual.get(name, name): numbers[name] for name in names if name in numbers}


def real_row(model: Model, views: int = 1, colour: bool = False) -> dict[str, Any] | None:
    """Return the row of real images held out from training, beside those of training.

    None of data sets too large to be held in memory.
    """
    dataset = evaluation.images_of(model.config)
    real = real_images.real_of(dataset, views)
    if not real.is_held:
        return None
    keep = bool(model.classes)
    against = AgainstReal(real.train, real.heldout, model.size, colour=colour, keep=keep)
    found = against.numbers_of_heldout()
    sets = {name: real.image_set(getattr(dataset, name)) for name in ("train", "validation")}
    return {
        "system": "real images, held out",
        "frechet_pixels": found.get("frechet_pixels"),
        "in_class": found.get("sample_accuracy"),
        "card": card_of(
            str(model.config.dtype),
            real=dataclasses.asdict(sets["train"]),
            heldout=dataclasses.asdict(sets["validation"]),
            features=against.cards,
            settings={"views": views, **against.settings},
        ),
    }


def opened(text: str, stage: str) -> tuple[str, Model]:
    """Return the name and the model of a --workdir; InputError if it is not of `stage`."""
    check_stage(text, stage)
    name, path = named(text)
    return name, load_model(None, path)
