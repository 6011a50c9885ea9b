"""Writes a folder of images as array_record: few large files, which a bucket serves quickly.

python -m evqgan.data.from_folder FOLDER DEST --name=NAME

FOLDER is read as --config.dataset.folder reads it, and its splits train and validation and its
classes are kept; a third split is left out and named. Files that do not decode, or, where there are
more than 2,000 or 1 GiB, whose head or end is damaged, are left out, however many; the first 20 are
named. DEST is a data_dir, where the data set gets the name NAME; it appears when it is whole. The
files themselves are copied, not encoded anew.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evqgan.core import cli, signals, stores
from evqgan.core.cli import DEBUG, SWITCH, TEXT, Flag
from evqgan.core.errors import InputError
from evqgan.core.progress import counted, say
from evqgan.data.from_tfrecord import Damage, end, is_there, two_folders

FLAGS = (
    Flag("name", TEXT, (), "what the data set is called", required=True),
    Flag("sorted", SWITCH, (), "all images in one split `train`, by name (FFHQ's division)"),
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
    origin = written.made_of(source, Folder(str(source), "all").paths, splits)
    if not is_there(folder, origin):
        found = survey(Dataset(folder=str(source), max_bad=1.0), print)  # they are left out
        for path, why in found.broken.items():
            damaged(f"{path}: {why}")
        whole = Folder(str(source), "sorted" if values.sorted else "train")
        parts = {split: whole if split == "train" else whole.part(split) for split in splits}
        for name, images in others(whole.splits).items():
            kept = " and ".join(SPLITS)
            say(f"left out: {name}/ with {counted(images, 'image')}: {kept} are kept")

        def examples(part: Folder) -> Iterator[written.Example]:
            for i, path in enumerate(part.paths):
                if path not in found.broken:
                    yield path, part[i]["image"], part.labels[i]

        number = sum(path not in found.broken for part in parts.values() for path in part.paths)
        text = f"Images of the folder {stores.real(source).name}."
        given = {split: examples(part) for split, part in parts.items()}
        written.write(dest, values.name, given, whole.class_names, number, text, origin)
    end(folder, damaged.number, written.usage(dest, values.name, splits))


def others(splits: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return {sub-folder: number of its images} of the splits of `folder.layout` beside SPLITS."""
    kept = [splits[name] for name in (*SPLITS, "all", "sorted") if name in splits]
    left = [paths for paths in splits.values() if paths not in kept]
    return {paths[0].split("/")[0]: len(paths) for paths in left}


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
