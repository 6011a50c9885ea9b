"""What is measured of a workdir for the paper's tables: numbers, and the card that goes with them.

A Frechet distance of colours averaged down to 8x8 needs no network. With the weights of Inception
there is FID, too, as the paper has it.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from evqgan.benchmark import runs
from evqgan.core import build, weights
from evqgan.core.cli import PATH, TEXT, Flag, whole
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.evals.feature_metrics import METRICS, FeatureSet, measure
from evqgan.features import inception
from evqgan.features.extractor import Extractor, extractors
from evqgan.inference import evaluation
from evqgan.inference.against_real import against_real
from evqgan.inference.model import Model, load
from evqgan.metrics import classifier as agreement
from evqgan.metrics import pixels
from evqgan.metrics.frechet import too_few

BATCH = 64  # ours: images whose features are computed at a time
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
    return {"rfid": fid, **{name: numbers[name] for name in kept}, **others}, card


def of_generator(
    model: Model,
    given: Any,
    acceptance: float = 1.0,
    views: int = 1,
    colour: bool = False,
    **sampler: Any,
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Return the columns of a generator's samples, their card, and the samples.

    acceptance: below 1 the best by a classifier, see `chooser_of`.
    views: random crops of each real image to measure against.
    colour: whether the classifier that judges sees colours.
    sampler: changes to config.sample.
    """
    dataset, chooser = dataset_of(model), None
    if acceptance < 1:
        chooser = chooser_of(model, dataset, colour)
    made = model.sample(
        given.samples, None, 0, acceptance=acceptance, classifier=chooser, **sampler
    )
    images, labels = made["images"], made.get("labels")
    train, heldout = (runs.views_of(dataset, x, views) for x in (dataset.train, dataset.validation))
    found, warnings = against_real(images, labels, train, heldout, colour)
    numbers: dict[str, Any] = {"fid": None, "inception_score": None}
    about = []
    for network in extractors(networks(given), given.weights, "--features", None):
        measured, lines = of_features(network, images, dataset)
        numbers |= measured
        about.append(network.card())
        warnings = [*warnings, *lines]
    numbers["frechet_pixels"] = found["frechet"]
    numbers["in_class"] = found.get("sample_accuracy")
    card = evaluation.protocol(
        model,
        dataset,
        dataset.train,
        generated_images=len(images),
        real_images=train.number,
        seed=0,
        sampler={**model.sampler, **sampler},
        features=about,
        warnings=warnings,
    )
    if acceptance < 1:
        card |= {"acceptance": acceptance, "classifier": getattr(chooser, "name", chooser)}
    return numbers, card, images


def of_features(
    network: Extractor, images: np.ndarray, dataset: Dataset
) -> tuple[dict[str, float], list[str]]:
    """Return numbers of samples by a network's features, and what they are worth.

    They are beside the training images, in the view of validation. Inception's are "fid" and
    "inception_score" if its weights are trained.

    images: the samples, uint8 [N,H,W,3].
    """
    metrics = {name: METRICS[name] for name in MEASURED if METRICS[name].layer in network.widths}
    made, real = FeatureSet(metrics.values()), FeatureSet(m for m in metrics.values() if m.real)
    for start in range(0, len(images), BATCH):
        add(made, network, images[start : start + BATCH])
    for batch, _ in evaluation.read_split(dataset, dataset.train, BATCH):
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
    """Add images, filled up to a whole batch: one shape, one program."""
    index = np.arange(BATCH).clip(max=len(images) - 1)
    features.add(network(images[index]), np.arange(BATCH) < len(images))


def real_row(model: Model, views: int = 1, colour: bool = False) -> dict[str, Any]:
    """Return the row of real images held out from training, beside those of training."""
    dataset = dataset_of(model)
    train, heldout = (runs.views_of(dataset, x, views) for x in (dataset.train, dataset.validation))
    images, labels = (np.concatenate(part) for part in zip(*heldout.batches(), strict=True))
    found, _ = against_real(images, labels if model.classes else None, train, heldout, colour)
    number = {"heldout_images": len(images), "real_images": train.number}
    card = evaluation.protocol(model, dataset, dataset.train, **number)
    for key in ("workdir", "step", "weights"):  # nothing of a model is in it
        del card[key]
    return {
        "system": "real images, held out",
        "frechet_pixels": found["heldout_frechet"],
        "in_class": found.get("heldout_accuracy"),
        "card": card,
    }


def chooser_of(model: Model, dataset: Dataset, colour: bool) -> Callable | str:
    """Return what chooses samples: ResNet-101 of ImageNet's classes, else one of our own.

    Ours learns the held-out images, the one that judges the training images.
    """
    if not model.classes:
        raise InputError(f"{model.workdir} has no classes: nothing can be rejected there")
    if weights.path("", "resnet101").is_file() and model.classes == 1000:
        return "resnet101"
    images, labels = evaluation.load_split(dataset, dataset.validation)
    return Chooser(images, labels, colour)


class Chooser:
    """A classifier of images, as rejection sampling wants it: how probable each one's class is."""

    name = "a logistic regression of the held-out images"

    def __init__(self, images: np.ndarray, labels: np.ndarray, colour: bool) -> None:
        """Learn images uint8 [N,H,W,3] and their labels; InputError if these are all the same."""
        if len(np.unique(labels)) < 2:
            raise InputError("nothing can be rejected: all held-out images are of one class")
        self.colour = colour
        seen = pixels.features(images, agreement.SIDE, colour)
        self.model = LogisticRegression(C=agreement.C, max_iter=1000).fit(seen, labels)

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the probabilities [B] of their classes: 0 of one that it has not seen."""
        seen = pixels.features(images, agreement.SIDE, self.colour)
        is_own = self.model.classes_ == np.asarray(labels)[:, None]
        return np.where(is_own, self.model.predict_proba(seen), 0).sum(axis=1).astype(np.float32)


def opened(text: str, stage: str) -> tuple[str, Model]:
    """Return the name and the model of a --workdir; InputError if it is not of `stage`."""
    name, path = named(text)
    model = load(path)
    if model.config.stage != stage:
        what = {"stage1": "a tokenizer", "stage2": "a generator"}[stage]
        raise InputError(f"{path} holds a {model.config.stage}: give the workdir of {what}")
    return name, model
