"""Whether class-conditional samples are of their class, to a classifier of real images."""

from typing import Any

import numpy as np
from sklearn.svm import SVC

from evqgan.metrics import pixels

# ours: features of at most 16x16, no better for digits at 24 or 32, and quick at any resolution
SIDE = 16
# ours: with gamma "scale", 98.9 % on the digits held out by data/builders/digits.py, the same up to
# 100
C = 10.0
# What cards say of it.
JUDGE = (
    f"support vector classifier (RBF kernel, C = {C:g}) of training images, {SIDE}x{SIDE} at most"
)


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
    pictures, averaged by area down to at most 16x16. With a network in its place this is GAN-test
    (Shmelkov et al., 2018, Section 3).

    real_images, images, heldout_images: uint8 [N,H,W,3] of one size, with N of their own.
    real_labels, labels, heldout_labels: int [N] from 0.

    sample_accuracy: that share, in [0, 1].
    heldout_accuracy: the same of held-out real images: the ceiling.
    per_class: sample accuracy by class, None for a class without samples.

    Raises InputError for other sizes and dtypes.
    """
    pixels.check_images(real_images, images, heldout_images)
    samples, real, held = (
        pixels.features(x, SIDE, colour) for x in (images, real_images, heldout_images)
    )
    classifier = SVC(C=C, gamma="scale").fit(real, real_labels)
    right = classifier.predict(samples) == np.asarray(labels)
    heldout = classifier.predict(held) == np.asarray(heldout_labels)
    classes = range(int(np.max(real_labels)) + 1)
    by_class = [right[np.asarray(labels) == label] for label in classes]
    return {
        "sample_accuracy": float(right.mean()),
        "heldout_accuracy": float(heldout.mean()),
        "per_class": [float(one.mean()) if len(one) else None for one in by_class],
    }
