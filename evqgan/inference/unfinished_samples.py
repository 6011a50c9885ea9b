"""Samples that are not all made yet, in a folder: ids, a file a batch.

A call that was stopped is gone on with by the same settings and weights alone. Messages call the
images candidates: rejection sampling, which keeps the best of them, saves their scores, too.
"""

import contextlib
import json
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from evqgan.core import files, npz, stores
from evqgan.core.errors import InputError
from evqgan.inference.sample_settings import Settings, difference


def begin(folder: Any, settings: Settings, force: bool = False) -> None:
    """Claim `folder` for images of these settings; InputError if it holds others.

    force: others are removed instead.
    """
    folder = stores.path(folder)
    file = folder / "settings.json"
    if any(folder.glob("*.npz")):
        try:
            check(folder, settings)
            return
        except InputError:
            if not force:
                raise
        remove(folder)
    files.save_json(file, settings)


def check(folder: pathlib.Path, settings: Settings) -> None:
    """Raise InputError if a folder holds images of other settings.

    Folders of older versions do not know of which weights their images are: any will do.
    """
    with readable(folder):
        saved = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        of_weights = {"fingerprint", "tokenizer"} - saved.keys()
        made = difference(saved, {x: y for x, y in settings.items() if x not in of_weights})
    if made:
        advice = (
            "give the same settings again to go on, another folder, or --force (in Python "
            "force=True) to replace them"
        )
        raise InputError(f"{folder} holds candidates made with {made}: {advice}")


def save(folder: Any, numbers: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> None:
    """Save a batch of images with these numbers [n]: ids int32 [n,h,w,D], scores float32 [n]."""
    path = stores.path(folder) / f"{numbers[0]:08d}.npz"
    npz.save(path, numbers=numbers, ids=ids, scores=scores)


def remove(folder: Any) -> None:
    """Remove what sampling keeps in `folder`, and it, if nothing else is there."""
    folder = stores.path(folder)
    for path in [*folder.glob("[0-9]*.npz"), *folder.glob(".*.part"), folder / "settings.json"]:
        path.unlink(missing_ok=True)
    if not stores.is_remote(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()


class SamplingFolder:
    """The images that a folder holds, as ids: a file a batch, each whole or not at all."""

    def __init__(self, folder: Any, total: int) -> None:
        """Read what there is of `total` images.

        scores: float32 [total], NaN for those that are missing.
        missing: the numbers of these, uint32 [n].
        """
        self.folder, self.scores = stores.path(folder), np.full(total, np.nan, np.float32)
        self._files = sorted(self.folder.glob("*.npz"))
        self._where = np.zeros((total, 2), np.int64)  # which file, and which row there
        for i, path in enumerate(self._files):
            with readable(self.folder), npz.opened(path) as saved:
                numbers, self.scores[saved["numbers"]] = saved["numbers"], saved["scores"]
                rows = np.arange(len(numbers))
                self._where[numbers] = np.stack([np.full(len(numbers), i), rows], axis=1)
        self.missing = np.flatnonzero(np.isnan(self.scores)).astype(np.uint32)

    def ids(self, numbers: np.ndarray) -> np.ndarray:
        """Return the ids [n,h,w,D] int32 of images with these numbers, none of them missing."""
        where = self._where[numbers]
        found: Any = None  # made with the first file, which knows the grid
        for i in np.unique(where[:, 0]):
            with readable(self.folder), npz.opened(self._files[i]) as saved:
                ids, is_here = saved["ids"], where[:, 0] == i
                if found is None:
                    found = np.empty((len(numbers), *ids.shape[1:]), np.int32)
                found[is_here] = ids[where[is_here, 1]]
        return found


@contextlib.contextmanager
def readable(folder: Any) -> Iterator[None]:
    """Turn what the body raises because files in `folder` are damaged into InputError."""
    damaged = OSError, ValueError, LookupError, AttributeError, EOFError
    try:
        yield
    except (*damaged, zipfile.BadZipFile, zlib.error) as error:
        problem = f"{folder} does not hold candidates as they were left: {error}"
        raise InputError(f"{problem}; remove it") from error
