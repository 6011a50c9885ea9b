"""Data sets by name: ours, and every image data set of TensorFlow Datasets.

They are read as array_record without TensorFlow.
"""

import contextlib
import difflib
import os
import pathlib
import pkgutil
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from evqgan.core import build, stores
from evqgan.core.build import suggestion
from evqgan.core.errors import InputError, first_line
from evqgan.core.progress import heartbeat
from evqgan.data import builders
from evqgan.data.quiet import quiet

# The names of our data sets: the modules of evqgan/data/builders.
BUILDERS = sorted(found.name for found in pkgutil.iter_modules(builders.__path__))
# Of `DRAWN`, such as its name may have after "/", or alone by mistake.
TONES = "tones"
CONFIGS = (TONES, "64", f"64_{TONES}")
INFO = "dataset_info.json"  # what tfds writes last
OLD = 86_400.0  # ours: seconds after which nobody still writes what is not complete
DRAWN = "drawings"  # ours, whose images are made at the asked size: NAME/SIDE


def is_ours(name: str) -> bool:
    """Return whether a builder of ours makes the data set `name`."""
    own, _, config = name.partition("/")
    return own in BUILDERS and (own == DRAWN or not config)


def at_size(name: str, shape: tuple[int, int]) -> str:
    """Return the full name of a data set for images of `shape` (height, width).

    "drawings" and "drawings/tones" are made at the longer side: drawings/256, drawings/256_tones.
    Other names stay as they are, those that are wrong among them.
    """
    own, _, config = name.partition("/")
    if own != DRAWN or config not in ("", TONES):
        return name
    return f"{own}/{max(shape)}" + (f"_{config}" if config else "")


@contextlib.contextmanager
def own_classes() -> Iterator[None]:
    """Keep a features.json from having tfds import a module that is not its own.

    Data are read, not executed.
    """
    import tensorflow_datasets as tfds

    connector = tfds.features.FeatureConnector
    theirs = connector.__dict__["cls_from_name"]

    def checked(cls: type, name: str) -> type:
        if not name.startswith("tensorflow_datasets."):
            raise InputError(
                f"its features.json names the class {name!r}: "
                "expected those of tensorflow_datasets alone"
            )
        return theirs.__get__(None, cls)(name)

    connector.cls_from_name = classmethod(checked)
    try:
        yield
    finally:
        connector.cls_from_name = theirs


def find(name: str, data_dir: str | None) -> Any:
    """Return the tfds builder of `name`.

    Raises InputError naming the nearest data set if there is none, or for code from elsewhere.
    """
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    with quiet(is_ours(name)), own_classes():
        try:
            if tfds.core.naming.parse_builder_name_kwargs(name)[0].namespace:
                raise InputError(
                    "the data sets of other places (namespace:name) come with code of their own"
                )
            if not is_ours(name) and name.partition("/")[0].lower() in BUILDERS:
                raise tfds.core.registered.DatasetNotFoundError
            if is_ours(name):
                own, _, config = name.partition("/")
                settings = {"config": config} if own == DRAWN else {}
                return builder_class(own)(data_dir=data_dir, **settings)
            return tfds.builder(name, data_dir=data_dir)
        except tfds.core.registered.DatasetNotFoundError:
            known = tfds.list_builders(with_community_datasets=False)
            raise InputError(
                f"config.dataset.name: there is no data set {name!r}; {hint(name, known)}"
            ) from None
        except OSError as error:
            place = f" in {data_dir}" if data_dir else ""
            raise InputError(
                f"the data set {name!r}{place} cannot be read: {first_line(error)}; give another "
                "folder as config.dataset.data_dir"
            ) from None
        except ParseError as error:
            place = f" in {data_dir}" if data_dir else ""
            raise InputError(
                f"the data set {name!r}{place} is damaged, its dataset_info.json cannot be read "
                f"({first_line(error)}): remove its folder to have it prepared again"
            ) from None
        except InputError as error:
            raise InputError(f"config.dataset.name = {name!r} is refused: {error}") from None
        except ValueError as error:
            known = tfds.list_builders(with_community_datasets=False)
            more = "" if name.partition("/")[0] in known else f"; {hint(name, known)}"
            raise InputError(
                f"config.dataset.name = {name!r} is refused by tfds: "
                f"{first_line(error).rstrip('.')}{more}"
            ) from None


def builder_class(name: str) -> type:
    """Return the class of our builder of the data set `name`, see `builders`.

    Raises InputError if its module has none of its name, or one that lacks a method.
    """
    entry = name.title().replace("_", "")
    module = build.module("data.builders", name, "config.dataset.name", entry)
    found = getattr(module, entry)
    if lacking := sorted(getattr(found, "__abstractmethods__", ())):
        file = f"evqgan/data/builders/{name}.py"
        raise InputError(f"{file}: its class {entry} lacks the method {', '.join(lacking)}")
    return found


def hint(name: str, known: Iterable[str]) -> str:
    """Return the part of a message that helps after a name that is no data set's.

    known: names of tfds.
    """
    own, _, config = name.partition("/")
    for word in (own, re.split(r"[^A-Za-z_]", own)[0]):
        if close := difflib.get_close_matches(word.lower(), [*BUILDERS, "generated", *known], n=1):
            kept = f"/{config}" if close[0] == DRAWN and config else ""
            return f"did you mean {close[0] + kept!r}?"
    if close := difflib.get_close_matches(name, CONFIGS, n=1):
        return f"did you mean '{DRAWN}/{close[0]}'?"
    return "see `tfds.list_builders()`; a folder goes to .folder"


def prepare(name: str, data_dir: str = "") -> Any:
    """Return the tfds builder of `name`, after its data were written if they were absent.

    They are written as array_record. Processes may do this at the same time: each writes beside,
    the first to finish puts its own in place, the others take it. What one that was killed has
    written is never taken, and removed when it is a day old. Raises InputError if the data cannot
    be had or written, and for a folder that is not whole, as after a copy that was stopped.
    """
    directory = os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR", "")) or None
    builder = find(name, directory)
    if builder.data_path.exists():
        if not (builder.data_path / INFO).exists():
            raise InputError(
                f"the data set {name!r} in {builder.data_path} is not whole, it has no {INFO}: "
                "remove this folder to have it prepared again"
            )
        return builder
    where = f"{builder.data_path}{stores.beginning(directory or '')}"
    print(f"preparing the data set {name} in {where}, once", flush=True)
    try:
        with quiet(ours=is_ours(name)), own_classes(), heartbeat("preparing the data set"):
            builder.download_and_prepare(file_format="array_record")
    except InputError as error:
        raise InputError(f"the data set {name!r} cannot be prepared: {error}") from None
    except Exception as error:  # tfds, its downloads and its data sets raise all kinds
        if not builder.data_path.exists():
            raise InputError(
                f"the data set {name!r} is not in {where} and cannot be prepared "
                f"there: {first_line(error)}; {advice(name, error)}"
            ) from error
        builder = find(name, directory)
    if not stores.is_remote(builder.data_path):
        clear(pathlib.Path(builder.data_path).parent)
    return builder


def advice(name: str, error: BaseException) -> str:
    """Return what to do about a data set that cannot be prepared because of `error`."""
    folder = "give a folder that holds it or can be written as config.dataset.data_dir"
    folder += " (or TFDS_DATA_DIR)"
    if not is_ours(name):
        command = f"tfds build {name} --file_format=array_record"
        return f"{folder}, or run `{command}` where TensorFlow is, which some need"
    if "tensorflow" in first_line(error):
        return (
            "without TensorFlow tfds encodes no arrays: let "
            f"evqgan/data/builders/{name}.py yield each image as io.BytesIO of a PNG file"
        )
    return folder


def clear(folder: pathlib.Path) -> None:
    """Remove what killed processes have left in the folder of a data set that is prepared."""
    for left in folder.glob("incomplete.*"):
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile, as another process clears
            if time.time() - left.stat().st_mtime > OLD:
                shutil.rmtree(left, ignore_errors=True)


def label_feature(features: dict, name: str, label_key: str) -> str:
    """Return the key of the labels, or "" if there are none.

    Raises InputError if `label_key` names no whole number.
    """
    if label_key in ("", "label") and label_key not in features:
        return ""
    if label_key not in features:
        raise InputError(
            f"config.dataset.label_key: {name!r} has no {label_key!r}; "
            f"{suggestion(label_key, features)}"
        )
    feature = features[label_key]
    if feature.shape != () or not np.issubdtype(feature.np_dtype, np.integer):
        raise InputError(
            f"config.dataset.label_key: {label_key!r} of {name!r} is no whole number; "
            "'' reads no labels"
        )
    return label_key


def data_source(builder: Any, name: str, split: str) -> Any:
    """Return the random-access source of `split`.

    Raises InputError if it does not exist, is empty or is written as tfrecord.
    """
    try:
        source = builder.as_data_source(split)
        if len(source):
            return source
        reason = "no example is left"
    except NotImplementedError:
        raise InputError(
            f"the data set {name!r} in {builder.data_path} is written as "
            f"{builder.info.file_format.value}, expected array_record: convert it by "
            f"`python -m evqgan.data.from_tfrecord {builder.data_path} FOLDER`, and give FOLDER as "
            "config.dataset.data_dir"
        ) from None
    except (ValueError, KeyError, AssertionError) as error:
        reason = first_line(error).partition(". Should be")[0].rstrip(".")
    splits = ", ".join(builder.info.splits)
    raise InputError(
        f"the data set {name!r} in {builder.data_path} cannot give the split {split!r}: {reason}; "
        f"its splits are {splits}"
    )


class Named:
    """Source of the encoded images of one split of the tfds data set `name`."""

    labels = None
    paths: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        split: str,
        data_dir: str = "",
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        import tensorflow_datasets as tfds

        self.arguments = name, split, data_dir, image_key, label_key
        self.name, self.split, self.image_key = name, split, image_key
        builder = prepare(name, data_dir)
        self.path, features = builder.data_path, dict(builder.info.features)
        if image_key not in features:
            raise InputError(
                f"config.dataset.image_key: {name!r} has no {image_key!r}; "
                f"{suggestion(image_key, features)}"
            )
        self.label_key = label_feature(features, name, label_key)
        self.class_names = tuple(getattr(features.get(self.label_key), "names", None) or ())
        # numbers that count no classes are no labels
        self.label_key = self.label_key if self.class_names else ""
        self.source = data_source(builder, name, split)
        # Given after, not in the call above: there tfds.testing.mock_data would want TensorFlow.
        self.source.decoders = {image_key: tfds.decode.SkipDecoding()}

    def __reduce__(self) -> tuple:
        return Named, self.arguments  # opened again: tfds' builders of ours cannot be pickled

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict:
        try:
            example = self.source[i]
        except RuntimeError as error:  # array_record's word for a missing, cut or altered file
            advice = (
                f"remove {self.path} to have it prepared again"
                if is_ours(self.name)
                else f"see {self.path}"
            )
            raise InputError(f"its record cannot be read ({first_line(error)}); {advice}") from None
        return {
            "image": example[self.image_key],
            "label": int(example[self.label_key]) if self.label_key else 0,
        }

    def where(self, i: int) -> str:
        """Return what a message calls example i."""
        return f"example {i} of {self.name}, {self.split}"
