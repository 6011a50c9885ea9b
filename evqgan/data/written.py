"""Images written as a data set of tfds in array_record, which is read by name like any other."""

import hashlib
import io
import os
import pathlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from evqgan.core import files, scratch
from evqgan.core.errors import InputError, first_line
from evqgan.core.progress import heartbeat
from evqgan.data.image_files import bytes_of
from evqgan.data.named import INFO, clear
from evqgan.data.quiet import quiet

VERSION = "1.0.0"
Example = tuple[str, bytes, int]  # what errors call it, the encoded image, its class or 0


class Written(tfds.dataset_builders.AdhocBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set of examples that are given, in their order."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        # The parent's asks whether they are TensorFlow's.
        return {name: self._generate_examples_iterator(x) for name, x in self._splits.items()}

    def __init__(self, splits: Mapping[str, Iterable[tuple[int, dict]]], **settings: Any) -> None:
        """Take the examples of each split; settings: see tfds' `AdhocBuilder`."""
        self._splits = splits
        super().__init__(split_datasets=splits, disable_shuffling=True, **settings)


def place(dest: str | os.PathLike[str], name: str) -> pathlib.Path:
    """Return the folder that the data set `name` has in the data_dir `dest`."""
    return pathlib.Path(dest).expanduser() / name / VERSION


def check_name(name: str) -> None:
    """Raise InputError unless a data set may have this name: tfds knows words with underscores."""
    if not (name.isascii() and name.isidentifier() and name == name.lower()):
        raise InputError(f"--name={name}: expected small letters, digits and underscores")
    if name in tfds.list_builders(with_community_datasets=False):
        raise InputError(
            f"--name={name} is a data set of tfds with a form of its own: take another"
        )


def is_whole(folder: pathlib.Path) -> bool:
    """Return whether a data set was written into `folder` to its end."""
    return (folder / INFO).is_file()


def made_of(folder: pathlib.Path, names: Iterable[str], *settings: object) -> str:
    """Return a hash of files, by names and sizes, and of what else decides what is made of them."""
    sizes = [f"{name}\t{bytes_of(folder / name)}" for name in sorted(names)]
    text = "\n".join([*sizes, *map(str, settings)]).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]


def is_made_of(folder: pathlib.Path, origin: str) -> bool:
    """Return whether the data set in `folder` was written with this `origin`."""
    found = files.read_json(folder / INFO, "what tfds writes", "remove the folder, or move it away")
    return origin in found.get("description", "")


def write(
    dest: str | os.PathLike[str],
    name: str,
    splits: Mapping[str, Iterable[Example]],
    class_names: Iterable[str],
    total: int,
    description: str,
    origin: str,
) -> pathlib.Path:
    """Write a data set, whole or not at all, and return its folder.

    splits: {split: examples}, in the order in which they are written; all have different names.
    class_names: none where there are no classes. total: how many examples there are.
    origin: what it is made of, by which another call tells it from others (`made_of`).

    Raises InputError where it cannot be written.
    """
    names = list(class_names)
    features: dict[str, Any] = {"image": tfds.features.Image(shape=(None, None, 3))}
    if names:
        features["label"] = tfds.features.ClassLabel(names=names)
    with heartbeat(f"writing {name}", every=10.0) as at:
        done = 0

        def examples(given: Iterable[Example]) -> Iterator[tuple[int, dict]]:
            nonlocal done
            for _, image, label in given:
                yield done, {"image": io.BytesIO(image)} | ({"label": label} if names else {})
                done += 1
                at(done, total)

        builder = Written(
            name=name,
            version=VERSION,
            features=tfds.features.FeaturesDict(features),
            splits={split: examples(given) for split, given in splits.items()},
            data_dir=os.path.expanduser(dest),
            description=f"{description} Made of {origin}.",
        )
        try:
            with quiet(ours=True), scratch.folder() as unused:
                builder.download_and_prepare(download_dir=unused, file_format="array_record")
        except InputError:
            raise
        except (OSError, RuntimeError) as error:  # a full disk, or array_record's word for it
            raise InputError(f"cannot write {builder.data_path}: {first_line(error)}") from error
    folder = pathlib.Path(builder.data_path)
    clear(folder.parent)  # of what was killed
    return folder


def usage(dest: str | os.PathLike[str], name: str, splits: Iterable[str]) -> str:
    """Return the keys of a config that read a data set written here."""
    keys = f"--config.dataset.name={name} --config.dataset.data_dir={shlex.quote(os.fspath(dest))}"
    if "validation" not in splits:
        keys += ' --config.dataset.train="train[:90%]" --config.dataset.validation="train[90%:]"'
    return keys
