"""What benchmarks of many runs share: their flags, parts of the work, rows, and real images."""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from evqgan.core import build, pictures
from evqgan.core.cli import PATH, TEXT, Flag, whole
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.features.extractor import Extractor
from evqgan.inference.against_real import AgainstReal, Colours, RealImages, too_many

# What the row of real images has in the place of a number of samples, if not "heldout_" before it.
REAL = {"sample_accuracy": "heldout_accuracy"}
SHOWN = 10  # ours: samples in the picture's rows
BATCH = 256  # ours: real images that are read at a time

OUT = Flag("out", PATH, (), "where the workdirs and the picture go", required=True)
SEEDS = Flag("seeds", whole(), (), "runs of each: seeds 0, 1, ... (3)", 3)
ONLY = Flag("only", TEXT, (), "the name of one; several times (default: all)", repeated=True)
SAMPLES = Flag("samples", whole(), (), "how many samples each run is measured on (500)", 500)
FEATURES = Flag(
    "features",
    TEXT,
    (),
    "whose features the Frechet distance compares: efficientnet, digits or another network of "
    "evqgan/features, or colours at 8x8 (pixels)",
    "pixels",
)
WEIGHTS = Flag("weights", PATH, (), 'its weights: a folder, "" for the cache, or "random"', "")
PART = Flag("part", TEXT, (), "I/N: do the I-th of N parts; the table has all that is done", "1/1")


def split(text: str) -> tuple[int, int]:
    """Return the numbers of "2/3"; InputError unless the first one is from 1 to the second."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"expected --part=I/N with I from 1 to N, such as 1/2, got {text!r}")
    return int(part), int(parts)


def known(file: pathlib.Path, **made: Any) -> dict[str, Any] | None:
    """Return the numbers in a file, if it is there and they were made with these settings."""
    numbers = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return numbers if made == {key: numbers.get(key) for key in made} else None


def mean_and_sd(name: str, values: Iterable[float | None]) -> dict[str, float | None]:
    """Return {name: mean, name_sd: standard deviation} of the values that are not None."""
    present = [value for value in values if value is not None]
    deviation = float(np.std(present, ddof=1)) if len(present) > 1 else None
    return {name: float(np.mean(present)) if present else None, f"{name}_sd": deviation}


def real_row(like: Mapping[str, Any], numbers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the row of real images held out from training: what samples as good as they have.

    like: a row of runs, for its keys.
    numbers: of one run, among them those of real images.
    more: other values of the row.
    """
    row = {key: numbers.get(REAL.get(key, f"heldout_{key}")) for key in like}
    return {**row, **more}


def save_picture(file: pathlib.Path, lines: Mapping[str, Iterable[np.ndarray]]) -> None:
    """Write a picture of rows of images under their names."""
    rows = [pictures.label(pictures.row(list(images)), text) for text, images in lines.items()]
    pictures.save_png(file, pictures.column(rows))
    print(f"a row of samples of each: {file}")


def network_of(given: Any) -> Extractor | None:
    """Return the network that --features and --weights name; None of pixels, which need none."""
    if given.features == "pixels":
        return None
    return Extractor(given.features, given.weights, "--features")


def card_of(network: Extractor | None) -> dict[str, Any] | None:
    """Return what numbers are kept with, so that they are not taken for those of other features."""
    return network.card() if network else None


def frechet_of(network: Extractor | None) -> str:
    """Return the name of the Frechet distance by the features of a network, or by colours."""
    return network.name_of("frechet") if network else "frechet"


def against(
    config: Mapping[str, Any], views: int, colour: bool, network: Extractor | None = None
) -> AgainstReal:
    """Return the real images of a data set, which several runs in turn read once.

    config: of the data set, whose images are cropped and mirrored as training does it.
    views: how many of each real image; more than 1 where a random part of it is an example.
    colour: whether the classifier sees colours.
    network: by whose features the Frechet distance compares, under its name; None: by colours.

    Raises InputError if there are too many real images.
    """
    return _against(json.dumps(build.plain(config), sort_keys=True), views, colour, network)


@functools.lru_cache(maxsize=2)  # by the features of a scan, and of what is measured at last
def _against(config: str, views: int, colour: bool, network: Extractor | None) -> AgainstReal:
    """Read the real images of `against`. config: as JSON."""
    dataset = build.call(Dataset, json.loads(config), "config.dataset").of_images()
    train, heldout = (views_of(dataset, x, views) for x in (dataset.train, dataset.validation))
    if beyond := too_many(train, heldout, (*dataset.shape, 3)):
        raise InputError(beyond)
    features = [network or Colours()]
    return AgainstReal(train, heldout, dataset.shape, features, colour=colour)


def views_of(dataset: Dataset, split: str, views: int) -> RealImages:
    """Return the images of a split in so many views each, as training sees them."""
    number = views * len(pipeline.open_split(dataset, split))
    of_split = dataclasses.replace(dataset, train=split)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = min(number, BATCH)
        with contextlib.closing(pipeline.train_batches(of_split, size, seed=0)) as stream:
            for start in range(0, number, size):
                batch = next(stream)
                yield batch["image"][: number - start], batch["label"][: number - start]

    return RealImages(number, batches)
