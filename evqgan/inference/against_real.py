"""Samples beside the real images of a data set, without a network: what is wrong with them shows.

Real images are read batch by batch, and the Frechet distance looks at each once. The nearest
training image, the classifier and the spread need all of them at once.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from evqgan.metrics import pixels
from evqgan.metrics.classifier import classifier_agreement
from evqgan.metrics.frechet import Moments
from evqgan.metrics.nearest import nearest
from evqgan.metrics.spread import spread

MOST = 2**31  # ours: bytes of decoded images, of which samples are compared with each one


class RealImages(NamedTuple):
    """Real images of one split."""

    number: int  # how many there are at most
    batches: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]  # () -> images and labels


class _Read(NamedTuple):
    moments: Moments  # of `pixels.colours`
    images: np.ndarray | None  # uint8 [N,H,W,3], if they were to be kept
    labels: np.ndarray  # int32 [N]


def too_many(train: RealImages, heldout: RealImages, shape: tuple[int, ...]) -> str:
    """Return a sentence if there are more real images [*shape] than fit MOST bytes, or ""."""
    number = train.number + heldout.number
    if number * int(np.prod(shape)) <= MOST:
        return ""
    most = f"data sets of up to {MOST:,} bytes"
    return f"samples are compared with {most}; {number:,} images are more"


def against_real(
    images: np.ndarray,
    labels: np.ndarray | None,
    train: RealImages,
    heldout: RealImages,
    colour: bool = False,
    copies: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Return what `evqgan.metrics` says of samples, as {name: number}, and what that is worth.

    frechet, heldout_frechet: see `pixels.frechet`.
    nearest_mean and its kin: see `nearest`, if `copies`.
    sample_accuracy, per_class, sample_spread and their kin: see `classifier_agreement` and
      `spread`, if there are labels.
    All but the first need all real images: if these are `too_many`, the sentence that says so is
    among the warnings in their place.

    images: samples uint8 [N,H,W,3].
    labels: int32 [N], or None of an unconditional model.
    train, heldout: real images of the same size, and labels int32.
    colour: whether the classifier sees colours.

    Raises InputError for other sizes and dtypes, and for sets of one image.
    """
    beyond = too_many(train, heldout, images.shape[1:])
    sets = [_read(images, real, keep=not beyond) for real in (train, heldout)]
    moments = [Moments().add(pixels.colours(images)), *(some.moments for some in sets)]
    numbers: dict[str, Any] = pixels.frechet(*moments)
    warnings = pixels.too_few(*moments)
    if beyond:
        what = "no distance to the nearest image, accuracy and spread"
        return numbers, [*warnings, f"{what}: {beyond}"]
    (_, real_images, real_labels), (_, held_images, held_labels) = sets
    assert real_images is not None and held_images is not None  # they were kept
    if copies:
        numbers |= nearest(images, real_images, held_images)
    if labels is not None:
        given = real_images, real_labels, images, labels, held_images, held_labels
        numbers |= classifier_agreement(*given, colour)
        numbers |= spread(images, labels, real_images, real_labels)
    return numbers, warnings


def _read(samples: np.ndarray, real: RealImages, keep: bool) -> _Read:
    """Read real images once; InputError if they are of another size than the samples."""
    moments = Moments()
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for images, labels in real.batches():
        if len(images):
            pixels.check_images(samples, images)
            moments = moments.add(pixels.colours(images))
        kept.append((images if keep else images[:0], labels))
    images, labels = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return _Read(moments, images if keep else None, labels)
