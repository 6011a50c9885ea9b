"""A plain folder of images as a data set: a class per sub-folder, or none."""

import collections
import copy
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from PIL import Image

from evqgan.core import stores
from evqgan.core.errors import InputError, cut, leads_nowhere
from evqgan.data.splits import select
from evqgan.data.transforms import read_bytes

EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
    ".jp2",
    ".j2k",
    ".heic",
    ".heif",
)
# sub-folders that may hold the validation images, first one wins
VALIDATION = ("validation", "val", "valid", "test")
NAMED = 3  # ours: images that a message names
LETTERS = 40  # ours: of a name in a list
LINKS = 2  # ours: one to a split, and one to a class in it; with more, few folders become thousands
# Of a name: control characters, ends of lines, and what stands for bytes that are not UTF-8.
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
UNWRITABLE_NAME = re.compile(rf"(?:[^/]*/)*?[^/]*?{UNWRITABLE.pattern}[^/]*")
TRAIN_SHARE = 0.9  # ours: where a folder has no validation part, about a tenth of it is held out


def image_paths(folder: str) -> list[str]:
    """Return the images below `folder`, as sorted paths relative to it.

    Raises InputError if it is missing, unreadable or empty.
    """
    return contents(folder)[0]


def contents(folder: str) -> tuple[list[str], collections.Counter[str], list[str]]:
    """Return `image_paths`, the endings of other files with their numbers, and empty sub-folders.

    Images are the files with one of EXTENSIONS that Pillow reads here. A sub-folder is empty
    without an image or another sub-folder in it. Hidden files do not count. Links are followed,
    at most LINKS within each other, but for those to a folder that they lie in, which would lead
    round in circles.
    """
    if not os.path.isdir(folder):
        link = leads_nowhere(folder)
        why = f", as {link}" if link else stores.beginning(folder)
        raise InputError(
            f"config.dataset.folder expects a folder of images, got {folder!r}, "
            f"which is no folder{why}: set --config.dataset.folder=FOLDER"
        )

    endings = tuple(ending for ending in EXTENSIONS if ending in Image.registered_extensions())
    found: list[str] = []
    empty: list[str] = []
    others: collections.Counter[str] = collections.Counter()
    for parent, folders, files in _walked(folder):
        keep = [name for name in files if name.lower().endswith(endings)]
        found.extend(
            os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
            for name in keep
        )
        if not (keep or folders):
            empty.append(os.path.relpath(parent, folder).replace(os.sep, "/"))
        others.update(
            os.path.splitext(name)[1].lower() or "none" for name in set(files) - set(keep)
        )
    if not found:
        there = f", found {listed(others)}" if others else ""
        raise InputError(
            f"the folder {folder!r} holds no image; "
            f"expected files ending in {' '.join(endings)}{there}"
        )
    check_names(folder, found)
    return sorted(found), others, sorted(empty)


def _walked(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the path, the sub-folders' names and the files' names of a folder, and of all below it.

    They are sorted, and hidden ones left out. Links are followed as `contents` says. Raises
    InputError for a folder that cannot be read, and for more than LINKS links within each other.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"the folder {error.filename!r} cannot be read: {error.strerror}"
        ) from None

    # {folder to be read: all that it lies in, and it; the number of links on the way}
    above = {folder: (_with_parents(folder), 0)}
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        (around, links), seen = above.pop(parent), sorted(folders)
        folders.clear()
        for name in seen:
            inner = os.path.join(parent, name)
            if name.startswith(".") or os.path.realpath(inner) in around:  # a link back up
                continue
            number = links + os.path.islink(inner)
            if number > LINKS:
                raise InputError(
                    f"{inner} is a link in a folder that itself is linked {LINKS} times: give a "
                    "folder whose classes, or splits and classes, are links and nothing below them"
                )
            folders.append(name)
            above[inner] = around | _with_parents(inner), number
        yield parent, folders, sorted(name for name in files if not name.startswith("."))


def _with_parents(folder: str) -> set[str]:
    """Return the real path of a folder, and those of all that it lies in."""
    real = pathlib.Path(os.path.realpath(folder))
    return set(map(str, (real, *real.parents)))


def bytes_of(path: str | os.PathLike[str]) -> int:
    """Return the length of a file, 0 of one that is not there, such as a broken link."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def check_names(folder: str, paths: Iterable[str]) -> None:
    """Raise InputError for a name that is no text, or not of one line: it is printed and written.

    A name that is not UTF-8, as of an old archive, comes from the system with stand-ins.
    """
    # Up to the name that is wrong, which may be a sub-folder's.
    wrong = list(dict.fromkeys(x[0] for path in paths if (x := UNWRITABLE_NAME.match(path))))
    if wrong:
        more = f", and {len(wrong) - 1:,} more" if wrong[1:] else ""
        shown = UNWRITABLE.sub(lambda found: ascii(found[0])[1:-1], wrong[0])
        raise InputError(
            f"the folder {folder!r} holds '{shown}', a name with bytes that are not UTF-8 or "
            f"with a control character, such as the end of a line{more}: rename what has one"
        )


def check_apart(
    place: str | os.PathLike[str],
    folder: str,
    what: str = "the workdir",
    flag: str = "--workdir",
) -> None:
    """Raise InputError for a place within the folder of images: its pictures would be read.

    what, flag: what the place is, and how another one is given.
    """
    if not folder or stores.is_remote(place):
        return
    inner, images = (stores.real(pathlib.Path(path).expanduser()) for path in (place, folder))
    if any(inner.is_relative_to(x) for x in (images, *_linked(images))):
        raise InputError(
            f"{what} {place} lies in the folder of images {folder}, where its pictures would be "
            f"read as images: give another {flag}"
        )


def _linked(images: pathlib.Path) -> list[pathlib.Path]:
    """Return where the splits and classes of a folder really lie that are links."""
    splits = [part for part in _folders(images) if split_of(part.name)]
    parts = [*_folders(images), *(inner for split in splits for inner in _folders(split))]
    return [part.resolve() for part in parts if part.is_symlink()]


def _folders(place: pathlib.Path) -> list[pathlib.Path]:
    """Return the sub-folders of a folder; none of one that is not there."""
    return [part for part in place.iterdir() if part.is_dir()] if place.is_dir() else []


def listed(counts: dict[str, int]) -> str:
    """Return {name: number} as "name number, ...", the largest number first; names are cut."""
    largest = sorted(counts.items(), key=lambda x: (-x[1], x[0]))
    return ", ".join(f"{cut(name, LETTERS)} {number:,}" for name, number in largest)


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names of classes, sorted: as numbers if all are numbers."""
    return sorted(names, key=int if all(map(str.isdecimal, names)) else None)


def place_of(path: str) -> float:
    """Return a number in [0, 1) that only the path decides, by its hash."""
    found = hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(found[:6], "big") / 2**48


def shuffled(paths: Iterable[str]) -> list[str]:
    """Return `paths` in the order of their places.

    They are mixed, and the same on every machine and after other files came or went.
    """
    return sorted(paths, key=lambda path: (place_of(path), path))


def split_of(name: str) -> str:
    """Return which split a folder of that name may be: "train", one of VALIDATION, or ""."""
    split = "train" if name.casefold() == "training" else name.casefold()
    return split if split in ("train", *VALIDATION) else ""


def parts_of(top_of: dict[str, str], folder: str) -> dict[str, str]:
    """Return which top-level folders are splits, {name of the folder: split}; {} if none is one.

    They are known by their names, in upper or lower case: train or training, and VALIDATION.
    Without a folder train/ all are classes, and so they are if train/ stands beside others of which
    none is of VALIDATION. Raises InputError where train/ and a folder of VALIDATION have anything
    else beside them: it is not clear then whether all are classes.

    top_of: {path of an image: its top-level folder, "" for none}.
    folder: what a message calls the folder that holds all of them.
    """
    tops = set(top_of.values())
    parts = {top: split for top in tops if (split := split_of(top))}
    if "train" not in parts.values():
        return {}
    if len(parts) == 1:
        return parts if len(tops) == 1 else {}  # beside others, train/ is a class
    names = " and ".join(f"{top}/" for top in sorted(parts))
    where = f"config.dataset.folder = {folder!r}"
    if beside := sorted(path for path, top in top_of.items() if top not in parts):
        some = ", ".join(beside[:NAMED])
        more = f" and {len(beside) - NAMED:,} more" if len(beside) > NAMED else ""
        raise InputError(
            f"{where}: expected {names} alone, but beside them there are images, {some}{more}: "
            "move these out of the folder"
        )
    if len(set(parts.values())) < len(parts):
        raise InputError(f"{where}: {names} are the same split twice: merge them")
    return parts


def layout(paths: Sequence[str], folder: str) -> tuple[dict[str, Sequence[str]], dict[str, str]]:
    """Return {split: paths} and {path: class or ""} of relative paths.

    If there are sub-folders train/ and one of VALIDATION, the sub-folders are the splits
    (`parts_of`). Otherwise, as with a sub-folder train/ alone, the images are divided into
    train: those whose `place_of` is below TRAIN_SHARE, at least one;
    validation: the rest, at least one if there are several; as a hash divides them, images that are
      added later move no other image to the other split;
    sorted: all images by name (FFHQ's own division is sorted[:60000] and sorted[60000:]).
    all: all images, shuffled; it is there in either case.
    folder: what a message calls the paths' folder.
    """
    top_of = {path: path.split("/")[0] if "/" in path else "" for path in paths}
    parts = parts_of(top_of, folder)
    below = {path: path.split("/", 1)[1] if parts else path for path in paths}
    flat = any(
        "/" not in below[path] for path in paths if not parts or parts[top_of[path]] == "train"
    )
    classes = {
        path: "" if flat or "/" not in rest else rest.split("/")[0] for path, rest in below.items()
    }
    splits: dict[str, Sequence[str]]
    if len(parts) > 1:
        splits = {
            split: shuffled(path for path in paths if top_of[path] == top)
            for top, split in sorted(parts.items(), key=lambda entry: entry[1])
        }
        splits.setdefault("validation", next(splits[name] for name in VALIDATION if name in splits))
        splits["all"] = shuffled(paths)
    else:
        everything = shuffled(paths)
        cut = sum(place_of(path) < TRAIN_SHARE for path in paths)
        cut = max(1, min(cut, len(paths) - 1))
        splits = {
            "train": everything[:cut],
            "validation": everything[cut:],
            "all": everything,
            "sorted": paths,
        }
    return splits, classes


class Folder:
    """Source of the encoded images of one split of a folder.

    class_names: of its sub-folders, if `labelled`.
    paths: of its images.
    labels: of its images, int.
    ignored: a Counter of the endings of files that are no images.
    empty: its sub-folders without an image, which are no classes.
    divided: whether `layout` made the splits.
    """

    def __init__(self, folder: str, split: str, labelled: bool = True) -> None:
        self.folder = os.path.expanduser(folder)
        paths, self.ignored, self.empty = contents(self.folder)
        self.splits, self.classes = layout(paths, self.folder)
        self.divided = "sorted" in self.splits
        names = in_order(
            {self.classes[path] for path in self.splits["all" if self.divided else "train"]}
        )
        self.class_names = tuple(names) if labelled and names != [""] else ()
        self._select(split)

    def _select(self, split: str) -> None:
        self.paths = select(split, self.splits, f"the folder {self.folder!r}")
        self.labels = [0] * len(self.paths)
        number = {name: k for k, name in enumerate(self.class_names)}
        for i, path in enumerate(self.paths if number else ()):
            if self.classes[path] not in number:
                raise InputError(
                    f"{self.where(i)} is of the class {self.classes[path]!r}, which train/ does "
                    "not have: move it there, or away"
                )
            self.labels[i] = number[self.classes[path]]

    def part(self, split: str) -> "Folder":
        """Return another split of the same folder, which is not read again."""
        other = copy.copy(self)
        other._select(split)
        return other

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> dict:
        return {"image": read_bytes(self.where(i)), "label": self.labels[i]}

    def where(self, i: int) -> str:
        """Return what a message calls example i."""
        return os.path.join(self.folder, self.paths[i])
