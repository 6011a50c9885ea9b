"""Which files of a folder are images, and which of its names cannot be read."""

import collections
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from PIL import Image

from evqgan.core import stores
from evqgan.core.errors import InputError, cut, leads_nowhere

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
LETTERS = 40  # ours: of a name in a list
LINKS = 2  # ours: one to a split, and one to a class in it; with more, few folders become thousands
# Of a name: control characters, ends of lines, and what stands for bytes that are not UTF-8.
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
UNWRITABLE_NAME = re.compile(rf"(?:[^/]*/)*?[^/]*?{UNWRITABLE.pattern}[^/]*")


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


def listed(counts: dict[str, int]) -> str:
    """Return {name: number} as "name number, ...", the largest number first; names are cut."""
    largest = sorted(counts.items(), key=lambda x: (-x[1], x[0]))
    return ", ".join(f"{cut(name, LETTERS)} {number:,}" for name, number in largest)
