"""Whether samples of one class vary as real images do: a collapse shows."""

from typing import Any

import numpy as np

from evqgan.core.errors import InputError
from evqgan.metrics import chunks
from evqgan.metrics.pixels import check_images

NO_PAIR = "it needs a class with two samples and two real images: sample more"


def spread(
    images: np.ndarray, labels: np.ndarray, real_images: np.ndarray, real_labels: np.ndarray
) -> dict[str, Any]:
    """Return the mean distance between two samples of one class, beside that of two real images.

    A distance is the root mean square difference over all values, in grey levels (0 to 255).
    Averaged over classes; those with fewer than two samples or two real images do not count.

    images, real_images: uint8 [N,H,W,3] of one size, with N of their own.
    labels, real_labels: int [N].

    sample_spread, real_spread: in grey levels.
    spread_ratio: sample / real; 0 is a collapsed class; None if all real images are equal.

    Raises InputError if no class counts, and for other sizes and dtypes.
    """
    check_images(images, real_images)
    labels, real_labels = np.asarray(labels), np.asarray(real_labels)
    counted = classes_that_count(labels, real_labels)
    if not counted:
        raise InputError(f"there is no spread of classes: {NO_PAIR}")
    samples, real = (
        float(np.mean([_mean_of_pairs(x[y == k]) for k in counted]))
        for x, y in ((np.asarray(images), labels), (np.asarray(real_images), real_labels))
    )
    return {
        "sample_spread": samples,
        "real_spread": real,
        "spread_ratio": samples / real if real else None,
    }


def classes_that_count(labels: np.ndarray, real_labels: np.ndarray) -> list[int]:
    """Return the classes that have two samples or more, and as many real images."""
    labels, real_labels = np.asarray(labels), np.asarray(real_labels)
    counts = {int(k): min((labels == k).sum(), (real_labels == k).sum()) for k in np.unique(labels)}
    return [k for k, count in counts.items() if count > 1]


def _mean_of_pairs(images: np.ndarray) -> float:
    """Return the mean distance over the pairs of different images, of uint8 [N,H,W,3]."""
    number, flat = len(images), images.reshape(len(images), -1)
    total = 0.0
    for _, _, x, y in chunks.tiles(flat, flat):
        total += float(np.sqrt(chunks.squared_distances(x, y, integers=True) / flat.shape[1]).sum())
    return total / (number * (number - 1))  # an image is at 0 from itself
