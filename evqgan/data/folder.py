"""A plain folder of images as a data set: a class per sub-folder, or none."""

import copy
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from evqgan.core import stores
from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.data.image_files import contents, listed
from evqgan.data.splits import select
from evqgan.data.transforms import read_bytes

# sub-folders that may hold the validation images, first one wins
VALIDATION = ("validation", "val", "valid", "test")
NAMED = 3  # ours: images that a message names
TRAIN_SHARE = 0.9  # ours: where a folder has no validation part, about a tenth of it is held out


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


def layout(
    paths: Sequence[str], folder: str
) -> tuple[dict[str, Sequence[str]], dict[str, str], int]:
    """Return {split: paths}, {path: class or ""} of relative paths, and how many folders are above.

    Above the sub-folders of classes, that is: 1 where splits are folders, else 0.

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
    return splits, classes, int(bool(parts))


class Folder:
    """Source of the encoded images of one split of a folder.

    class_names: of its sub-folders, if `labelled`.
    paths: of its images.
    labels: of its images, int.
    ignored: a Counter of the endings of files that are no images.
    empty: its sub-folders without an image, which are no classes.
    divided: whether `layout` made the splits.
    depth: how many folders are above those of classes, see `layout`.
    left_out: the images of a sub-folder test/ whose classes nobody knows, as competitions have it:
      none of them is in a class of train/. They are in no split.
    """

    def __init__(self, folder: str, split: str, labelled: bool = True) -> None:
        self.folder = os.path.expanduser(folder)
        paths, self.ignored, self.empty = contents(self.folder)
        self.left_out: Sequence[str] = ()
        self._divide(paths, labelled)
        test = self.splits.get("test", ())
        known = {*self.class_names}
        if test and known and not any(self.classes[path] in known for path in test):
            self.left_out = test
            self._divide(sorted({*paths} - {*test}), labelled)
        self._select(split)

    def _divide(self, paths: Sequence[str], labelled: bool) -> None:
        """Find the splits and the classes of the images that the folder is taken to hold."""
        self.splits, self.classes, self.depth = layout(paths, self.folder)
        self.divided = "sorted" in self.splits
        trained = self.splits["all" if self.divided else "train"]
        names = in_order({self.classes[path] for path in trained})
        self.class_names = tuple(names) if labelled and names != [""] else ()

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

    def passed_over(self) -> list[str]:
        """Return what is in the folder and in no split, in words."""
        found = []
        if self.ignored:
            number = counted(sum(self.ignored.values()), "file")
            found.append(f"{number} ignored: {listed(self.ignored)}")
        if self.left_out:
            found.append(f"{counted(len(self.left_out), 'image')} of test/ left out, of no class")
        return found

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> dict:
        return {"image": read_bytes(self.where(i)), "label": self.labels[i]}

    def where(self, i: int) -> str:
        """Return what a message calls example i."""
        return os.path.join(self.folder, self.paths[i])
