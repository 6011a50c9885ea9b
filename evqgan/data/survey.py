"""A folder of images, looked through before anything is trained on it.

How many images of which classes and sizes, which files are broken, equal, or no images at all.
"""

import collections
import dataclasses
import io
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from evqgan.core.errors import InputError, cut
from evqgan.core.progress import counted, heartbeat
from evqgan.data import threaded
from evqgan.data.copies import copies
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import forgiven
from evqgan.data.folder import Folder
from evqgan.data.image_files import LETTERS, bytes_of, listed
from evqgan.data.transforms import ORIENTATION, TOO_LARGE, check_pixels, decode, read_bytes

# Ours: a folder of at most so many images and bytes is decoded, which takes seconds; of a larger
# one the head of each file is read, and its end.
DECODED, DECODED_BYTES = 2_000, 2**30
END = 16  # bytes at the end of a file that say whether it is whole
SOME = 3  # ours: files that a line names
CLASSES = 12  # ours: classes that a line names
SHARES = {"least": 0, "tenth": 10, "median": 50, "most": 100}  # percentiles of the shorter sides
KINDS = ("animated", "rotated", "grey", "maybe transparent")


@dataclasses.dataclass(frozen=True)
class Look:
    """What is seen of one file: (width, height), both 0 if it is broken, for the reason `fault`."""

    size: tuple[int, int] = (0, 0)
    kinds: tuple[str, ...] = ()  # of KINDS
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What `survey` found in a folder.

    train, validation: numbers of images; divided: whether one in ten was held out by us.
    classes: {name: number of images}.
    whole: whether each image was decoded, or only its head and its end were read.
    shorter: {"least", "tenth", "median", "most": of the images' shorter sides, in pixels}: a tenth
      of the images is smaller than "tenth".
    longest: of all sides.
    kinds: {one of KINDS: number of images}.
    broken: {path: why}, all of them; copies: paths of equal files, each group in a list.
    across: those groups that have a file in each of the two splits.
    ignored: {ending: number} of files that are no images.
    notes: sentences on how the sub-folders were read, where that may not be what was meant.
    """

    folder: str
    images: int
    train: int
    validation: int
    divided: bool
    classes: dict[str, int]
    whole: bool
    shorter: dict[str, int]
    longest: int
    kinds: dict[str, int]
    broken: dict[str, str]
    copies: list[list[str]]
    across: list[list[str]]
    ignored: dict[str, int]
    notes: list[str]

    def lines(self) -> list[str]:
        """Return what is said of the folder, a line each; at most a dozen."""
        how = "one in ten by the hash of its name" if self.divided else "your own split"
        found = [
            f"{counted(self.images, 'image')} in {self.folder}: {self.train:,} to train on, "
            f"{self.validation:,} held out ({how})",
            self._of_classes(),
            f"shorter sides: {self.shorter['least']:,} to {self.shorter['most']:,} pixels, median "
            f"{self.shorter['median']:,}; a tenth of the images has less than "
            f"{self.shorter['tenth']:,}; longest side {self.longest:,}",
        ]
        odd = [f"{self.kinds[name]:,} {name}" for name in KINDS if self.kinds.get(name)]
        if odd:
            found.append(
                f"among them: {', '.join(odd)} (of an animation the first frame is taken, "
                "transparency is laid over white)"
            )
        way = "all were decoded" if self.whole else "of each the head and the end were read"
        bad = _some([f"{path} ({why})" for path, why in self.broken.items()])
        says = f"{counted(len(self.broken), 'broken file')}: {bad}" if bad else "none broken"
        found.append(f"{says} ({way})")
        if self.copies:
            spare = sum(len(group) - 1 for group in self.copies)
            files = counted(spare, "file") + (" is a copy" if spare == 1 else " are copies")
            found.append(f"{files} of another, such as {' = '.join(self.copies[0][:2])}")
        if self.across:
            pair = " = ".join(self.across[0][:2])
            found.append(
                f"WARNING in both splits: {counted(len(self.across), 'image')}, such as {pair}; "
                "held-out numbers are too good by them: remove the copies"
            )
        if self.ignored:
            number = counted(sum(self.ignored.values()), "file")
            found.append(f"{number} ignored, no images by their endings: {listed(self.ignored)}")
        return [*found, *(f"WARNING {note}" for note in self.notes)]

    def _of_classes(self) -> str:
        """Return the line on the classes."""
        if not self.classes:
            return "no classes"
        numbers, number = self.classes.values(), len(self.classes)
        each = listed(self.classes)
        if number > CLASSES:
            each = f"{min(numbers):,} to {max(numbers):,} images each"
        return f"{counted(number, 'class')}: {each}"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return dataclasses.asdict(self)


def survey(
    dataset: Dataset, log: Callable[[str], None] = lambda line: None, whole: bool = False
) -> Survey:
    """Look through the folder of a data set.

    log: takes lines that say how far it is, after some seconds, and how long the rest takes; and
      before a refusal one for each broken image.
    whole: decode each image, however many there are.

    Raises InputError for a folder that training refuses: of fewer than two images, or with more
    broken ones in all, to train on or held out than dataset.max_bad.
    """
    source = Folder(dataset.folder, "all", labelled=bool(dataset.label_key))
    if len(source) < 2:
        raise InputError(
            f"the folder {source.folder!r} holds one image: at least 2 are needed, one to train on "
            "and one to hold out"
        )
    train, held = (source.part(split) for split in (dataset.train, dataset.validation))
    paths = sorted(source.paths)
    sizes = [bytes_of(os.path.join(source.folder, path)) for path in paths]
    whole = whole or (len(paths) <= DECODED and sum(sizes) <= DECODED_BYTES)
    with heartbeat(f"looking at {counted(len(paths), 'image')}", log, unit="images") as at:
        looks = []
        for found in threaded.each(
            lambda path: look(os.path.join(source.folder, path), whole), paths
        ):
            looks.append(found)
            at(len(looks), len(paths))
    broken = {path: x.fault for path, x in zip(paths, looks, strict=True) if x.fault}
    parts = {"images": paths, "images to train on": train.paths, "held-out images": held.paths}
    for what, part in parts.items():
        _check_broken(broken, part, dataset.max_bad, what, log)
    sides = np.array([x.size for x in looks if not x.fault])
    shorter = np.percentile(sides.min(1), list(SHARES.values()), method="lower")
    equal = copies(source.folder, paths, sizes)
    trained, held_out = set(train.paths), set(held.paths)
    both = [group for group in equal if trained & {*group} and held_out & {*group}]
    return Survey(
        folder=source.folder,
        images=len(paths),
        train=len(train),
        validation=len(held),
        divided=source.divided and (dataset.train, dataset.validation) == ("train", "validation"),
        classes=_counts(source),
        whole=whole,
        shorter=dict(zip(SHARES, map(int, shorter), strict=True)),
        longest=int(sides.max()),
        kinds=dict(collections.Counter(kind for x in looks for kind in x.kinds)),
        broken=broken,
        copies=equal,
        across=[sorted(group, key=lambda path: path in held_out) for group in both],
        ignored=dict(source.ignored),
        notes=[
            *_of_empty(source),
            *_of_left_out(source),
            *_of_lacking(train, held),
            *_notes(source, paths),
        ],
    )


def look(path: str, whole: bool) -> Look:
    """Look at one file; whole: decode it, as training does, or else read its head and its end."""
    try:
        data = read_bytes(path) if whole else b""
        with Image.open(io.BytesIO(data) if whole else path) as image:
            size, kinds, form = image.size, _kinds(image), image.format or ""
        check_pixels(*size)
        if whole or not _ends_well(path, form):  # some programs write more behind the picture
            decode(data or read_bytes(path))
    except Image.DecompressionBombError:
        return Look(fault=TOO_LARGE)
    except InputError as error:
        return Look(fault=re.split(r"do not decode: |cannot read .*?: ", str(error))[-1])
    except Exception:  # Pillow's plugins raise whatever the damaged bytes make them raise
        return Look(fault="no image")
    return Look(size[::-1] if "rotated" in kinds else size, kinds)


def _kinds(image: Image.Image) -> tuple[str, ...]:
    """Return which of KINDS an opened image is of."""
    turned = "exif" in image.info and image.getexif().get(ORIENTATION, 1)
    clear = "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    found = {
        "animated": getattr(image, "is_animated", False),
        "rotated": turned in (5, 6, 7, 8),  # those that exchange width and height
        "grey": grey,
        "maybe transparent": clear,
    }
    return tuple(name for name in KINDS if found[name])


def _ends_well(path: str, form: str) -> bool:
    """Return whether the last bytes of a file are those of a whole one; form: Pillow's format."""
    number = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(END)
        file.seek(max(0, number - END))
        end = file.read(END)
    if form in ("JPEG", "MPO", "PNG"):
        return (b"IEND" if form == "PNG" else b"\xff\xd9") in end
    # RIFF has its own length.
    return form != "WEBP" or number >= int.from_bytes(head[4:8], "little") + 8


def _check_broken(
    broken: dict[str, str],
    paths: Collection[str],
    max_bad: float,
    what: str,
    log: Callable[[str], None],
) -> None:
    """Raise InputError for more broken images than a run forgives; all are told before it."""
    broken, images = {x: broken[x] for x in sorted(paths) if x in broken}, len(paths)
    some = "; ".join(f"{path} ({why})" for path, why in itertools.islice(broken.items(), SOME))
    if len(broken) > SOME:
        some += f"; and {len(broken) - SOME:,} more"
    if len(broken) == images:
        raise InputError(f"all {images:,} {what} are broken: {some}; give a folder of whole images")
    if len(broken) > forgiven(images, max_bad):
        for path, why in broken.items():
            log(f"broken: {path} ({why})")
        raise InputError(
            f"{len(broken):,} of {images:,} {what} are broken, more than the share "
            f"config.dataset.max_bad = {max_bad:g}: {some}; repair or remove them, or raise "
            "config.dataset.max_bad"
        )


def _counts(source: Folder) -> dict[str, int]:
    """Return {class: number of images}, {} where there are no classes."""
    if not source.class_names:
        return {}
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    return dict(zip(source.class_names, map(int, counts), strict=True))


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SOME:,} more" if len(names) > SOME else ""
    return f"{', '.join(names[:SOME])}{more}"


def _of_empty(source: Folder) -> list[str]:
    """Return a sentence that names sub-folders without an image, if there are any."""
    if not source.empty:
        return []
    some = _some([f"{name}/" for name in source.empty])
    return [f"there is no image in {some}: an empty sub-folder is no class"]


def _of_left_out(source: Folder) -> list[str]:
    """Return a sentence on images of test/ that are in no class, if there are any."""
    if not source.left_out:
        return []
    where = source.left_out[0].split("/")[0]
    return [
        f"{counted(len(source.left_out), 'image')} in {where}/ left out: none is in a class of "
        "the images to train on"
    ]


def _of_lacking(train: Folder, held: Folder) -> list[str]:
    """Return a sentence on classes without an image to train on, and one on those not held out."""
    notes = []
    for part, lack in ((train, "to train on"), (held, "held out")):
        counts = np.bincount(part.labels, minlength=len(part.class_names))
        names = [name for i, name in enumerate(part.class_names) if not counts[i]]
        if names and len(part):
            some = _some([cut(name, LETTERS) for name in names])
            notes.append(
                f"of {counted(len(names), 'class')} no image is {lack}: {some}; no number can "
                "tell how well these do"
            )
    return notes


def _notes(source: Folder, paths: Iterable[str]) -> list[str]:
    """Return sentences on sub-folders that may have been read otherwise than they were meant."""
    below = {path: path.split("/") for path in paths}
    flat = [path for path, parts in below.items() if len(parts) == source.depth + 1]
    if len(source.class_names) == 1:
        (name,) = source.class_names
        return [
            f"there is one class, {cut(name, LETTERS)!r}: if it is no class, or holds the "
            f"classes, give --config.dataset.folder={os.path.join(source.folder, name)}"
        ]
    if not source.class_names and flat and len(flat) < len(below):
        return [
            f"the sub-folders are no classes, because of {counted(len(flat), 'image')} beside "
            f"them, such as {flat[0]}: move what is beside them into a class to have classes"
        ]
    deep = [path for path, parts in below.items() if len(parts) > source.depth + 2]
    if source.class_names and deep:
        return [
            f"{counted(len(deep), 'image')} in sub-folders of a class, such as {deep[0]}: the "
            "upper folder is the class"
        ]
    return []
