"""A data set that tfds has written as tfrecord, copied shard by shard into array_record.

The records stay as they are, serialized Examples, so that no feature is lost.
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from array_record.python import array_record_module

from evqgan.core import files
from evqgan.core.errors import InputError, first_line
from evqgan.core.progress import heartbeat, say
from evqgan.data.named import INFO
from evqgan.data.tfrecords import Damaged, records

WHAT = "the dataset_info.json that tfds writes"
ADVICE = "give the folder of one version of a data set, such as imagenet2012/5.1.0"
SHARD = re.compile(r"(.+)-(\w+)\.tfrecord-(\d{5})-of-(\d{5})")
NEW = ".array_record-"  # in the names of the copies
SOURCE = "source.json"  # in the folder that is not whole yet: the shards it is made from


def place(source: pathlib.Path, dest: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder in the data_dir `dest` for a copy of the data set in `source`."""
    info = _info(source)
    parts = [str(info[key]) for key in ("name", "configName", "version") if info.get(key)]
    if any(part in ("", ".", "..") or "/" in part for part in parts):
        raise InputError(f"{source / INFO} is not {WHAT}: it names {'/'.join(parts)}")
    return pathlib.Path(dest).expanduser().joinpath(*parts)


def convert(source: pathlib.Path, dest: str | os.PathLike[str], damaged: Damaged) -> int:
    """Copy the data set in `source` into its `place` in the data_dir `dest`.

    Returns how many records it lacks, those that an earlier call has left out among them.

    It appears when it is whole. What a call that was stopped has finished, a shard at a time, is
    kept beside it and taken by the next one. damaged: see `tfrecords.records`.

    Raises InputError for what is no such data set, or where a split has other numbers of records.
    """
    info, folder = _info(source), place(source, dest)
    if info.get("fileFormat", "tfrecord") != "tfrecord":
        raise InputError(f"{source} is written as {info['fileFormat']}, expected tfrecord")
    shards = _shards(source)
    part = folder.with_name(f".{folder.name}.part")
    with files.owned(part, "another DEST"):
        _take_up(part, shards)
        counts: dict[str, list[int]] = {}
        named: dict[str, list[int]] = {}  # how many damaged records of each shard were named
        with heartbeat(f"converting {source}", every=10.0) as at:
            for number, shard in enumerate(shards):
                split, target = _split_of(shard), part / shard.name.replace(".tfrecord-", NEW)
                named.setdefault(split, []).append(0)
                if not target.exists():
                    named[split][-1] = _copy(shard, target, damaged)
                counts.setdefault(split, []).append(_count(target))
                at(number + 1, len(shards))
        lacking = _describe(info, counts, named, source, part, damaged)
        (part / SOURCE).unlink()
    part.rename(folder)
    return lacking


def _info(source: pathlib.Path) -> dict[str, Any]:
    found = files.read_json(source / INFO, WHAT, ADVICE)
    if not isinstance(found.get("splits"), list) or not found.get("name"):
        raise InputError(f"{source / INFO} is not {WHAT}: it has no name or no splits; {ADVICE}")
    return found


def _shards(source: pathlib.Path) -> list[pathlib.Path]:
    """Return the shards of all splits, sorted; InputError if one is missing."""
    found = sorted(path for path in source.iterdir() if SHARD.fullmatch(path.name))
    if not found:
        raise InputError(f"there is no shard NAME-SPLIT.tfrecord-00000-of-00001 in {source}")
    for path in found:
        start, number = path.name[: -len("00000-of-00001")], int(path.name[-5:])
        for i in range(number):
            other = source / f"{start}{i:05d}-of-{number:05d}"
            if not other.is_file():
                raise InputError(f"{other} is missing: copy the whole data set again")
    return found


def _split_of(shard: pathlib.Path) -> str:
    found = SHARD.fullmatch(shard.name)
    assert found  # `_shards` has looked
    return found[2]


def _take_up(part: pathlib.Path, shards: list[pathlib.Path]) -> None:
    """Keep what an earlier call has finished, if it was of the same shards."""
    now = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in shards}
    try:
        before = json.loads((part / SOURCE).read_text())
    except (OSError, ValueError):
        before = None
    done = [path for path in part.iterdir() if NEW in path.name and path.suffix != ".tmp"]
    for path in part.iterdir():
        if path.suffix == ".tmp" or (path in done and before != now):
            path.unlink()
    if before == now and done:
        say(f"{len(done):,} of {len(shards):,} shards are there from before")
    files.save_json(part / SOURCE, now)


def _copy(shard: pathlib.Path, target: pathlib.Path, damaged: Damaged) -> int:
    """Write the records of a shard as array_record under the name `target`, whole or not at all.

    Returns how many times `damaged` was told of one.
    """
    part, told = target.with_name(f"{target.name}.tmp"), 0

    def tell(what: str) -> None:
        nonlocal told
        told += 1
        damaged(what)

    try:
        writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1")  # as tfds'
        for record in records(shard, tell):
            writer.write(record)
        writer.close()
        os.replace(part, target)
    except (OSError, RuntimeError) as error:  # a full disk, or array_record's word for it
        raise InputError(f"cannot write {target}: {first_line(error)}") from error
    return told


def _count(target: pathlib.Path) -> int:
    reader = array_record_module.ArrayRecordReader(str(target))
    try:
        return int(reader.num_records())
    finally:
        reader.close()


def _describe(
    info: dict[str, Any],
    counts: Mapping[str, list[int]],
    named: Mapping[str, list[int]],
    source: pathlib.Path,
    part: pathlib.Path,
    damaged: Damaged,
) -> int:
    """Copy what describes the data set, with the new format and numbers of records.

    Returns how many are lacking. `damaged` is told of shards that lack other numbers than `named`.
    """
    lacking = 0
    for split in info["splits"]:
        name = split["name"]
        told = [int(number) for number in split.get("shardLengths", [])]
        if len(counts.get(name, ())) != len(told):
            there = f"{len(counts.get(name, ())):,} shards, and {INFO} says {len(told):,}"
            raise InputError(f"{source}: the split {name!r} has {there}: copy it again")
        for number, (found, said) in enumerate(zip(counts[name], told, strict=True)):
            lacking += max(said - found, 0)
            if said - found != named[name][number]:
                what = f"shard {number} of the split {name!r} has {found:,} whole records"
                damaged(f"{source}: {what}, and {INFO} says {said:,}")
        split["shardLengths"] = [str(number) for number in counts[name]]
    info["fileFormat"] = "array_record"
    for path in _descriptions(source):
        shutil.copyfile(path, part / path.name)
    files.save_json(part / INFO, info)
    return lacking


def _descriptions(source: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in source.iterdir():
        if path.is_file() and path.suffix in (".json", ".txt") and path.name != INFO:
            yield path
