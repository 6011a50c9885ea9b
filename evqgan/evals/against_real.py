"""Samples beside the real images of a data set: what is wrong with them shows.

Real images are read batch by batch and once, however many sets of samples are measured. The
distances look at each of them once. The nearest training image, the classifier and the spread need
all of them in memory.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.npz import Pieces
from evqgan.core.progress import counted, heartbeat
from evqgan.evals.feature_metrics import (
    METRICS,
    FeatureSet,
    Metric,
    MetricName,
    left_out,
    measure,
    too_few,
)
from evqgan.evals.real_images import needing_real
from evqgan.features.extractor import card_of
from evqgan.features.names import name_of
from evqgan.metrics import pixels
from evqgan.metrics.classifier import JUDGE, classifier_agreement
from evqgan.metrics.nearest import nearest
from evqgan.metrics.spread import NO_PAIR, classes_that_count, spread

JUDGED = 100  # ours: images, of which a share in a class has a standard error of 5 points at most
MOST = 2**31  # ours: bytes of decoded images, of which samples are compared with each one


class RealImages(NamedTuple):
    """Real images of one split."""

    number: int  # how many there are at most
    batches: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]  # () -> images and labels


class Features(Hashable, Protocol):
    """What metrics compare of images: `features.extractor.Extractor` is one, `Colours` another."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Return {"pooled": F, ...}, how many numbers there are of an image."""

    def name_of(self, number: str) -> str:
        """Return what a number of these features is called."""

    def card(self) -> dict[str, Any]:
        """Return what the card of such a number says of them."""

    def pieces(self, images: np.ndarray) -> Iterator[tuple[Mapping[str, np.ndarray], np.ndarray]]:
        """Yield {layer: features [n,F]} of uint8 [N,H,W,3], and which of them count: bool [n]."""


class Colours:
    """Colours averaged down to 8x8 as features, without a network: see `pixels.colours`.

    Their Frechet distance is frechet_pixels.
    """

    widths = MappingProxyType({"pooled": 3 * pixels.FRECHET_SIDE**2})

    def name_of(self, number: str) -> str:
        """Return the number's name, such as frechet_pixels."""
        return name_of(number, "pixels")

    def card(self) -> dict[str, Any]:
        """Return the card of `features.pixels`, which are the same."""
        return card_of("pixels", "", "features")

    def pieces(self, images: np.ndarray) -> Iterator[tuple[Mapping[str, np.ndarray], np.ndarray]]:
        """Yield the colours of all images."""
        yield {"pooled": pixels.colours(images)}, np.ones(len(images), bool)


class _Split(NamedTuple):
    sets: list[FeatureSet]  # of each of the features
    images: np.ndarray  # uint8 [N,H,W,3]; none where they were not to be kept
    labels: np.ndarray  # int32 [N]


def _of_heldout(features: Features, number: str) -> str:
    """Return what a number of held-out images is called."""
    return f"heldout_{features.name_of(number)}"


def too_many(train: RealImages, heldout: RealImages, shape: tuple[int, ...]) -> str:
    """Return a sentence if there are more real images [*shape] than fit MOST bytes, or ""."""
    number = train.number + heldout.number
    if number * int(np.prod(shape)) <= MOST:
        return ""
    most = f"data sets of up to {MOST:,} bytes"
    return f"samples are compared with {most}; {number:,} images are more"


class AgainstReal:
    """Real images, read once, and the numbers of sets of samples beside them.

    beyond: a sentence if they are `too_many` to be kept, or ""; without held-out ones none is.
    """

    def __init__(
        self,
        train: RealImages,
        heldout: RealImages | None,
        size: tuple[int, int],
        features: Sequence[Features] = (Colours(),),
        metrics: Sequence[MetricName] = ("frechet",),
        colour: bool = False,
        keep: bool = True,
    ) -> None:
        """Read the real images, with labels int32.

        heldout: those that training has not seen; None: there is nothing but distances then, and
          none of held-out images.
        size: (H, W) of all images.
        features: what distances are of.
        metrics: of each of the features those that it has the layer of.
        colour: whether the classifier sees colours.
        keep: whether images are kept in memory, if they are not `too_many`, for all that is no
          distance.

        Raises InputError for images of another size, and a split without any.
        """
        self.beyond = too_many(train, heldout, (*size, 3)) if heldout else ""
        self._size, self._features, self._colour = size, features, colour
        self._is_kept = keep and heldout is not None and not self.beyond
        self._metrics: list[dict[str, Metric]] = [
            {name: METRICS[name] for name in metrics if METRICS[name].layer in one.widths}
            for one in features
        ]
        self._train = self._read(train)
        self._heldout = self._read(heldout) if heldout else None
        # whether a classifier can tell classes apart
        self._has_classes = len(np.unique(self._train.labels)) > 1
        self._floor: dict[str, float] = {}  # the distances of held-out images
        if self._heldout:
            beside_real = [{m: x for m, x in some.items() if x.real} for some in self._metrics]
            self._floor = self._distances(beside_real, self._heldout.sets, "heldout_")

    @property
    def cards(self) -> list[dict[str, Any]]:
        """What cards say of the features."""
        return [one.card() for one in self._features]

    @property
    def settings(self) -> dict[str, Any]:
        """What cards say of all else that decides the numbers: who judges classes."""
        classifier = {"classifier": JUDGE, "classifier_sees_colours": self._colour}
        return classifier if self._is_kept and self._has_classes else {}

    def numbers_of(
        self, images: np.ndarray | Pieces, labels: np.ndarray | None, copies: bool = False
    ) -> dict[str, Any]:
        """Return {name: number} of samples, and beside each that of held-out images.

        frechet_pixels, ...: by `metrics`, under the names of their features.
        heldout_frechet_pixels, ...: the same of held-out real images: the floor.
        nearest_mean and its kin: see `nearest`, if `copies`.
        sample_accuracy, per_class, sample_spread and their kin: see `classifier_agreement` and
          `spread`, if there are labels, and real images of two classes or more.

        All but distances needs real images that are kept. What needs more images than there are is
        left out: `warnings` says so.

        images: uint8 [N,H,W,3]; of `Pieces` they are read once, and whole only for what needs it.
        labels: int32 [N], or None of an unconditional model.

        Raises InputError for other sizes and dtypes, and for no samples.
        """
        with heartbeat(f"measuring {counted(images.shape[0], 'sample')}"):
            return self._numbers_of(images, labels, copies)

    def _numbers_of(
        self, images: np.ndarray | Pieces, labels: np.ndarray | None, copies: bool
    ) -> dict[str, Any]:
        """Return what `numbers_of` does."""
        sets = [FeatureSet(metrics.values()) for metrics in self._metrics]
        wanted = self._is_kept and (copies or labels is not None)
        if isinstance(images, Pieces):
            whole, start = np.empty(images.shape if wanted else 0, np.uint8), 0
            for part in images.pieces:
                self._add(sets, part)
                if wanted:
                    whole[start : start + len(part)] = part
                start += len(part)
        else:
            whole = images
            self._add(sets, images)
        numbers: dict[str, Any] = {**self._distances(self._metrics, sets), **self._floor}
        if not wanted:
            return numbers
        assert self._heldout is not None
        _, real, real_labels = self._train
        _, held, held_labels = self._heldout
        if copies:
            numbers |= nearest(whole, real, held)
        if labels is not None and self._has_classes:
            given = real, real_labels, whole, labels, held, held_labels
            numbers |= classifier_agreement(*given, colour=self._colour)
            if classes_that_count(labels, real_labels):
                numbers |= spread(whole, labels, real, real_labels)
        return numbers

    def numbers_of_heldout(self) -> dict[str, Any]:
        """Return the numbers of held-out real images under the names that samples' have.

        They are the distances, and where images of two classes or more are kept, sample_accuracy.
        """
        numbers: dict[str, Any] = {n.removeprefix("heldout_"): x for n, x in self._floor.items()}
        if self._is_kept and self._heldout and self._has_classes:
            held = self._heldout[1:]
            found = classifier_agreement(*self._train[1:], *held, *held, colour=self._colour)
            numbers["sample_accuracy"] = found["heldout_accuracy"]
        return numbers

    def warnings(self, number: int, labels: np.ndarray | None = None) -> list[str]:
        """Return a sentence for each number that means little of so many samples, or is left out.

        labels: int32 [N] of the samples; None if they have no classes, or are not judged by them.
        """
        lines: list[str] = []
        for i, (one, metrics) in enumerate(zip(self._features, self._metrics, strict=True)):
            real = {"training images": self._train.sets[i].count}
            held = {"held-out images": self._heldout.sets[i].count} if self._heldout else {}
            no_floor = left_out(metrics, partial(_of_heldout, one), {}, held)
            lines += no_floor.values()
            for name, metric in metrics.items():
                real_counts = real if name in no_floor else real | held
                given = {name: metric}, one.name_of, one.widths, {"samples": number}, real_counts
                lines += too_few(*given)
        if self.beyond:
            what = "no distance to the nearest image, accuracy and spread"
            lines.append(f"{what}: {self.beyond}")
        elif self._is_kept and labels is not None:
            if not self._has_classes:
                what = "no accuracy and spread of classes"
                lines.append(f"{what}: the training images have fewer than two classes")
            else:
                lines += self._of_shares(number)
                if not classes_that_count(labels, self._train.labels):
                    lines.append(f"no spread of classes: {NO_PAIR}")
        return lines

    def _of_shares(self, number: int) -> Iterator[str]:
        """Yield a sentence for each share of images in their class that is of few images."""
        assert self._heldout is not None
        held = len(self._heldout.labels)
        both = ("sample_accuracy", number, "sample"), ("heldout_accuracy", held, "held-out image")
        for name, count, what in both:
            if count < JUDGED:
                error = f"its standard error is up to {50 / count**0.5:.0f} points"
                are = "is" if count == 1 else "are"
                yield f"{name}: {counted(count, what)} {are} few, {JUDGED} would do: {error}"

    def _distances(
        self, metrics: Sequence[Mapping[str, Metric]], sets: Sequence[FeatureSet], prefix: str = ""
    ) -> dict[str, float]:
        """Return {prefix + name: number} of images by their sets, one of each of the features."""
        parts = zip(self._features, metrics, sets, self._train.sets, strict=True)
        return {
            prefix + one.name_of(name): value
            for one, some, made, real in parts
            for name, value in measure(some, made, real).items()
        }

    def _read(self, real: RealImages) -> _Split:
        """Read the real images of a split once."""
        sets = [FeatureSet(needing_real(metrics)) for metrics in self._metrics]
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        done = 0
        with heartbeat(f"measuring {counted(real.number, 'real image')}") as at:
            for images, labels in real.batches():
                if len(images):
                    self._add(sets, images)
                    kept.append((images if self._is_kept else images[:0], labels))
                    done += len(images)
                    at(done, real.number)
        if not kept:
            raise InputError("samples are compared with real images, of which a split has none")
        images, labels = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        return _Split(sets, images, labels)

    def _add(self, sets: Sequence[FeatureSet], images: np.ndarray) -> None:
        """Add images to the set of each of the features."""
        pixels.check_images(images, np.empty((0, *self._size, 3), np.uint8))
        for one, some in zip(self._features, sets, strict=True):
            for found, valid in one.pieces(images):
                some.add(found, valid)
