"""What chooses samples in Table 5, where the paper has ResNet-101: see `inference.rejection`."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from evqgan.core import weights
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.inference import evaluation
from evqgan.inference.model import Model
from evqgan.metrics import classifier as agreement
from evqgan.metrics import pixels

RESNET = "resnet101"


def chooser_of(model: Model, dataset: Dataset, colour: bool) -> Any:
    """Return what chooses samples: ResNet-101 of ImageNet's classes, else one of our own.

    Ours learns the held-out images, the one that judges the training images.
    """
    if not model.classes:
        raise InputError(f"{model.workdir} has no classes: nothing can be rejected there")
    if is_resnet(model):
        return RESNET
    images, labels = evaluation.load_split(dataset, dataset.validation)
    return Chooser(images, labels, colour)


def is_resnet(model: Model) -> bool:
    """Return whether ResNet-101 chooses: its weights are there, and the classes are ImageNet's."""
    return weights.path("", RESNET).is_file() and model.classes == 1000


def name_of(model: Model, colour: bool) -> str:
    """Return what chooses a model's samples, by which one classifier is told from another."""
    if is_resnet(model):
        return f"{RESNET} {weights.digest('', RESNET)}"
    return f"{Chooser.name}, {'in colour' if colour else 'without colour'}"


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
