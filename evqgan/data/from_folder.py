"""Writes a folder of images as array_record: few large files, which a bucket serves quickly.

python -m evqgan.data.from_folder FOLDER DEST --name=NAME [--size=256]

FOLDER is read as --config.dataset.folder reads it, and its splits train and validation and its
classes are kept; a third split is left out and named. Files that do not decode, or, where there are
more than 2,000 or 1 GiB, whose head or end is damaged, are left out, however many; the first 20 are
named. DEST is a data_dir, where the data set gets the name NAME; it appears when it is whole. The
files themselves are copied, not encoded anew, but for those that --size makes smaller: of these the
pixels are as training decodes and scales them, in a JPEG of quality 95 of a JPEG, else in a PNG.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import pathlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from evqgan.core import cli, signals, stores
from evqgan.core.cli import DEBUG, SWITCH, TEXT, Flag, whole
from evqgan.core.errors import InputError
from evqgan.core.progress import counted, say
from evqgan.data.from_tfrecord import Damage, end, is_there, two_folders

FLAGS = (
    Flag("name", TEXT, (), "what the data set is called", required=True),
    Flag("sorted", SWITCH, (), "all images in one split `train`, by name (FFHQ's division)"),
    Flag("size", whole(1), (), "scale images down whose shorter side has more pixels, to so many"),
    DEBUG,
)
SPLITS = ("train", "validation")


def main(argv: list[str] | None = None) -> int:
    """Run the command line, by sys.argv by default, and return its exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(cli.describe(__doc__ or "", FLAGS))
        return 2
    return cli.main(argv, run, lambda: cli.describe(__doc__ or "", FLAGS))


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    values: Any
    values, words = cli.parse(FLAGS, argv, words=True)
    source, dest = two_folders(words)
    from evqgan.data import written
    from evqgan.data.dataset import Dataset
    from evqgan.data.folder import Folder
    from evqgan.data.survey import survey

    written.check_name(values.name)
    folder, splits = written.place(dest, values.name), ["train"] if values.sorted else [*SPLITS]
    inside = stores.real(pathlib.Path(dest).expanduser()).is_relative_to(stores.real(source))
    if inside:
        raise InputError(f"{dest} is inside of {source}, whose images are read: give another DEST")
    damaged = Damage(skip=True)
    smaller = [f"size {values.size}"] if values.size else []
    origin = written.made_of(source, Folder(str(source), "all").paths, splits, *smaller)
    if not is_there(folder, origin):
        found = survey(Dataset(folder=str(source), max_bad=1.0), print)  # they are left out
        for path, why in found.broken.items():
            damaged(f"{path}: {why}")
        first = Folder(str(source), "sorted" if values.sorted else "train")
        parts = {split: first if split == "train" else first.part(split) for split in splits}
        for name, images in others(first.splits).items():
            kept = " and ".join(SPLITS)
            say(f"left out: {name}/ with {counted(images, 'image')}: {kept} are kept")

        number = sum(path not in found.broken for part in parts.values() for path in part.paths)
        text = f"Images of the folder {stores.real(source).name}."
        late: dict[str, str] = {}
        given = {
            split: examples(part, found.broken, values.size, late) for split, part in parts.items()
        }
        written.write(dest, values.name, given, first.class_names, number, text, origin)
        for path, why in late.items():
            damaged(f"{path}: {why}")
    end(folder, damaged.number, written.usage(dest, values.name, splits))


def examples(
    part: Any, broken: Collection[str], size: int | None, late: dict[str, str]
) -> Iterator[tuple[str, bytes, int]]:
    """Yield the images of a split that are not broken, as `written.Example`; part: a `Folder`.

    size: pixels of the shorter side to which larger ones are scaled down; None: none are.
    late: takes {path: why} of those that turn out not to decode then, and are left out.
    """
    from evqgan.data import threaded
    from evqgan.data.shrunk import shrunk

    def read(i: int) -> bytes | InputError:
        image: bytes = part[i]["image"]
        try:
            return shrunk(image, size) if size else image
        except InputError as error:
            return error

    kept = [i for i, path in enumerate(part.paths) if path not in broken]
    # What is copied may be large: one at a time.
    for i, image in zip(kept, threaded.each(read, kept) if size else map(read, kept), strict=True):
        if isinstance(image, InputError):
            late[part.paths[i]] = str(image)
        else:
            yield part.paths[i], image, part.labels[i]


def others(splits: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return {sub-folder: number of its images} of the splits of `folder.layout` beside SPLITS."""
    kept = [splits[name] for name in (*SPLITS, "all", "sorted") if name in splits]
    left = [paths for paths in splits.values() if paths not in kept]
    return {paths[0].split("/")[0]: len(paths) for paths in left}


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
