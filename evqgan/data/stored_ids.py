"""Stored ids: a data set encoded once, for a stage 2 that reads no images and runs no encoder.

DIR/info.json                        what was encoded, by which tokenizer, in how many views
DIR/train-00003-of-00016.npy         ids [n,V,h,w,D] uint16 or int32: V views of n examples, each
                                     view a crop and flip
DIR/train-00003-of-00016.labels.npy  int32 [n]; BAD in validation: the image did not decode, so it
                                     is not evaluated
DIR/train-00003-of-00016.bad.json    which examples did not decode, where there are any; in training
                                     their neighbours stand for them
DIR/validation-00000-of-00001.npy    the same with one view, the centre

A shard is finished when ids and labels are there. View v of example i is a function of
(seed, i, v) and the tokenizer alone, so shards may be made in any order, by any number of hosts.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evqgan.core import build, files, signals, stores
from evqgan.core.errors import InputError
from evqgan.core.processes import Report
from evqgan.core.progress import counted
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import forgiven

FORMAT = "evqgan stored ids 1"
SPLITS = ("train", "validation")
# ours: a shard is at most 4,096 examples and 64 MiB: what a kill loses, and memory holds
ROWS, BYTES = 2**12, 2**26
BAD = -1  # the label of what did not decode
KEYS = (  # of config.dataset: what decides which ids are made; where the data lie does not
    "name",
    "train",
    "validation",
    "crop",
    "min_scale",
    "flip",
    "image_key",
    "label_key",
    "classes",
    "num_examples",
)


class Shard(NamedTuple):
    """Examples start to stop of a split, under `name`.npy and `name`.labels.npy."""

    split: str
    name: str
    start: int
    stop: int


def weights_digest(weights: dict) -> str:
    """Return a hex text that other names, types, shapes or values of weights change (SHA-256).

    weights: a tree of NumPy arrays, nested dicts.
    """
    found = hashlib.sha256()

    def add(path: str, node: Any) -> None:
        if isinstance(node, dict):
            for key in sorted(node):
                add(f"{path}/{key}", node[key])
        else:
            found.update(f"{path} {node.dtype} {node.shape}\n".encode())
            found.update(np.ascontiguousarray(node).tobytes())

    add("", weights)
    return found.hexdigest()


def data_keys(dataset: Dataset) -> dict:
    """Return what of config.dataset decides the ids; of the folder its name, as it may move."""
    folder = os.path.abspath(os.path.expanduser(dataset.folder)) if dataset.folder else ""
    keys = {key: getattr(dataset, key) for key in KEYS}
    return {**keys, "folder": os.path.basename(folder), "size": list(dataset.shape)}


def describe(
    dataset: Dataset,
    examples: dict[str, dict],
    class_names: Sequence[str],
    views: int,
    seed: int,
    codes: int,
    latent: Sequence[int],
    depth: int,
    tokenizer: dict,
) -> dict:
    """Return the info, the content of info.json.

    examples: {split: what `pipeline.identity` says of it}.
    views: of a training example.
    codes, latent, depth: V, (h, w) and D of the tokenizer.
    tokenizer: {"fingerprint", and whatever else says what it is}.
    """
    size = int(np.prod(latent)) * depth * np.dtype(id_type(codes)).itemsize
    splits = {}
    for split, number in zip(SPLITS, (views, 1), strict=True):
        rows = max(1, min(ROWS, BYTES // (size * number)))
        splits[split] = {**examples[split], "views": number, "rows": rows}
    info = {
        "format": FORMAT,
        "dataset": data_keys(dataset),
        "splits": splits,
        "seed": seed,
        "class_names": list(class_names),
        "codes": codes,
        "latent": list(latent),
        "depth": depth,
        "tokenizer": tokenizer,
    }
    return json.loads(json.dumps(info))  # as a file has it, in which tuples are lists


def id_type(codes: int) -> str:
    """Return the smallest type that holds ids below `codes`."""
    return "uint16" if codes <= 2**16 else "int32"


def shards(info: Mapping[str, Any]) -> list[Shard]:
    """Return the Shards of all splits, in order."""
    found = []
    for split, keys in info["splits"].items():
        number = -(-keys["examples"] // keys["rows"])
        for s in range(number):
            stop = min((s + 1) * keys["rows"], keys["examples"])
            found.append(Shard(split, f"{split}-{s:05d}-of-{number:05d}", s * keys["rows"], stop))
    return found


def paths(folder: str | os.PathLike, shard: Shard) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the two files of a shard: ids, labels."""
    folder = stores.path(folder)
    return folder / f"{shard.name}.npy", folder / f"{shard.name}.labels.npy"


def note_of_bad(folder: str | os.PathLike, shard: Shard) -> pathlib.Path:
    """Return the file that names a shard's examples that did not decode, if there are any."""
    return stores.path(folder) / f"{shard.name}.bad.json"


def count_bad(folder: str | os.PathLike, info: Mapping[str, Any], split: str) -> int:
    """Return how many examples of a split did not decode, in the shards that are finished."""
    of_split = [shard for shard in shards(info) if shard.split == split]
    there = [note_of_bad(folder, shard) for shard in of_split if finished(folder, shard)]
    return sum(len(json.loads(file.read_text())) for file in there if file.is_file())


def check_bad(
    folder: str | os.PathLike, info: Mapping[str, Any], split: str, max_bad: float, more: int = 0
) -> None:
    """Raise InputError if more of a split than the share `max_bad` did not decode, on any host.

    more: how many did not in a shard that is not finished.
    """
    count, number = count_bad(folder, info, split) + more, info["splits"][split]["examples"]
    if count > forgiven(number, max_bad):
        raise InputError(
            f"{count:,} of {number:,} {split} images do not decode, which is more than the share "
            f"config.dataset.max_bad = {max_bad:g} ({folder}/*.bad.json has their numbers): repair "
            "or remove them and give another --out, or raise config.dataset.max_bad"
        )


def read_info(folder: str | os.PathLike) -> dict:
    """Return the info.json of a folder of stored ids.

    Raises InputError if there is none, or it is not what `encode` writes.
    """
    file = stores.path(folder) / "info.json"
    if not file.is_file():
        taken = file.parent.is_dir() and any(file.parent.iterdir())  # by what encode would not want
        make = (
            f"make them with --mode=encode --workdir=TOKENIZER --out={'DIR' if taken else folder}"
        )
        raise InputError(
            f"{str(folder)!r} holds no stored ids (there is no {file})"
            f"{stores.beginning(folder)}: {make}, or give another folder as config.dataset.codes"
        )
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        numbers = [info["codes"], info["depth"], *info["latent"]]
        numbers += [
            info["splits"][split][key] for split in SPLITS for key in ("examples", "views", "rows")
        ]
        texts = [*info["class_names"], info["tokenizer"]["fingerprint"]]
        known = info["format"] == FORMAT and list(info["splits"]) == list(SPLITS)
        known = known and isinstance(info["dataset"], dict) and len(info["latent"]) == 2
        known = known and isinstance(info["class_names"], list) and isinstance(info["seed"], int)
        known = known and all(isinstance(x, int) and 0 < x < 2**31 for x in numbers)
        known = known and all(isinstance(x, str) for x in texts)
        reason = f"expected the format {FORMAT!r} with all its keys"
    except (OSError, ValueError, KeyError, TypeError) as error:
        known, reason = False, f"{type(error).__name__}: {error}"
    if not known:
        raise InputError(
            f"{file} is not what --mode=encode writes ({reason}): encode into another folder"
        )
    return info


def begin(folder: str | os.PathLike, info: Mapping[str, Any]) -> None:
    """Claim `folder` for `info`.

    Raises InputError when it holds ids of other data or of another tokenizer.
    """
    # first, as another host may be about to begin
    shards_there = any(stores.path(folder).glob("*-of-*.npy"))
    if (stores.path(folder) / "info.json").exists():
        if found := build.differences(read_info(folder), info):
            raise InputError(f"{folder} holds other ids, {build.listed(found)}: give another --out")
    elif shards_there:
        raise InputError(
            f"{folder} holds shards of ids, but no info.json: give another --out, or remove them"
        )
    else:
        files.save_json(stores.path(folder) / "info.json", info)


def require(
    folder: str | os.PathLike, info: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Raise InputError unless `info` has the `expected` values; both dicts, nested or not."""
    ours = {key: info.get(key) for key in expected}
    for key, (here, there) in build.differences(expected, ours).items():
        name = f"config.{key}" if key.startswith("dataset") else key
        other = key == "tokenizer.fingerprint"
        what = "other tokenizer weights" if other else f"{name} = {there!r}, now it is {here!r}"
        raise InputError(
            f"config.dataset.codes = {str(folder)!r} was made with {what}: use the tokenizer and "
            "config.dataset it was made with, or --mode=encode into another folder"
        )


def summary(info: Mapping[str, Any]) -> str:
    """Return a short text that identifies stored ids: it changes with any value of `info`.

    A run that trains from these ids keeps it as config.stored_ids.
    """
    views = info["splits"]["train"]["views"]
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    return f"{views} views of each example, {digest.hexdigest()[:16]}"


def encode(
    folder: str | os.PathLike,
    info: Mapping[str, Any],
    batches: Callable[[str, int, int], Any],
    to_ids: Callable[[np.ndarray], Any],
    host: int = 0,
    hosts: int = 1,
    report: Report | None = None,
    max_bad: float = 1.0,
) -> int:
    """Make this host's shards that are not there yet; return the number of images encoded.

    batches: (split, start, stop) -> iterator with close() over {"image" uint8 [b,V,H,W,3], "label"
      int32 [b], "bad" bool [b]}, all examples of start to stop in turn.
    to_ids: uint8 [b*V,H,W,3] -> ids [b*V or more,h,w,D], as an array or, still being computed, of a
      device: one batch is always under way.
    host, hosts: this host makes every hosts-th shard, from number `host` on.
    report: is called after each batch.
    max_bad: the share of a split that may not decode; those of all hosts count, and of earlier
      calls. Raises InputError if they are more.
    """
    mine = shards(info)[host::hosts]
    todo = [shard for shard in mine if not finished(folder, shard)]
    total = sum((shard.stop - shard.start) * info["splits"][shard.split]["views"] for shard in todo)
    done, began = 0, time.perf_counter()
    for number, shard in enumerate(todo, len(mine) - len(todo)):
        signals.note_saved(
            f"{number:,} of {counted(len(mine), 'shard')} in {folder}" if number else ""
        )
        views, ids, labels, bad = info["splits"][shard.split]["views"], [], [], []
        for some, batch in behind(_encoded(shard, batches, to_ids)):
            label = np.asarray(batch["label"], np.int32)
            rows = np.asarray(some)[: len(label) * views].astype(id_type(info["codes"]))
            ids.append(rows.reshape(-1, views, *rows.shape[1:]))  # [b,V,h,w,D]
            labels.append(label)
            bad.append(np.asarray(batch["bad"]))
            done += len(rows)
            if report:
                report(done, total, time.perf_counter() - began)
        _note_bad(folder, info, shard, np.flatnonzero(np.concatenate(bad)), max_bad)
        # the ids last
        for path, parts in zip(paths(folder, shard)[::-1], (labels, ids), strict=True):
            with files.atomic(path) as file:
                np.save(file, np.concatenate(parts), allow_pickle=False)
    return done


def _note_bad(
    folder: str | os.PathLike,
    info: Mapping[str, Any],
    shard: Shard,
    rows: np.ndarray,
    max_bad: float,
) -> None:
    """Note the rows of a shard, int [n], that did not decode; InputError if they are too many."""
    file = note_of_bad(folder, shard)
    if len(rows):
        check_bad(folder, info, shard.split, max_bad, len(rows))
        files.save_json(file, (shard.start + rows).tolist())
    else:
        file.unlink(missing_ok=True)


def _encoded(
    shard: Shard, batches: Callable[[str, int, int], Any], to_ids: Callable[[np.ndarray], Any]
) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
    """Yield ids [b*V or more,h,w,D] of the batches of a shard, and these; see `encode`."""
    source = batches(shard.split, shard.start, shard.stop)
    try:
        for batch in source:
            image = batch["image"]
            yield to_ids(image.reshape(-1, *image.shape[2:])), batch
    finally:
        source.close()


def finished(folder: str | os.PathLike, shard: Shard) -> bool:
    """Return whether ids and labels of a shard are there."""
    return all(path.is_file() for path in paths(folder, shard))


def behind(items: Iterable) -> Iterator:
    """Yield the items one late: the next is under way on a device while this one is stored."""
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
