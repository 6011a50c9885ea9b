"""Samples that are finished: what a samples.npz of --mode=sample holds, and how it was made."""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evqgan.core import npz, stores
from evqgan.core.errors import InputError, first_line
from evqgan.core.npz import Pieces
from evqgan.evals.provenance import MadeBy, Produced
from evqgan.metrics.references import load_images

READ = 256  # ours: samples that are read at a time
SHOWN = 10  # ours: classes that a message lists
PERIOD = 1000  # ours: so many labels at most are looked at for what repeats


class Finished(NamedTuple):
    """The samples of a file."""

    images: Pieces  # uint8 [N,H,W,3], READ at a time
    labels: np.ndarray | None  # int32 [N]; None of an unconditional model
    made_by: MadeBy
    produced: Produced


def read(file: str | os.PathLike[str]) -> Finished:
    """Return the samples of a samples.npz; InputError for another file. No image is read yet."""
    if not stores.path(file).is_file():
        raise InputError(f"there is no file {file}: make it by --mode=sample")
    names = ("acceptance", "classifier", "candidates")
    try:
        with npz.opened(file) as saved:
            labels = saved.get("labels")
            sampler = json.loads(saved["sampler"].item())
            sampler |= {name: saved[name].item() for name in names if name in saved}
            step, seed = int(saved["step"]), int(saved["seed"])
            marks = [str(saved[name]) for name in ("fingerprint", "tokenizer") if name in saved]
        images = load_images(file, READ)
        if labels is not None and labels.shape != images.shape[:1]:
            raise ValueError(f"it has {images.shape[0]:,} images and {len(labels):,} labels")
    except InputError as error:  # names the file
        raise InputError(f"{error}; make the samples again") from error
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{file} is not what --mode=sample writes: {first_line(error)}; make the samples "
            "again, or measure those of another program: python -m evqgan.benchmark distribution"
        ) from error
    asked = "none" if labels is None else in_words(labels.tolist())
    count, height, width, _ = images.shape
    produced = Produced("samples", count, (height, width), seed=seed, labels=asked, sampler=sampler)
    return Finished(images, labels, MadeBy(step, *marks), produced)


def are_of(file: str | os.PathLike[str], card: Mapping[str, Any]) -> bool:
    """Return whether samples are there, and of the weights that a card of numbers names, as JSON.

    Samples of an older version, which say their step alone, are of any weights of that step.
    """
    try:
        made_by = read(file).made_by
    except InputError:
        return False
    there = card.get("model") or {}
    return all(value in ("", there.get(name)) for name, value in made_by._asdict().items())


def in_words(labels: Sequence[int]) -> str:
    """Return the classes that labels go through in turn, such as "3,5"; of many the first ones."""
    array = np.asarray(labels)
    periods = range(1, min(len(array), PERIOD) + 1)
    fits = (n for n in periods if np.array_equal(array[n:], array[:-n]))
    turn = array[: next(fits, len(array))].tolist()
    more = f",... ({len(turn):,} in turn)" if len(turn) > SHOWN else ""
    return ",".join(map(str, turn[:SHOWN])) + more
