"""One split of a folder of stored ids, as training reads it: see `stored_ids`."""

import hashlib
import json
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from evqgan.core import files, stores
from evqgan.core.errors import InputError, first_line
from evqgan.data import stored_ids

NAMED = 5  # ours: an error names as many missing shards


class StoredSplit:
    """One split of a folder of stored ids, memory-mapped; safe in threads.

    The files are not trusted: type and shape of every shard are checked when it is made, the range
    of the ids where they are read.
    class_names: of the data set.
    views: V.
    """

    # as of `decoded.DecodedImages`: images that did not decode were counted when they were encoded
    bad: Mapping[int, str] = types.MappingProxyType({})
    paths: tuple[str, ...] = ()

    def __init__(self, folder: str | os.PathLike, split: str) -> None:
        """Open a folder.

        Raises InputError if it is no place of stored ids, if shards of any split are missing, or
        one is damaged.
        """
        self.folder, self.info = stores.path(folder), stored_ids.read_info(folder)
        keys = self.info["splits"][split]
        self.split, self.views = split, keys["views"]
        self.rows, self.examples = keys["rows"], keys["examples"]
        self.class_names, self.codes = tuple(self.info["class_names"]), self.info["codes"]
        everything = stored_ids.shards(self.info)
        missing = [shard.name for shard in everything if not stored_ids.finished(folder, shard)]
        if missing:
            others = f" and {len(missing) - NAMED} others" if len(missing) > NAMED else ""
            raise InputError(
                f"the stored ids in {str(folder)!r} are not complete: "
                f"{', '.join(missing[:NAMED])}{others} of {len(everything)} shards are missing; "
                "the same --mode=encode again makes them"
            )
        self.shards, labels = [], []
        for shard in (shard for shard in everything if shard.split == split):
            number, (ids, beside) = shard.stop - shard.start, here(folder, self.info, shard)
            ids_file, labels_file = stored_ids.paths(folder, shard)  # of a bucket those there
            shape = (number, self.views, *self.info["latent"], self.info["depth"])
            self.shards.append(opened(ids, stored_ids.id_type(self.codes), shape, ids_file))
            labels.append(np.array(opened(beside, "int32", (number,), labels_file)))
            least = 0 if split == "train" else stored_ids.BAD
            most = (len(self.class_names) or 2**31) - 1
            if not least <= labels[-1].min() <= labels[-1].max() <= most:
                found = f"{labels[-1].min()} to {labels[-1].max()}"
                raise damaged(labels_file, f"labels from {least} to {most}", found)
        self.labels = np.concatenate(labels)

    def __reduce__(self) -> tuple:
        return StoredSplit, (self.folder, self.split)  # mapped again, not copied

    def __len__(self) -> int:
        return self.examples

    def load(self, index: int, view: int = 0) -> dict:
        """Return one view of example `index`: {"ids" int32 [h,w,D], "label" int32}.

        The label is stored_ids.BAD if the image did not decode.
        """
        shard, row = divmod(index, self.rows)
        ids = self.shards[shard][row, view].astype(np.int32)
        if not 0 <= ids.min() <= ids.max() < self.codes:
            ours = [s for s in stored_ids.shards(self.info) if s.split == self.split]
            file, _ = stored_ids.paths(self.folder, ours[shard])
            raise damaged(file, f"ids from 0 to {self.codes - 1}", f"{ids.min()} to {ids.max()}")
        return {"ids": ids, "label": self.labels[index]}


def here(
    folder: str | os.PathLike, info: Mapping[str, Any], shard: stored_ids.Shard
) -> tuple[pathlib.Path, ...]:
    """Return the two files of a shard, as `stored_ids.paths`, of a bucket as copies that are kept.

    They lie in EVQGAN_IDS, or ~/.cache/evqgan/ids, below a hash of what was encoded and how: there
    each is copied once, and again when it was replaced in the bucket, and memory-mapped as any
    other. A copy has the time of its file, so that no two clocks are compared.
    """
    there = stored_ids.paths(folder, shard)
    if not stores.is_remote(folder):
        return there
    usual = pathlib.Path(os.environ.get("EVQGAN_IDS") or "~/.cache/evqgan/ids").expanduser()
    text = json.dumps([os.fspath(folder), info], sort_keys=True)
    place = usual / hashlib.sha256(text.encode()).hexdigest()[:16]
    copies = []
    for file in there:
        copy, about = place / file.name, stores.stamp(file)
        changed = int(about.time)  # some file systems keep whole seconds alone
        found = copy.stat() if copy.is_file() else None
        if found is None or found.st_size != about.size or found.st_mtime < changed:
            with files.atomic(copy) as part:
                stores.fetch(file, pathlib.Path(part.name))
                os.utime(part.name, (changed, changed))
        copies.append(copy)
    return tuple(copies)


def opened(
    path: pathlib.Path, dtype: str, shape: tuple[int, ...], original: pathlib.Path
) -> np.ndarray:
    """Return the memory-mapped array of an .npy file. Nothing is unpickled.

    original: the file that `path` is or is a copy of.

    Raises InputError, which names the original, unless it is of this type and shape.
    """
    expected = f"{dtype} {list(shape)}"
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise damaged(original, expected, first_line(error)) from error
    if array.dtype != dtype or array.shape != shape:
        raise damaged(original, expected, f"{array.dtype} {list(array.shape)}")
    return array


def damaged(path: pathlib.Path, expected: str, found: str) -> InputError:
    """Return the error for a file that is not what `stored_ids.encode` writes."""
    return InputError(
        f"{path}: expected {expected}, got {found}; remove this file, "
        "and --mode=encode makes it again"
    )
