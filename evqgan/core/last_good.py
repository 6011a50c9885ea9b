"""The last checkpoint of a run that is whole: it is found, and those after it moved out of the way.

Every array is read and compared with the checksum that was saved with it. Good means whole on disk;
whether the loss had diverged by then is not asked.
"""

import json
import pathlib
import warnings
from collections.abc import Callable

import numpy as np
import orbax.checkpoint as ocp

from evqgan.core import checkpoint, files, integrity, manifests, stores
from evqgan.core.errors import InputError

ASIDE = "damaged"  # the folder of a workdir that takes what is moved


def find(workdir: pathlib.Path, say: Callable[[str], None]) -> int:
    """Return the step of the latest checkpoint of a workdir that is whole, 0 if there is none.

    Those after it are read, too, and a line says what is wrong with each; nothing is changed.

    Raises InputError if there are checkpoints, and none is whole.
    """
    steps, damaged = checkpoint.steps_in(workdir), {}
    for step in reversed(steps):
        say(f"reading checkpoint {step:,}, to see whether it is whole")
        what = damage(workdir / "checkpoints" / str(step))
        if not what:
            return step
        say(f"checkpoint {step:,} is damaged: {what}")
        damaged[step] = what
    if damaged:
        found = "; ".join(f"{step}: {what}" for step, what in damaged.items())
        raise InputError(
            f"no checkpoint in {workdir / 'checkpoints'} is whole ({found}): bring one back from a "
            "copy, or give another --workdir to train again"
        )
    return 0


def set_aside(workdir: pathlib.Path, last: int, say: Callable[[str], None]) -> None:
    """Move the checkpoints after step `last`, which `find` found damaged, to workdir/damaged.

    A line says where each is. Call this in one process.
    """
    later = [step for step in checkpoint.steps_in(workdir) if step > last]
    for step in reversed(later):
        there = free(workdir / ASIDE, str(step))
        with files.writable(there):
            stores.move(workdir / "checkpoints" / str(step), there)
        say(f"the damaged checkpoint {step:,} is in {there} now")
    if later:
        say(f"going on from step {last:,}, the last good one")


def free(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Return a path in `folder` that is not taken: `name`, or name.1, name.2, ..."""
    names = (name if not n else f"{name}.{n}" for n in range(10**6))
    return next(path for x in names if not (path := folder / x).exists())


def damage(folder: pathlib.Path) -> str:
    """Return what is wrong with a checkpoint, in words, or "".

    folder: such as checkpoints/400.

    Raises InputError where it cannot be read for another reason (`integrity.unreadable`).
    """
    if what := integrity.undescribed(folder) or integrity.damage(folder, "manifest"):
        return what
    rows = json.loads((folder / "manifest" / "metadata").read_text(encoding="utf-8"))
    if not manifests.is_valid(rows):
        return "manifest/metadata is changed"
    if what := integrity.damage(folder, "state", {name.split("/")[0] for name in rows}):
        return what
    if not is_described(folder / "state"):
        return "state/_METADATA or state/_sharding is changed"
    for file in sorted((folder / "state" / "array_metadatas").glob("*")):
        if not lists(file, rows):
            return f"{file.relative_to(folder)} is changed"
    for name in rows:
        if not is_whole(folder, name, manifests.row_of(rows, name)):
            return integrity.changed_array(folder, name)
    return ""


def is_described(place: pathlib.Path) -> bool:
    """Return whether orbax can read what describes the arrays in `place`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it began and does not end when it fails
        try:
            ocp.PyTreeCheckpointHandler().metadata(stores.absolute(place))
        except Exception as error:  # of many kinds, by what it does not find
            integrity.check_readable(place.parent, error)
            return False
    return True


def lists(file: pathlib.Path, rows: manifests.Manifest) -> bool:
    """Return whether orbax's list of arrays in `file` is one of arrays of the manifest `rows`."""
    shapes = {name.replace("/", "."): row[0] for name, row in rows.items()}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["array_metadatas"]
        found = [entry["array_metadata"] for entry in entries]
        of_arrays = all(
            x.keys() == found[0].keys()
            and x["ext_metadata"] is None
            and divides(x["write_shape"], shapes[x["param_name"]])
            and divides(x["chunk_shape"], x["write_shape"])
            for x in found
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return False
    return of_arrays and all(len(entry) == 1 for entry in entries)


def divides(part: list[int], whole: list[int]) -> bool:
    """Return whether an array of shape `whole` is made of parts of the shape `part`."""
    return (
        len(part) == len(whole)
        and all(n > 0 for n in part)
        and all(n % m == 0 for n, m in zip(whole, part, strict=True))
    )


def is_whole(folder: pathlib.Path, name: str, row: list) -> bool:
    """Return whether an array is there with the checksums of its row of the manifest."""
    shape, whole, dtype, parts = row
    try:
        array = integrity.array(folder / "state", name)
        if list(array.shape) != shape or dtype not in (None, array.dtype.name):
            return False
        for part, number in ({"": whole} if whole is not None else parts).items():
            cuts = tuple(slice(*map(int, cut.split(":"))) for cut in part.split(",") if cut)
            data = np.asarray(array[cuts].read().result() if cuts else array.read().result())
            if manifests.crc32(data) != number:
                return False
    except (ValueError, TypeError, OSError) as error:  # tensorstore's for what it cannot read
        integrity.check_readable(folder, error)
        return False
    return True
