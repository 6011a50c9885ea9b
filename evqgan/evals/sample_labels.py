"""The class labels of generated images: all in turn, or each as often as among real images."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset

Order = Literal["turn", "data"]
ALL_CLASSES = "all classes in turn"  # what cards call such labels
# Ours: the share of real images that would have to change their class for all classes to be equally
# frequent; above it a card warns.
UNEVEN = 0.1


class Frequencies(NamedTuple):
    """How often real images are of each class: names, and int [classes].

    Files of a folder are counted, those that turn out not to decode among them.
    """

    names: Sequence[str]
    counts: np.ndarray

    def warning(self, key: str) -> str:
        """Return a sentence if real images are not spread evenly over the classes, else "".

        key: of the config, which sets the order of labels.
        """
        shares = self.counts / self.counts.sum()
        if np.abs(shares - 1 / len(shares)).sum() / 2 <= UNEVEN:
            return ""
        most, least = int(np.argmax(self.counts)), int(np.argmin(self.counts))
        there = f"{counted(self.counts[most], 'file')} of {self.names[most]!r}"
        also = f"{self.counts[least]:,} of {self.names[least]!r}"
        return (
            f"generated images are of all classes in turn, and there are {there} and {also}: a "
            f"distance is the larger for that; {key}=data generates classes as often as these"
        )


def frequencies(
    dataset: Dataset, split: str, classes: int, names: Sequence[str]
) -> Frequencies | None:
    """Return how often the images of a split are of each class.

    None: the data set's classes are not the model's, or it does not list labels.

    classes, names: of the model; no names: they are not known.
    """
    source: Any = pipeline.open_split(dataset.of_images(), split)
    theirs = tuple(source.class_names)
    if source.labels is None or len(theirs) != classes or tuple(names) not in ((), theirs):
        return None
    return Frequencies(theirs, np.bincount(source.labels, minlength=classes))


def labels_of(
    number: int, classes: int, order: Order, among_real: Frequencies | None, key: str
) -> np.ndarray:
    """Return labels int32 [number] in an order; 0 without classes.

    among_real: how often real images are of each class; "data" needs it. key: of the config, which
      sets the order. Raises InputError for "data" where that is not known.
    """
    if order == "turn" or not classes:
        return (np.arange(number) % max(classes, 1)).astype(np.int32)
    if among_real is None:
        raise InputError(
            f"{key} = 'data' needs real images of the model's classes, in a data set that lists "
            "their labels, as folders do: give 'turn'"
        )
    return labels_as_often(number, among_real.counts)


def labels_as_often(number: int, counts: np.ndarray) -> np.ndarray:
    """Return labels int32 [number] that are of each class as often as counts [classes] say.

    The shares are exact but for rounding, by the largest remainders; the images of a class are
    spread evenly over all.
    """
    shares = number * counts / counts.sum()
    each = np.floor(shares).astype(int)
    by_remainder = np.argsort(each - shares, kind="stable")
    each[by_remainder[: number - each.sum()]] += 1
    labels = np.repeat(np.arange(len(counts)), each)
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in each if n])
    return labels[np.argsort(places, kind="stable")].astype(np.int32)


def in_words(order: Order, classes: int, split: str) -> str:
    """Return what a card says of labels."""
    if not classes:
        return "none"
    return ALL_CLASSES if order == "turn" else f"as often as in the split {split!r}"
