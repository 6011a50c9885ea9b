"""The real images that the paper's tables measure samples against, and what cards say of them."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evqgan.benchmark import runs
from evqgan.data import transforms
from evqgan.data.dataset import Dataset
from evqgan.evals.image_set import STORED, ImageSet, Tally, crop_of
from evqgan.inference import evaluation
from evqgan.inference.against_real import RealImages, too_many


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

    def image_set(self, dataset: Dataset, split: str) -> ImageSet:
        """Return what a card says of a split, which has been read."""
        return self.digests[split]()


def real_of(dataset: Dataset, views: int) -> Real:
    """Return the real images of a data set: both splits in memory, if they fit."""
    splits = {split: runs.views_of(dataset, split, views) for split in names_of(dataset)}
    both = splits[dataset.train], splits[dataset.validation]
    if too_many(*both, (*dataset.shape, 3)):
        tallies = {split: Tally() for split in splits}
        read = [evaluation.of_split(dataset, split, tally) for split, tally in tallies.items()]
        sets = {
            split: functools.partial(tally.image_set, dataset, split)
            for split, tally in tallies.items()
        }
        return Real(read[0], read[-1], False, sets)
    held, sets = [], {}
    for split, images in splits.items():
        batches = [(x.copy(), label.copy()) for x, label in images.batches()]
        held.append(RealImages(images.number, functools.partial(iter, batches)))
        sets[split] = functools.partial(set_of_views, dataset, split, batches)
    return Real(held[0], held[-1], True, sets)


def names_of(dataset: Dataset) -> list[str]:
    """Return the splits of training and of validation, which may be one."""
    return list(dict.fromkeys((dataset.train, dataset.validation)))


def set_of_views(
    dataset: Dataset, split: str, batches: Sequence[tuple[np.ndarray, np.ndarray]]
) -> ImageSet:
    """Return what a card says of images in the view of training."""
    digest = hashlib.sha256()
    for images, _ in batches:
        digest.update(np.ascontiguousarray(images).data)
    return ImageSet(
        source=dataset.folder or dataset.name,
        split=split,
        count=sum(len(images) for images, _ in batches),
        size=dataset.shape,
        crop=f"{dataset.crop}, as in training",
        resize=transforms.FILTERS[crop_of(dataset)],
        pixels=STORED,
        digest=digest.hexdigest()[:16],
        digest_of="pixels",
    )
