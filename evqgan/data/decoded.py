"""Decoded examples of a source.

An image that does not decode is replaced, counted and named; too many are an error.
"""

import threading

import numpy as np
from absl import logging

from evqgan.core.errors import InputError
from evqgan.data import Source
from evqgan.data.transforms import as_rgb

CACHE_BYTES = 2**28  # ours: data sets that fit a quarter of a GiB decoded are decoded once
named: set[tuple[str, str]] = set()  # undecodable images that this process has named, and why


class DecodedImages:
    """examples[i] -> {"image": uint8 [H,W,3], "label": int32}; safe in threads.

    An undecodable image counts once however often it is met. Each is logged by name, once in a
    process, as every stage and every evaluation reads them anew, and until there is an error, which
    names the last. More of them than the share `max_bad` of the data set raise
    InputError; a single one is always forgiven unless `max_bad` is 0. A label that is no class
    raises InputError. Pickled, it is one that has met nothing yet.

    bad: {index of an undecodable image: why}, in the order in which they were met.
    """

    def __init__(self, source: Source, max_bad: float) -> None:
        """Decode the examples of `source`; max_bad: a share."""
        self.source, self.max_bad = source, max_bad
        self.kept: dict[int, dict] = {}
        self.bad: dict[int, str] = {}
        self.failed = False  # an error was raised: threads that still read say nothing behind it
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return DecodedImages, (self.source, self.max_bad)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict:
        """Return example `index`, or the next one that decodes.

        The replacement is the same on every run and host.
        """
        for step in range(len(self)):
            example = self.load((index + step) % len(self))
            if example is not None:
                return example
        raise InputError(
            f"no image of the data set decodes, {self.source.where(0)} and all that follow: "
            "repair them, or for a new run give another config.dataset"
        )

    def load(self, index: int) -> dict | None:
        """Return example `index`, or None if its image does not decode."""
        if index in self.bad:
            return None
        if index in self.kept:
            return self.kept[index]
        try:
            raw = self.source[index]
            example = {"image": as_rgb(raw["image"]), "label": np.int32(raw["label"])}
        except InputError as error:
            self.count_bad(index, str(error))
            return None
        self._check_label(index, int(example["label"]))
        if example["image"].nbytes * len(self) <= CACHE_BYTES:
            self.kept[index] = example
        return example

    def _check_label(self, index: int, label: int) -> None:
        most = max(1, len(self.source.class_names)) - 1
        if not 0 <= label <= most:
            with self.lock:
                self.failed = True
            meaning = " (tfds' word for no label)" if label == -1 else ""
            raise InputError(
                f"{self.source.where(index)} has the label {label}{meaning}, expected 0 to "
                f"{most}: for a new run take another split, or read no labels by "
                "config.dataset.label_key="
            )

    def count_bad(self, index: int, reason: str) -> None:
        """Count an undecodable image, which may have been counted before, and name it once.

        Raises InputError if it is one too many.
        """
        where = self.source.where(index)
        with self.lock:
            new = index not in self.bad
            self.bad.setdefault(index, reason)
            count = len(self.bad)
            self.failed = self.failed or count > self.allowed
            if new and not self.failed and (where, reason) not in named:
                named.add((where, reason))
                said = reason.removeprefix(f"cannot read {where}: ")
                logging.warning("Skipped %s: %s", where, said)
        if count > self.allowed:
            raise InputError(
                f"{count} of {len(self)} images do not decode, which is more than the share "
                f"config.dataset.max_bad = {self.max_bad:g}; the last was {where}: {reason}; "
                "repair or remove them, or raise config.dataset.max_bad"
            )

    @property
    def allowed(self) -> int:
        """The number of undecodable images that are forgiven."""
        return forgiven(len(self), self.max_bad)


def forgiven(number: int, max_bad: float) -> int:
    """Return how many of so many images may not decode: the share `max_bad`, at least one.

    With max_bad = 0 it is none.
    """
    return max(1, int(max_bad * number)) if max_bad else 0
