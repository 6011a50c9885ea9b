"""The data of a config: whether both splits can be opened, and whether their examples decode."""

import functools
import os
from typing import Any

import numpy as np

from evqgan.core import stores
from evqgan.core.errors import InputError
from evqgan.core.processes import tell
from evqgan.core.progress import counted, heartbeat
from evqgan.data import named, pipeline, threaded, transforms
from evqgan.data.dataset import Dataset
from evqgan.data.survey import DECODED, survey
from evqgan.doctor.report import Doubtful, Wrong

LOOKED_AT = 64  # ours: examples of a split that are decoded
REPAIR = "repair or remove them"


def check(dataset: Dataset, every: bool = False) -> tuple[str, int | None]:
    """Check that both splits can be opened, and that their images decode.

    every: decode each of them, name all that are broken, and take none of these for forgiven.
    Returns what was found, and where a relative path begins; and the number of classes, None of
    what is not made yet.
    """
    found, classes = looked_through(dataset, every)
    path = dataset.codes or dataset.folder or dataset.data_dir
    if path and not stores.is_remote(path) and not os.path.isabs(path):
        found += f"; {path} is relative to {os.getcwd()}, where this command is given"
    return found, classes


def looked_through(dataset: Dataset, every: bool) -> tuple[str, int | None]:
    """Return what `check` does, but for where a path begins."""
    if dataset.folder and not dataset.codes:
        if every or len(pipeline.open_split(dataset, "all")) <= DECODED:
            return all_decoded(dataset, every)
    elif is_named(dataset):
        name, builder = builder_of(dataset)
        if not builder.data_path.exists():
            return absent(name, builder, dataset.data_dir), None
    return decoded(dataset, every)


def is_named(dataset: Dataset) -> bool:
    """Return whether the images are those of a data set of tfds, or one that we make for it."""
    return dataset.name not in ("", "generated") and not dataset.codes


def builder_of(dataset: Dataset) -> tuple[str, Any]:
    """Return the full name of a data set in tfds, and its builder; nothing is read or made."""
    name = named.at_size(dataset.name, dataset.shape)
    return name, named.find(name, dataset.data_dir or os.environ.get("TFDS_DATA_DIR") or None)


def all_decoded(dataset: Dataset, every: bool) -> tuple[str, int | None]:
    """Return what `check` does, of a folder all of whose images are looked at."""
    found = survey(dataset, tell, whole=True) if every else survey(dataset)
    if every and found.broken:
        for path, why in found.broken.items():
            tell(f"broken: {path} ({why})")
        number = counted(found.images, "image")
        raise Wrong(f"{len(found.broken):,} of {number} are broken, named above: {REPAIR}")
    if found.broken or found.across:
        of_doubt = (x for x in found.lines() if "broken file" in x or "WARNING" in x)
        raise Doubtful("; ".join(of_doubt))
    seen = "all decode" if found.whole else "of each the head and the end were read"
    return f"{found.lines()[0]}; {seen}", len(found.classes)


def decoded(dataset: Dataset, every: bool) -> tuple[str, int | None]:
    """Return what `check` does, of both splits, of each of which LOOKED_AT examples are decoded.

    every: all of them are.
    """
    numbers, classes = [], 0
    looked: dict[str, str] = {}  # {what a message calls an example: why, "" if it is whole}
    for split in (dataset.train, dataset.validation):
        source = (
            pipeline.open_split(dataset, split) if not dataset.codes else stored(dataset, split)
        )
        numbers.append(len(source))
        classes = len(source.class_names)
        looked |= look_at(source, every)
    text = f"{numbers[0]:,} to train on, {numbers[1]:,} held out"
    bad = {which: why for which, why in looked.items() if why}
    if not bad:
        return f"{text}; {len(looked):,} of them were looked at and are whole", classes
    which, why = next(iter(bad.items()))
    text += f"; {len(bad):,} of {len(looked):,} that were looked at are broken, such as"
    text += f" {which} ({why})"
    if every:
        raise Wrong(f"{text}; all are named above: {REPAIR}")
    if len(bad) > dataset.max_bad * len(looked):
        raise Wrong(f"{text}: {REPAIR}, or raise config.dataset.max_bad")
    raise Doubtful(text)


def look_at(source: Any, every: bool) -> dict[str, str]:
    """Return {what a message calls an example: why it cannot be read, ""} of some of a source.

    every: of all of it, and say which cannot be.
    """
    number = len(source) if every else LOOKED_AT
    places = np.unique(np.linspace(0, len(source) - 1, number).astype(int)).tolist()
    found: dict[str, str] = {}
    with heartbeat(f"looking at {counted(len(places), 'image')}", tell, unit="images") as at:
        for where, why in threaded.each(functools.partial(look, source), places):
            found[where] = why
            at(len(found), len(places))
            if every and why:
                tell(f"broken: {where} ({why})")
    return found


def look(source: Any, i: int) -> tuple[str, str]:
    """Return what a message calls example i, and why it cannot be read, "" if it can."""
    is_image = hasattr(source, "where")  # and no stored ids
    where = source.where(i) if is_image else f"stored ids {i}"
    try:
        if is_image:
            transforms.as_rgb(source[i]["image"])
        else:
            source.load(i)
    except InputError as error:
        return where, str(error)
    return where, ""


def stored(dataset: Dataset, split: str) -> Any:
    """Return the stored ids of a split."""
    is_train = split == dataset.train
    return pipeline.open_split(dataset, split) if is_train else pipeline.open_validation(dataset)


def absent(name: str, builder: Any, data_dir: str) -> str:
    """Return what is said of a data set that is not prepared; raise Wrong if we cannot make it."""
    if not named.is_ours(name):
        raise Wrong(
            f"{name} is not in {builder.data_path}{stores.beginning(data_dir)}: give the folder "
            "that holds it as config.dataset.data_dir, or prepare it by launch/prepare_data.sh "
            "(docs/data.md)"
        )
    if name.startswith(named.DRAWN):
        from evqgan.data.builders import drawings

        drawings.folder()  # its packages
    return f"{name} is made in {builder.data_path} when it is first used"
