"""Numbers by which a test sees that an exported model is as good as when it was exported.

They need no data and no network: samples are compared with kept statistics of the training images,
of colours averaged to SIDE x SIDE.
"""

import json
import pathlib
from typing import Any

import numpy as np

from evqgan.core import build, exported, files
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.inference.evaluation import load_split, read_split
from evqgan.inference.model import Model
from evqgan.metrics import frechet, pixels
from evqgan.metrics.frechet import Gaussian, Moments
from evqgan.metrics.references import Reference, load_reference, save_reference

NAME, REFERENCE = exported.CHECK, exported.REFERENCE
SIDE = 4  # ours: 48 numbers, so that some hundred samples have a covariance
AGAIN = "export the model again, with --check"
SLACK = 1.5  # ours: on one generator four seeds lay within 1.24 of each other


def write(folder: pathlib.Path, model: Model, dataset: Any, num: int) -> dict[str, Any]:
    """Write check.json and reference.npz of a generator into `folder`; return what the first holds.

    dataset: config.dataset, of the images that it was trained on.
    num: samples, of all classes in turn. "frechet" is the distance of their colours to those of the
    training images; "held_out" that of as many held-out images, at most all; "random_ids" that of
    images decoded from ids that are drawn at random, which is what a broken sampler gives.
    """
    dataset = build.call(Dataset, dataset, "config.dataset").of_images()
    real = Moments()
    for images, _ in read_split(dataset, dataset.train):
        real = real.add(colours(images))
    card = {"source": dataset.name or pathlib.Path(dataset.folder).name, "split": dataset.train}
    card |= {"size": dataset.shape, "features": f"colours averaged to {SIDE}x{SIDE}"}
    save_reference(folder / REFERENCE, Reference(real.gaussian(), card=json.dumps(card)))
    held, _ = load_split(dataset, dataset.validation, limit=num)
    found: dict[str, Any] = {"num": num, "seed": 0, "held_out_images": len(held)}
    found |= {"frechet": distance(folder, samples(model, num, 0))}
    found |= {"held_out": distance(folder, held), "random_ids": distance(folder, noise(model, num))}
    if found["frechet"] * SLACK >= found["random_ids"]:
        raise InputError(
            f"samples are {found['frechet']:.3g} from the training images, and images of random "
            f"ids {found['random_ids']:.3g}: a check cannot tell them apart; leave --check out"
        )
    files.save_json(folder / NAME, found)
    return found


def bound(folder: pathlib.Path) -> tuple[int, int, float]:
    """Return how many samples of which seed are checked, and what their distance is below."""
    found = files.read_json(folder / NAME, "what export --check writes", AGAIN)
    try:
        return int(found["num"]), int(found["seed"]), SLACK * float(found["frechet"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / NAME} is not what export --check writes: {AGAIN}") from error


def samples(model: Model, num: int, seed: int) -> np.ndarray:
    """Return the samples uint8 [num,H,W,3] that are checked: of all classes in turn."""
    return model.generate(num, seed=seed)


def noise(model: Model, num: int) -> np.ndarray:
    """Return images uint8 [num,H,W,3] of ids that are drawn at random."""
    ids = np.random.default_rng(0).integers(0, model.codes, (num, *model.grid, model.depth))
    return model.decode(ids)


def distance(folder: pathlib.Path, images: np.ndarray) -> float:
    """Return the Frechet distance of images uint8 [N,H,W,3] to the statistics in `folder`."""
    found = colours(images)
    real: Gaussian = load_reference(folder / REFERENCE, found.shape[1]).pooled
    return frechet.frechet_distance(frechet.gaussian(found), real)


def colours(images: np.ndarray) -> np.ndarray:
    """Return float32 [N,48] in [0, 1] of images uint8 [N,H,W,3]."""
    return pixels.features(images, SIDE, colour=True)
