"""Numbers about class-conditional samples beside real images.

Is the class right, do they vary, are they copies. Images are uint8 [N,H,W,3], all of one size;
labels int [N] from 0. Distances are the root mean square difference of two images over all
values, in grey levels (0 to 255). They are exact: sums of squares of bytes fit a float64, so a
copy is at 0. Work is cut into pieces of some 64 MiB, whatever the number and size of the images.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.svm import SVC

from evqgan.core.errors import InputError

# ours: features of at most 16x16, no better for digits at 24 or 32, and quick at any resolution
SIDE = 16
FRECHET_SIDE = 8  # ours: 192 numbers, fewer than the images that their covariance is of
# ours: with gamma "scale", 98.9 % on the digits held out by data/builders/digits.py, the same up to
# 100
C = 10.0
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
PIECE = 1 << 23  # float64 numbers in one piece: 64 MiB


def classifier_agreement(
    real_images: np.ndarray,
    real_labels: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    heldout_images: np.ndarray,
    heldout_labels: np.ndarray,
    colour: bool = False,
) -> dict[str, Any]:
    """Return the share of samples that a classifier of real images gives their class, and others.

    A support vector classifier (RBF kernel) learns the real training images as grey or `colour`
    pictures, averaged by area down to at most 16x16.
    sample_accuracy: that share, in [0, 1].
    heldout_accuracy: the same of held-out real images: the ceiling.
    per_class: sample accuracy by class, None for a class without samples.
    """
    _same_size(real_images, images, heldout_images)
    some, real, held = (features(x, SIDE, colour) for x in (images, real_images, heldout_images))
    classifier = SVC(C=C, gamma="scale").fit(real, real_labels)
    right = classifier.predict(some) == np.asarray(labels)
    heldout = classifier.predict(held) == np.asarray(heldout_labels)
    classes = range(int(np.max(real_labels)) + 1)
    by_class = [right[np.asarray(labels) == label] for label in classes]
    return {
        "sample_accuracy": float(right.mean()),
        "heldout_accuracy": float(heldout.mean()),
        "per_class": [float(one.mean()) if len(one) else None for one in by_class],
    }


def features(images: np.ndarray, side: int, colour: bool) -> np.ndarray:
    """Return float32 [N,F] in [0, 1] of uint8 [N,H,W,3].

    In grey or `colour`, averaged by area to at most `side` x `side`.
    """
    images = np.asarray(images)
    rows, columns = _averaging(images.shape[1], side), _averaging(images.shape[2], side)
    channels = np.eye(3) / 255 if colour else np.array(GREY)[:, None] / 255
    step, found = max(1, PIECE // images[0].size), []
    for i in range(0, len(images), step):
        some = np.moveaxis(images[i : i + step] @ channels, -1, 1)  # float64 [n,C,H,W]
        small = np.moveaxis(rows @ some @ columns.T, 1, -1)
        found.append(small.reshape(len(small), -1).astype(np.float32))
    return np.concatenate(found)


def spread(
    images: np.ndarray, labels: np.ndarray, real_images: np.ndarray, real_labels: np.ndarray
) -> dict[str, Any]:
    """Return the mean distance between two samples of one class, beside that of two real images.

    Averaged over classes; those with fewer than two samples or two real images do not count, and
    InputError is raised if that leaves none.
    sample_spread, real_spread: in grey levels.
    spread_ratio: sample / real; 0 is a collapsed class.
    """
    _same_size(images, real_images)
    labels, real_labels = np.asarray(labels), np.asarray(real_labels)
    counted = [
        k for k in np.unique(labels) if min((labels == k).sum(), (real_labels == k).sum()) > 1
    ]
    if not counted:
        raise InputError(
            "the spread needs a class with two samples and two real images: sample more"
        )
    samples, real = (
        float(np.mean([_mean_pair(x[y == k]) for k in counted]))
        for x, y in ((np.asarray(images), labels), (np.asarray(real_images), real_labels))
    )
    return {
        "sample_spread": samples,
        "real_spread": real,
        "spread_ratio": samples / real if real else None,
    }


def frechet(
    images: np.ndarray, real_images: np.ndarray, heldout_images: np.ndarray
) -> dict[str, float]:
    """Return the Frechet distance of samples from real images, as Gaussians.

    Features are colours averaged by area down to at most 8x8, in [0, 1]: no network is needed, and
    nothing of a learned feature space (FID's) is meant.
    frechet: of the samples.
    heldout_frechet: of held-out real images: the floor.
    """
    _same_size(images, real_images, heldout_images)
    real, some, held = (
        statistics(features(x, FRECHET_SIDE, colour=True))
        for x in (real_images, images, heldout_images)
    )
    return {
        "frechet": frechet_distance(*real, *some),
        "heldout_frechet": frechet_distance(*real, *held),
    }


def too_few(images: np.ndarray, real_images: np.ndarray, heldout_images: np.ndarray) -> list[str]:
    """Return why `frechet` of these images means little: a sentence for each small set."""
    number = features(images[:1], FRECHET_SIDE, colour=True).shape[1]
    sets = {"samples": images, "training images": real_images, "held-out images": heldout_images}
    return [
        f"frechet: {len(some):,} {name} are no more than its {number} features, "
        "too few for their covariance"
        for name, some in sets.items()
        if len(some) <= number
    ]


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean [F] and covariance [F,F] (unbiased) of features [N,F], float64."""
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def frechet_distance(
    mean: np.ndarray,
    covariance: np.ndarray,
    other_mean: np.ndarray,
    other_covariance: np.ndarray,
) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al., 2017).

    The trace of the root is by eigenvalues.
    """
    root = np.sqrt(np.linalg.eigvals(covariance @ other_covariance).astype(complex)).real.sum()
    distance = (
        np.sum((mean - other_mean) ** 2)
        + np.trace(covariance)
        + np.trace(other_covariance)
        - 2 * root
    )
    return float(max(distance, 0.0))  # rounding alone makes it negative


def nearest(
    images: np.ndarray, train_images: np.ndarray, heldout_images: np.ndarray
) -> dict[str, float]:
    """Return the distance of each sample to its nearest training image, summarized.

    Samples that lie much nearer than held-out images are copies of what the model was trained on.
    nearest_mean, nearest_min, nearest_q05, nearest_copies: of the samples, the last two the 5 %
      quantile and the share at distance 0.
    heldout_nearest_mean, ...: the same of real images held out from training.
    """
    _same_size(images, train_images, heldout_images)
    numbers = {}
    for prefix, some in (("", images), ("heldout_", heldout_images)):
        at = np.concatenate(
            [
                distances.min(1)
                for distances in _distances(np.asarray(some), np.asarray(train_images))
            ]
        )
        numbers[prefix + "nearest_mean"] = float(at.mean())
        numbers[prefix + "nearest_min"] = float(at.min())
        numbers[prefix + "nearest_q05"] = float(np.quantile(at, 0.05))
        numbers[prefix + "nearest_copies"] = float((at == 0).mean())
    return numbers


def _mean_pair(images: np.ndarray) -> float:
    """Return the mean distance over the pairs of different images."""
    total = sum(distances.sum() for distances in _distances(images, images))
    return total / (len(images) * (len(images) - 1))  # an image is at 0 from itself


def _distances(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Yield float64 [n,M], the distances of the next n of `a` [N,H,W,3] to all of `b` [M,H,W,3]."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    size = a.shape[1]
    step = max(1, PIECE // size)
    lengths = np.concatenate([_squares(b[j : j + step]) for j in range(0, len(b), step)])
    at_once = max(1, min(step, PIECE // len(b)))
    for i in range(0, len(a), at_once):
        some = a[i : i + at_once].astype(np.float64)
        products = [some @ b[j : j + step].astype(np.float64).T for j in range(0, len(b), step)]
        yield np.sqrt((_squares(some)[:, None] + lengths - 2 * np.concatenate(products, 1)) / size)


def _squares(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return np.einsum("nd,nd->n", x, x)


def _averaging(side: int, most: int) -> np.ndarray:
    """Return float64 [min(side, most), side]: each row averages a share of the pixels, by area."""
    small = min(side, most)
    edges = np.arange(small + 1) * side / small
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * small / side


def _same_size(*sets: np.ndarray) -> None:
    shapes = {np.shape(images)[1:] for images in sets}
    if len(shapes) > 1 or any(np.asarray(images).dtype != np.uint8 for images in sets):
        found = ", ".join(f"{np.asarray(images).dtype} {list(np.shape(images))}" for images in sets)
        raise InputError(
            f"samples and real images must be uint8 of one size to be compared, got {found}"
        )
