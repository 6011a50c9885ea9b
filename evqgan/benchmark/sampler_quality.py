"""How good the samples of one generator are, many times over: real images are read only once."""

from typing import Any

import numpy as np

from evqgan.core.errors import InputError
from evqgan.features.extractor import Extractor
from evqgan.inference import against_real
from evqgan.inference.against_real import RealImages
from evqgan.metrics.classifier import classifier_agreement
from evqgan.metrics.frechet import Moments, frechet_distance
from evqgan.metrics.spread import spread

BATCH = 64  # ours: images whose features are computed at a time


class Quality:
    """Numbers about samples beside real images.

    distance: what the Frechet distance is called: "frechet_pixels", "fid_inception".
    heldout: the same numbers of held-out real images.
    """

    def __init__(
        self,
        train: RealImages,
        heldout: RealImages,
        shape: tuple[int, int],
        classes: int,
        network: Extractor,
        colour: bool = False,
    ) -> None:
        """Read the real images.

        shape: (H, W) of all images.
        classes: of the generator; with any, and of real images that are not `too_many` for it, a
          classifier tells how many samples are in their class.
        network: by whose features the Frechet distance compares.
        colour: whether the classifier sees colours.
        """
        self._network, self.distance = network, network.name_of("frechet")
        beyond = against_real.too_many(train, heldout, (*shape, 3))
        if beyond:
            print(f"no share of samples in their class: {beyond}", flush=True)
        self._labelled, self._colour = bool(classes) and not beyond, colour
        self._real, *self._images = self._read(train)
        held, *self._heldout = self._read(heldout)
        self.heldout = {self.distance: frechet_distance(held.gaussian(), self._real.gaussian())}

    def of(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
        """Return {distance: value}, and with classes sample_accuracy and spread_ratio.

        images: uint8 [N,H,W,3]; labels: int32 [N].
        """
        made = self._added(Moments(), images).gaussian()
        numbers: dict[str, Any] = {self.distance: frechet_distance(made, self._real.gaussian())}
        if self._labelled and labels is not None:
            (real, of_real), (held, of_held) = self._images, self._heldout
            given = real, of_real, images, labels, held, of_held
            found = classifier_agreement(*given, colour=self._colour)
            self.heldout["sample_accuracy"] = found["heldout_accuracy"]
            numbers["sample_accuracy"] = found["sample_accuracy"]
            numbers["spread_ratio"] = spread(images, labels, real, of_real)["spread_ratio"]
        return numbers

    def _added(self, moments: Moments, images: np.ndarray) -> Moments:
        """Return moments with the features of images added."""
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            batch = np.resize(part, (BATCH, *part.shape[1:]))  # one compilation
            moments = moments.add(self._network(batch)["pooled"][: len(part)])
        return moments

    def _read(self, some: RealImages) -> tuple[Moments, np.ndarray, np.ndarray]:
        """Return the moments of real images, and, where classes are told, images and labels."""
        moments = Moments()
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for images, labels in some.batches():
            moments = self._added(moments, images)
            kept.append((images if self._labelled else images[:0], labels))
        if not moments.count:
            raise InputError("samples are compared with real images, of which a split has none")
        images, labels = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        return moments, images, labels
