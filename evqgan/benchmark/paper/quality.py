"""What is measured of a workdir for the paper's tables: numbers, and the card that goes with them.

A Frechet distance of colours averaged down to 8x8 needs no network. With the weights of Inception
there is FID, too, as the paper has it.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from evqgan.benchmark.paper import choosing, real_images
from evqgan.benchmark.paper.beside import card_of
from evqgan.core import build, weights
from evqgan.core.cli import PATH, TEXT, Flag, whole
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.evals.cards import Measured, Produced
from evqgan.evals.feature_metrics import METRICS, FeatureSet, measure
from evqgan.evals.protocols import FOLDER
from evqgan.features import inception
from evqgan.features.extractor import EACH, Extractor, extractors
from evqgan.inference import evaluation
from evqgan.inference.against_real import RealImages, against_real
from evqgan.inference.model import Model, load
from evqgan.metrics.frechet import too_few

MEASURED = ("frechet", "score")

WORKDIR = Flag("workdir", PATH, (), "[NAME=]PATH of a trained model; several times", repeated=True)
FEATURES = Flag(
    "features",
    TEXT,
    (),
    "a network of evqgan/features; several times (inception, where its weights are)",
    repeated=True,
)
WEIGHTS = Flag("weights", PATH, (), 'their weights: a folder, "" for the cache, or "random"', "")
SAMPLES = Flag("samples", whole(1), (), "how many images each generator makes (500)", 500)


def named(text: str) -> tuple[str, str]:
    """Return the name and the path of "NAME=PATH"; of a path alone its last part is the name."""
    name, is_named, path = text.partition("=")
    if is_named and name and "/" not in name:
        return name, path
    return pathlib.Path(text).name, text


def networks(given: Any) -> list[str]:
    """Return the networks of --features: by default Inception's, if its weights are there."""
    if given.features:
        return list(given.features)
    there = weights.path(given.weights, inception.PRETRAINED["network"]).is_file()
    return ["inception"] if there else []


def dataset_of(model: Model) -> Dataset:
    """Return the images that a model is measured on."""
    return build.call(Dataset, model.config.dataset, "config.dataset").of_images()


def of_tokenizer(model: Model, given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a tokenizer, and their card.

    They are of the held-out images: rfid is of Inception's trained features, or None.
    """
    chosen = list(dict.fromkeys([*networks(given), "pixels"]))
    evals = {"reconstruction": {"features": tuple(chosen), "weights": given.weights}}
    dataset = dataset_of(model)
    ((numbers, card),) = evaluation.evaluate_model(model, model.config, dataset, evals)
    kept = ("psnr", "ssim", "codebook_usage")
    others = {name: x for name, x in numbers.items() if name.startswith("rfrechet_")}
    fid = numbers.get("rfid_inception")
    return {"rfid": fid, **{name: numbers[name] for name in kept}, **others}, card.as_json()


def of_generator(
    model: Model,
    given: Any,
    acceptance: float = 1.0,
    views: int = 1,
    colour: bool = False,
    **sampler: Any,
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Return the columns of a generator's samples, their card, and the samples.

    Of data sets too large to be held in memory there are only numbers by --features.

    acceptance: below 1 the best by a classifier, see `choosing`.
    views: random crops of each real image to measure against.
    colour: whether the classifier that judges sees colours.
    sampler: changes to config.sample.
    """
    dataset, chooser = dataset_of(model), None
    if acceptance < 1:
        chooser = choosing.chooser_of(model, dataset, colour)
    made = model.sample(
        given.samples, None, 0, acceptance=acceptance, classifier=chooser, **sampler
    )
    images, labels = made["images"], made.get("labels")
    real = real_images.real_of(dataset, views)
    numbers: dict[str, Any] = {"fid": None, "inception_score": None}
    numbers |= {"frechet_pixels": None, "in_class": None}
    lines: list[str] = []
    about = []
    for network in extractors(networks(given), given.weights, "--features", None):
        measured, more = of_features(network, images, real.train)
        numbers |= measured
        about.append(network.card())
        lines += more
    if real.is_held:
        found, more = against_real(images, labels, real.train, real.heldout, colour)
        numbers["frechet_pixels"] = found["frechet"]
        numbers["in_class"] = found.get("sample_accuracy")
        lines += more
    settings = {**model.sampler, **sampler}
    if acceptance < 1:
        settings |= {"acceptance": acceptance, "classifier": getattr(chooser, "name", chooser)}
    produced = Produced(
        "samples",
        len(images),
        model.size,
        seed=0,
        labels="none" if labels is None else "all classes in turn",
        sampler=settings,
    )
    measured_all = Measured(
        FOLDER.name,
        produced,
        real=real.image_set(dataset, dataset.train),
        features=about,
        settings={"views": views, "classifier_sees_colours": colour},
        warnings=lines,
    )
    card = evaluation.subject_of(model).card("samples", measured_all)
    return numbers, card.as_json(), images


def of_features(
    network: Extractor, images: np.ndarray, train: RealImages
) -> tuple[dict[str, float], list[str]]:
    """Return numbers of samples by a network's features, and what they are worth.

    Inception's are "fid" and "inception_score" if its weights are trained.

    images: the samples, uint8 [N,H,W,3].
    train: the images that they are beside.
    """
    metrics = {name: METRICS[name] for name in MEASURED if METRICS[name].layer in network.widths}
    made, real = FeatureSet(metrics.values()), FeatureSet(m for m in metrics.values() if m.real)
    add(made, network, images)
    for batch, _ in train.batches():
        add(real, network, batch)
    usual = {"fid_inception": "fid", "is_inception": "inception_score"}
    names = {name: network.name_of(name) for name in ("frechet", "score")}
    numbers = {
        usual.get(names[name], names[name]): value
        for name, value in measure(metrics, made, real).items()
        if name in names
    }
    counts = {"generated images": made.count, "real images": real.count}
    return numbers, too_few(names["frechet"], counts, network.widths["pooled"])


def add(features: FeatureSet, network: Extractor, images: np.ndarray) -> None:
    """Add the features of images; the last batch is filled up: one shape, one program."""
    for start in range(0, len(images), EACH):
        index = np.arange(start, start + EACH)
        features.add(network(images[index.clip(max=len(images) - 1)]), index < len(images))


def real_row(model: Model, views: int = 1, colour: bool = False) -> dict[str, Any] | None:
    """Return the row of real images held out from training, beside those of training.

    None of data sets too large to be held in memory.
    """
    dataset = dataset_of(model)
    real = real_images.real_of(dataset, views)
    if not real.is_held:
        return None
    images, labels = (np.concatenate(part) for part in zip(*real.heldout.batches(), strict=True))
    given = real.train, real.heldout, colour
    found, _ = against_real(images, labels if model.classes else None, *given)
    sets = {
        name: real.image_set(dataset, getattr(dataset, name)) for name in ("train", "validation")
    }
    return {
        "system": "real images, held out",
        "frechet_pixels": found["heldout_frechet"],
        "in_class": found.get("heldout_accuracy"),
        "card": card_of(
            str(model.config.dtype),
            real=dataclasses.asdict(sets["train"]),
            heldout=dataclasses.asdict(sets["validation"]),
            settings={"views": views, "classifier_sees_colours": colour},
        ),
    }


def opened(text: str, stage: str) -> tuple[str, Model]:
    """Return the name and the model of a --workdir; InputError if it is not of `stage`."""
    name, path = named(text)
    model = load(path)
    if model.config.stage != stage:
        what = {"stage1": "a tokenizer", "stage2": "a generator"}[stage]
        raise InputError(f"{path} holds a {model.config.stage}: give the workdir of {what}")
    return name, model
