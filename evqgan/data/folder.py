"""A plain folder of images as a data set: a class per sub-folder, or none."""

import hashlib
import os

from evqgan.core.errors import InputError
from evqgan.data.splits import select

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
VALIDATION = ("validation", "val", "valid", "test")  # sub-folders that may hold the validation images, first one wins
TRAIN_SHARE = 0.9  # ours: where a folder has no validation part, a tenth of it is held out


def image_paths(folder):
    """The images below `folder`, as sorted paths relative to it; InputError if it is missing, unreadable or empty."""
    if not os.path.isdir(folder):
        raise InputError(f"config.dataset.folder expects a folder of images, got {folder!r}, which is no folder")

    def refuse(error):
        raise InputError(f"the folder {error.filename!r} cannot be read: {error.strerror}") from None

    found, seen = [], set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        keep = [name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]
        found.extend(os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/") for name in keep)
    if not found:
        raise InputError(f"the folder {folder!r} holds no image; expected files ending in {' '.join(EXTENSIONS)}")
    return sorted(found)


def shuffled(paths):
    """`paths` in the order of their hashes: mixed, and the same on every machine and after other files came or went."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())


def layout(paths):
    """Relative paths -> ({split: paths}, {path: class or ""}).

    With a sub-folder train/, and nothing beside it but those of VALIDATION, the sub-folders are the splits. Otherwise,
    and with train/ alone, the images are divided: `train` is the first 90 % in `shuffled` order, `validation` the rest,
    `sorted` all by name (FFHQ's own division is sorted[:60000] and sorted[60000:]). `all` is everything, shuffled.
    """
    tops = {path.split("/")[0] if "/" in path else "" for path in paths}
    divided = "train" in tops and tops <= {"train", *VALIDATION}
    below = {path: path.split("/", 1)[1] if divided else path for path in paths}
    flat = any("/" not in rest for path, rest in below.items() if not divided or path.startswith("train/"))
    classes = {path: "" if flat or "/" not in rest else rest.split("/")[0] for path, rest in below.items()}
    if divided and len(tops) > 1:
        splits = {top: shuffled(path for path in paths if path.startswith(f"{top}/")) for top in sorted(tops)}
        splits.setdefault("validation", next(splits[name] for name in VALIDATION if name in splits))
        splits["all"] = shuffled(paths)
    else:
        everything = shuffled(paths)
        cut = min(round(TRAIN_SHARE * len(paths)), max(1, len(paths) - 1))
        splits = {"train": everything[:cut], "validation": everything[cut:], "all": everything, "sorted": paths}
    return splits, classes


class Folder:
    """Source of the encoded images of one split of `folder`; if `labelled`, its sub-folders by name are the classes."""

    def __init__(self, folder, split, labelled=True):
        self.folder = os.path.expanduser(folder)
        splits, classes = layout(image_paths(self.folder))
        self.paths = select(split, splits, f"the folder {folder!r}")
        names = sorted({classes[path] for path in (splits["train"] if "sorted" not in splits else splits["all"])})
        self.class_names = tuple(names) if labelled and names != [""] else ()
        self.labels = [0] * len(self.paths)
        if self.class_names:
            number = {name: k for k, name in enumerate(names)}
            for i, path in enumerate(self.paths):
                if classes[path] not in number:
                    raise InputError(f"{self.where(i)} is of the class {classes[path]!r}, which train/ does not have")
                self.labels[i] = number[classes[path]]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        try:
            with open(self.where(i), "rb") as file:
                return {"image": file.read(), "label": self.labels[i]}
        except OSError as error:
            raise InputError(f"the file cannot be read: {error.strerror}") from None

    def where(self, i):
        return os.path.join(self.folder, self.paths[i])
