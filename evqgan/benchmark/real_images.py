"""The real images that benchmarks measure samples against, and what cards say of them."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.data import pipeline, transforms
from evqgan.data.dataset import Dataset
from evqgan.evals.against_real import AgainstReal, Features, RealImages, too_many
from evqgan.evals.image_set import STORED, ImageSet, Tally, crop_of
from evqgan.evals.protocols import FOLDER
from evqgan.evals.provenance import Measured, Produced, Subject
from evqgan.inference import evaluation

BATCH = 256  # ours: real images that are read at a time


class Beside(NamedTuple):
    """Real images in the view of training, beside which several runs are measured in turn.

    train, heldout: what cards say of them.
    settings, features: what cards say of how they are compared.
    """

    against: AgainstReal
    train: ImageSet
    heldout: ImageSet
    settings: Mapping[str, Any]
    features: Sequence[Mapping[str, Any]]

    def card(
        self, of: Subject, produced: Produced, labels: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return the card of the numbers of samples.

        of: the model that made them. labels: int32 [N], or None.
        """
        warnings = self.against.warnings(produced.count, labels)
        measured = Measured(
            FOLDER.name,
            produced,
            self.train,
            self.heldout,
            self.features,
            self.settings,
            warnings,
        )
        return of.card("samples", measured).as_json()


def against(config: Mapping[str, Any], views: int, colour: bool, features: Features) -> Beside:
    """Return the real images of a data set, which are read once for all runs.

    config: of the data set, whose images are cropped and mirrored as training does it.
    views: how many of each real image; more than 1 where a random part of it is an example.
    colour: whether the classifier sees colours.
    features: what the Frechet distance is of, which is named for them.

    Raises InputError if there are too many real images, or a split has one: runs are compared by
    their distances.
    """
    return _against(json.dumps(build.plain(config), sort_keys=True), views, colour, features)


@functools.lru_cache(maxsize=2)  # by the features of a scan, and of what is measured at last
def _against(config: str, views: int, colour: bool, features: Features) -> Beside:
    """Read the real images of `against`. config: as JSON."""
    dataset = build.call(Dataset, json.loads(config), "config.dataset").of_images()
    splits = [Hashed(dataset, split, views) for split in (dataset.train, dataset.validation)]
    train, heldout = (split.real_images() for split in splits)
    if beyond := too_many(train, heldout, (*dataset.shape, 3)):
        raise InputError(beyond)
    for part, split in (("train", train), ("validation", heldout)):
        if split.number == 1:
            raise InputError(
                f"distances need two real images or more, and config.dataset.{part} = "
                f"{getattr(dataset, part)!r} has one: add images, or give another split"
            )
    beside = AgainstReal(train, heldout, dataset.shape, [features], colour=colour)
    return Beside(
        beside,
        splits[0].image_set(),
        splits[1].image_set(),
        {"views": views, **beside.settings},
        beside.cards,
    )


class Real(NamedTuple):
    """The real images that samples are measured against.

    is_held: whether they are held in memory, in the view of training; others are read in that of
      validation.
    digests: of a split's images, once they were read.
    """

    train: RealImages
    heldout: RealImages
    is_held: bool
    digests: Mapping[str, Callable[[], ImageSet]]

    def image_set(self, split: str) -> ImageSet:
        """Return what a card says of a split, which has been read."""
        return self.digests[split]()


def real_of(dataset: Dataset, views: int) -> Real:
    """Return the real images of a data set: both splits in memory, if they fit."""
    splits = {split: views_of(dataset, split, views) for split in names_of(dataset)}
    both = splits[dataset.train], splits[dataset.validation]
    if too_many(*both, (*dataset.shape, 3)):
        tallies = {split: Tally() for split in splits}
        read = [evaluation.of_split(dataset, split, tally) for split, tally in tallies.items()]
        of_tallies = {
            split: functools.partial(tally.image_set, dataset, split)
            for split, tally in tallies.items()
        }
        return Real(read[0], read[-1], False, of_tallies)
    held: list[RealImages] = []
    sets: dict[str, Callable[[], ImageSet]] = {}
    for split in splits:
        hashed = Hashed(dataset, split, views)
        batches = [(x.copy(), label.copy()) for x, label in hashed.batches()]
        held.append(RealImages(splits[split].number, functools.partial(iter, batches)))
        sets[split] = hashed.image_set
    return Real(held[0], held[-1], True, sets)


def names_of(dataset: Dataset) -> list[str]:
    """Return the splits of training and of validation, which may be one."""
    return list(dict.fromkeys((dataset.train, dataset.validation)))


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


class Hashed:
    """The views of a split, whose pixels are hashed while they are read, once."""

    def __init__(self, dataset: Dataset, split: str, views: int) -> None:
        """Read nothing yet. Arguments as of `views_of`."""
        self._dataset, self._split = dataset, split
        self._views, self._hash = views_of(dataset, split, views), hashlib.sha256()

    def real_images(self) -> RealImages:
        """Return the images for a reader that looks at them once."""
        return RealImages(self._views.number, self.batches)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield images uint8 [n,H,W,3] and labels int32 [n]."""
        for images, labels in self._views.batches():
            self._hash.update(np.ascontiguousarray(images).data)
            yield images, labels

    def image_set(self) -> ImageSet:
        """Return what a card says of the images, which have been read."""
        dataset = self._dataset
        return ImageSet(
            source=dataset.folder or dataset.name,
            split=self._split,
            count=self._views.number,
            size=dataset.shape,
            crop=f"{dataset.crop}, as in training",
            resize=transforms.FILTERS[crop_of(dataset)],
            pixels=STORED,
            digest=self._hash.hexdigest()[:16],
            digest_of="pixels",
        )
