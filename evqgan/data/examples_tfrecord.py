"""TFRecord files of tf.train.Examples with an image and maybe a class each, as a data set.

Every record is looked at before anything is written: so all that is wrong is known by then, and
how many classes there are.
"""

import fnmatch
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from evqgan.core.build import suggestion
from evqgan.core.errors import InputError
from evqgan.core.progress import counted, heartbeat, say
from evqgan.data import written
from evqgan.data.tfrecords import Damaged, records

# Ours: names of the image, the first that a record has. Of TensorFlow's and tfds' own examples, and
# of StyleGAN's files.
IMAGES = ("image", "image/encoded", "image_raw", "jpeg", "data")
SHAPE = "shape"  # StyleGAN's: int64 [3] of the pixels in "data"
HELD = ("validation", "val", "valid", "test")  # what names of files with held-out images hold


class Reader:
    """Makes (image, label) of serialized Examples; raises InputError for one that has neither."""

    def __init__(self, image_key: str, label_key: str) -> None:
        self.image_key, self.label_key = image_key, label_key

    def __call__(self, record: bytes, where: str) -> tuple[bytes, int]:
        """Return the encoded image and the label, 0 without a key of labels."""
        try:
            example = tf_example_pb2.Example.FromString(record)
        except DecodeError:
            raise InputError(f"{where}: expected a tf.train.Example") from None
        features = example.features.feature
        key = self.image_key or next((name for name in IMAGES if name in features), "")
        if key not in features or len(features[key].bytes_list.value) != 1:
            hint = suggestion(key, features) if key else f"it has {', '.join(sorted(features))}"
            raise InputError(f"{where}: there is no image {key!r}: {hint}; give --image_key=KEY")
        image = features[key].bytes_list.value[0]
        if SHAPE in features:
            image = encoded(image, list(features[SHAPE].int64_list.value), where)
        return image, self.label(features, where) if self.label_key else 0

    def label(self, features: Mapping[str, Any], where: str) -> int:
        """Return the label as it stands there."""
        if self.label_key not in features:
            hint = suggestion(self.label_key, features)
            raise InputError(f"{where}: there is no label {self.label_key!r}: {hint}")
        found = features[self.label_key].int64_list.value
        if len(found) != 1:
            raise InputError(f"{where}: expected one whole number as {self.label_key!r}")
        return int(found[0])


def encoded(pixels: bytes, shape: Sequence[int], where: str) -> bytes:
    """Return uint8 pixels [1 or 3,H,W] as a PNG."""
    if len(shape) != 3 or shape[0] not in (1, 3) or np.prod(shape) != len(pixels):
        found = f"{len(pixels):,} bytes and the shape {shape}"
        raise InputError(f"{where}: expected uint8 pixels of the shape [1 or 3,H,W], got {found}")
    image = np.frombuffer(pixels, np.uint8).reshape(shape).transpose(1, 2, 0)
    return cv2.imencode(".png", image[..., ::-1] if shape[0] == 3 else image)[1].tobytes()


def convert(
    source: pathlib.Path,
    dest: str | os.PathLike[str],
    flags: Any,
    wanted: Mapping[str, str],
    damaged: Damaged,
) -> list[str]:
    """Write the data set flags.name into the data_dir `dest`, and return its splits.

    flags: name, image_key, label_key, first_label, class_names of the command line.
    wanted: {split: pattern of its files, "" to tell them by their names}.
    damaged: see `tfrecords.records`.
    """
    splits, reader = files_of(source, wanted), Reader(flags.image_key, flags.label_key)
    for split, paths in splits.items():
        say(f"{split}: {counted(len(paths), 'file')}, {paths[0].name} to {paths[-1].name}")
    numbers, labels = look(splits, reader, damaged)
    first, names = classes(labels, flags.first_label, flags.class_names)
    if not flags.label_key:
        first, names = 0, []
    total = sum(numbers.values())
    each = ", ".join(f"{number:,} of {split}" for split, number in numbers.items())
    say(f"{counted(total, 'image')} ({each}), {len(names) or 'no'} classes")

    def ignored(what: str) -> None:  # told of when they were looked at
        del what

    def examples(paths: list[pathlib.Path]) -> Iterator[written.Example]:
        for where, image, label in every(paths, reader, ignored):
            yield where, image, label - first

    given = {split: examples(paths) for split, paths in splits.items()}
    text = f"Converted from TFRecord files in {source.name}."
    origin = origin_of(source, flags, wanted)
    written.write(dest, flags.name, given, names, total, text, origin)
    return list(splits)


def origin_of(source: pathlib.Path, flags: Any, wanted: Mapping[str, str]) -> str:
    """Return what a data set is made of, see `written.made_of`; arguments as of `convert`."""
    folder = source.parent if source.is_file() else source
    splits = files_of(source, wanted).items()
    files = {split: [str(x.relative_to(folder)) for x in paths] for split, paths in splits}
    keys = flags.image_key, flags.label_key, flags.first_label, flags.class_names
    return written.made_of(folder, [x for some in files.values() for x in some], files, *keys)


def files_of(source: pathlib.Path, wanted: Mapping[str, str]) -> dict[str, list[pathlib.Path]]:
    """Return {split: files}; InputError where a split that was asked for has none."""
    if source.is_file():
        return {"train": [source]}
    found = sorted(x for x in source.rglob("*") if x.is_file() and not x.name.startswith("."))
    splits = {
        split: [path for path in found if fnmatch.fnmatch(path.name, pattern)]
        for split, pattern in wanted.items()
        if pattern
    }
    for split, paths in splits.items():
        if not paths:
            raise InputError(f"no file in {source} is called {wanted[split]!r} (--{split})")
    if not splits:
        named = [x for x in found if ".tfrecord" in x.name or "-of-" in x.name]
        held = [x for x in named if any(word in x.name for word in HELD)]
        splits = {"train": [x for x in named if x not in held], "validation": held}
    if both := set(splits.get("train", ())) & set(splits.get("validation", ())):
        raise InputError(f"{min(both)} is of both splits: change --train or --validation")
    splits = {split: paths for split, paths in splits.items() if paths}
    if "train" not in splits:
        raise InputError(f"there are no TFRecord files in {source}: name them by --train=PATTERN")
    return splits


def every(
    paths: Sequence[pathlib.Path], reader: Reader, damaged: Damaged
) -> Iterator[tuple[str, bytes, int]]:
    """Yield (what errors call it, encoded image, label) of every record of the files."""
    for path in paths:
        for number, record in numbered(path, damaged):
            where = f"{path}, record {number}"
            yield where, *reader(record, where)


def numbered(path: pathlib.Path, damaged: Damaged) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a file with their numbers; those that are left out count, too."""
    left = 0

    def told(what: str) -> None:
        nonlocal left
        damaged(what)
        left += 1

    for whole, record in enumerate(records(path, told)):
        yield whole + left, record


def look(
    splits: Mapping[str, Sequence[pathlib.Path]], reader: Reader, damaged: Damaged
) -> tuple[dict[str, int], set[int]]:
    """Return {split: number of images} and all labels; each record is read and understood."""
    paths = [path for some in splits.values() for path in some]
    numbers, labels, done = dict.fromkeys(splits, 0), set(), 0
    with heartbeat("looking at every record", every=10.0) as at:
        for split, some in splits.items():
            for path in some:
                for _, _, label in every([path], reader, damaged):
                    numbers[split] += 1
                    labels.add(label)
                done += 1
                at(done, len(paths))
    if empty := [split for split, number in numbers.items() if not number]:
        raise InputError(f"the files of {empty[0]} hold no whole record")
    return numbers, labels


def classes(labels: set[int], first: int | None, file: str | None) -> tuple[int, list[str]]:
    """Return the number of the first class, and the names of all classes."""
    if first is None:
        first = min(labels)
        if first not in (0, 1):
            raise InputError(f"labels begin with {first}: expected 0 or 1, or give --first_label=N")
    if min(labels) < first:
        raise InputError(f"there is the label {min(labels)}, below --first_label={first}")
    number = max(labels) - first + 1
    if not file:
        return first, [str(i) for i in range(number)]
    try:
        names = pathlib.Path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--class_names={file} cannot be read: {error}") from error
    names = [name.strip() for name in names if name.strip()]
    if len(names) < number or len(set(names)) < len(names):
        raise InputError(
            f"--class_names={file} has {len(set(names)):,} different names, and the labels need "
            f"{number:,}"
        )
    return first, names
