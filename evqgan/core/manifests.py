"""What a checkpoint says of its arrays beside them: shapes, dtypes, checksums of their bytes."""

import zlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from evqgan.core.mesh import path_name

Manifest = dict[str, list[Any]]  # what `manifest_of` returns


def manifest_of(tree: Any) -> Manifest:
    """Return {path: [shape, CRC-32 of the bytes or None, dtype, {part: CRC-32}]} of every array.

    Orbax restores flipped bits without a word; these numbers, stored beside the arrays, tell. An
    array that no process holds whole has one for each part that one process holds, such as
    "0:8,16:32". All processes of a run have to call this, and get the same.
    """
    rows: Manifest = {}
    parts: list[tuple[str, str, int | None]] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, whole = path_name(path), getattr(leaf, "is_fully_addressable", True)
        shape, number = leaf.shape, crc32(leaf) if whole else None
        rows[name] = [list(shape), number, np.dtype(leaf.dtype).name, {}]
        if not whole:
            here = {part_name(shard.index, shape): shard.data for shard in leaf.addressable_shards}
            indices = leaf.sharding.devices_indices_map(shape).values()
            for part in sorted({part_name(index, shape) for index in indices}):
                parts.append((name, part, crc32(here[part]) if part in here else None))
    if parts:
        mine = np.array([[x is not None, x or 0] for *_, x in parts], np.uint32)
        everywhere = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, *mine.shape)
        holder = everywhere[:, :, 0].argmax(axis=0)
        for i, (name, part, _) in enumerate(parts):
            rows[name][3][part] = int(everywhere[holder[i], i, 1])
    return rows


def crc32(array: Any) -> int:
    """Return the CRC-32 of an array's bytes in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def part_name(index: Iterable[slice], shape: Iterable[int]) -> str:
    """Return the part that the slices `index` cut out of an array of `shape`: "0:8,16:32"."""
    return ",".join(
        "{}:{}".format(*cut.indices(n)[:2]) for cut, n in zip(index, shape, strict=True)
    )


def part_of(array: Any, part: str) -> np.ndarray | None:
    """Return the `part` of an array as NumPy; None unless this process holds all of that part.

    part: as `part_name` says it; "" for all of the array.
    """
    ends = [cut.split(":") for cut in part.split(",")] if part else [(0, n) for n in array.shape]
    wanted = [(int(low), int(high)) for low, high in ends]
    if getattr(array, "is_fully_addressable", True):
        return np.asarray(array)[tuple(slice(*cut) for cut in wanted)]
    for shard in array.addressable_shards:
        held = [cut.indices(n)[:2] for cut, n in zip(shard.index, array.shape, strict=True)]
        if all(a <= low and high <= b for (low, high), (a, b) in zip(wanted, held, strict=True)):
            pairs = zip(wanted, held, strict=True)
            cuts = tuple(slice(low - a, high - a) for (low, high), (a, _) in pairs)
            return np.asarray(shard.data)[cuts]
    return None


def changed(tree: Any, rows: Manifest) -> list[str]:
    """Return the names of the arrays of `tree` that are not those of a manifest.

    What this process holds of an array is checked. Of a part that was saved by one process, it has
    to hold all.
    """
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        whole, parts = row_of(rows, path_name(path))[1::2]
        for part, number in ({"": whole} if whole is not None else parts).items():
            data = part_of(leaf, part)
            if data is not None and crc32(data) != number:
                names.append(path_name(path))
    return list(dict.fromkeys(names))


def row_of(rows: Manifest, name: str) -> list[Any]:
    """Return the row of a manifest for an array.

    Rows of checkpoints made before it knew dtypes and parts end after two.
    """
    row = rows.get(name, ["nothing", None])
    return row if len(row) == 4 else [*row, None, {}]


def is_valid(rows: Manifest) -> bool:
    """Return whether what was read as a manifest has the form of one: a row for each array."""
    return all(isinstance(row, list) and len(row) in (2, 4) for row in rows.values())


def is_of_step(rows: Manifest, step: int) -> bool:
    """Return whether the array "step" of a manifest is `step`; True where there is none.

    Weights that were converted have none.
    """
    return "step" not in rows or row_of(rows, "step")[1] in (None, crc32(np.int32(step)))
