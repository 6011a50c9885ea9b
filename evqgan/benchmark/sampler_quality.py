"""How good the samples of one generator are, many times over: real images are read only once."""

from typing import Any

import numpy as np

from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.features.extractor import Extractor
from evqgan.inference import against_real
from evqgan.inference.evaluation import of_split, read_split
from evqgan.metrics.classifier import classifier_agreement
from evqgan.metrics.frechet import Moments, frechet_distance
from evqgan.metrics.spread import spread

BATCH = 64  # ours: images whose features are computed at a time


class Quality:
    """Numbers about samples beside the real images of a data set, in the view of validation.

    distance: what the Frechet distance is called: "frechet_pixels", "fid_inception".
    heldout: the same numbers of held-out real images.
    """

    def __init__(self, dataset: Dataset, classes: int, features: str, weights: str) -> None:
        """Read the real images.

        classes: of the generator; with any, and of data sets that are not `too_many` for it, a
          classifier tells how many samples are in their class.
        features: a network of evqgan/features. weights: where its weights lie, see `core.weights`.
        """
        self._extractor = Extractor(features, weights, "--features")
        self.distance = self._extractor.name_of("frechet")
        splits = [of_split(dataset, split) for split in (dataset.train, dataset.validation)]
        beyond = against_real.too_many(splits[0], splits[1], (*dataset.shape, 3))
        if beyond:
            print(f"no share of samples in their class: {beyond}", flush=True)
        self._labelled = bool(classes) and not beyond
        self._real, self._images, self._labels = self._read(dataset, dataset.train)
        heldout, *kept = self._read(dataset, dataset.validation)
        self._heldout = kept[0], kept[1]
        if not self._real.count or not heldout.count:
            raise InputError("samples are compared with real images: the data set has none")
        self.heldout = {self.distance: frechet_distance(heldout.gaussian(), self._real.gaussian())}

    def of(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
        """Return {distance: value}, and with classes sample_accuracy and spread_ratio.

        images: uint8 [N,H,W,3]; labels: int32 [N].
        """
        made = self._added(Moments(), images).gaussian()
        numbers: dict[str, Any] = {self.distance: frechet_distance(made, self._real.gaussian())}
        if self._labelled and labels is not None:
            (held, of_held), real = self._heldout, (self._images, self._labels)
            found = classifier_agreement(*real, images, labels, held, of_held)
            self.heldout["sample_accuracy"] = found["heldout_accuracy"]
            numbers["sample_accuracy"] = found["sample_accuracy"]
            found = spread(images, labels, self._images, self._labels)
            numbers["spread_ratio"] = found["spread_ratio"]
        return numbers

    def _added(self, moments: Moments, images: np.ndarray) -> Moments:
        """Return moments with the features of images added."""
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            batch = np.resize(part, (BATCH, *part.shape[1:]))  # one compilation
            moments = moments.add(self._extractor(batch)["pooled"][: len(part)])
        return moments

    def _read(self, dataset: Dataset, split: str) -> tuple[Moments, np.ndarray, np.ndarray]:
        """Return the moments of a split, and, where classes are told, its images and labels."""
        moments = Moments()
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for images, labels in read_split(dataset, split, BATCH):
            moments = self._added(moments, images)
            kept.append((images if self._labelled else images[:0], labels))
        if not kept:
            return moments, np.zeros((0, *dataset.shape, 3), np.uint8), np.zeros(0, np.int32)
        images, labels = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        return moments, images, labels
