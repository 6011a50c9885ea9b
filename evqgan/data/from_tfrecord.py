"""Converts image data in TFRecord files into array_record, which training reads; no TensorFlow.

python -m evqgan.data.from_tfrecord SRC DEST [--skip_damaged]
python -m evqgan.data.from_tfrecord SRC DEST --name=NAME [--image_key=image/encoded]
    [--label_key=image/class/label] [--class_names=FILE] [--train=PATTERN] [--validation=PATTERN]

The first is for a data set that tfds has prepared: SRC is the folder of one version, which holds
dataset_info.json, such as ~/tensorflow_datasets/imagenet2012/5.1.0. DEST is another data_dir, where
it gets the same name and version. Records are copied as they are, a shard at a time; stopped, the
same command goes on.

The second is for other TFRecord files, of tf.train.Examples, in the folder SRC, or SRC itself. An
image is an encoded file (JPEG, PNG, ...), or uint8 pixels [C,H,W] beside their "shape" as in
StyleGAN's files. All files are read twice: first every record is looked at, then they are written,
as the data set NAME in the data_dir DEST.

Every record's checksum is verified. One that is damaged is named, and nothing is left in DEST,
unless --skip_damaged leaves such records out.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from evqgan.core import cli, signals
from evqgan.core.cli import DEBUG, PATH, SWITCH, TEXT, Flag, whole
from evqgan.core.errors import InputError
from evqgan.core.progress import counted

SHOWN = 20  # ours: damaged records that are named one by one
FLAGS = (
    Flag("skip_damaged", SWITCH, (), "leave damaged records out"),
    Flag("name", TEXT, (), "what the data set is called; not of tfds' own", ""),
    Flag("image_key", TEXT, (), "the feature of the image (default: one of the usual names)", ""),
    Flag("label_key", TEXT, (), "the feature of the class, a number; none: no classes", ""),
    Flag("first_label", whole(0), (), "the number of the first class (default: 0 or 1, as found)"),
    Flag("class_names", PATH, (), "a text file with a class a line, in the order of the numbers"),
    Flag("train", TEXT, (), "which files are training data, such as 'train-*'", ""),
    Flag("validation", TEXT, (), "which files are held out, such as 'validation-*'", ""),
    DEBUG,
)
OF_CLASSES = ("first_label", "class_names")  # flags that go with --label_key
OF_TFDS = ("skip_damaged", "debug")  # flags that go with a data set of tfds


def main(argv: list[str] | None = None) -> int:
    """Run the command line, by sys.argv by default, and return its exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(cli.describe(__doc__ or "", FLAGS))
        return 2
    return cli.main(argv, run, lambda: cli.describe(__doc__ or "", FLAGS))


class Damage:
    """What is wrong with records: an error, or of `skip` a line each, of the first ones."""

    def __init__(self, skip: bool) -> None:
        self.skip, self.number = skip, 0

    def __call__(self, what: str) -> None:
        """Take note of a damaged record; raise InputError unless it may be left out."""
        if not self.skip:
            advice = "copy the file again, or leave such records out by --skip_damaged"
            raise InputError(f"{what}: {advice}")
        self.number += 1
        if self.number <= SHOWN:
            print(f"left out: {what}", flush=True)


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    values: Any
    values, words = cli.parse(FLAGS, argv, words=True)
    source, dest = two_folders(words)
    damaged = Damage(values.skip_damaged)
    from evqgan.data import examples_tfrecord, tfds_tfrecord, written
    from evqgan.data.named import INFO

    if (source / INFO).is_file():
        for flag in FLAGS:
            if values[flag.name].present and flag.name not in OF_TFDS:
                raise InputError(f"--{flag.name} is not for a data set of tfds, which says it")
        folder, lacking = tfds_tfrecord.place(source, dest), 0
        if not is_there(folder):
            lacking = tfds_tfrecord.convert(source, dest, damaged)
        name = "/".join(folder.parent.relative_to(pathlib.Path(dest).expanduser()).parts)
        end(folder, lacking, written.usage(dest, name, ["train", "validation"]))
        return
    if not values.name:
        raise InputError(
            f"{source} has no {INFO} of tfds: give the folder of one version, or for other "
            "TFRecord files --name=NAME; see --help"
        )
    for key in OF_CLASSES:
        if values[key].present and not values.label_key:
            raise InputError(f"--{key} is of no use without classes: give --label_key=KEY, too")
    written.check_name(values.name)
    folder, known = written.place(dest, values.name), ["train", "validation"]
    wanted = {split: values[split].value for split in known}
    if not is_there(folder, examples_tfrecord.origin_of(source, values, wanted)):
        known = examples_tfrecord.convert(source, dest, values, wanted, damaged)
    else:
        known = [split for split in known if list(folder.glob(f"*-{split}.array_record*"))]
    end(folder, damaged.number, written.usage(dest, values.name, known))


def two_folders(words: Sequence[str]) -> tuple[pathlib.Path, str]:
    """Return SRC and DEST of the words; InputError unless they are two, and SRC is there."""
    if len(words) != 2:
        raise InputError(f"expected SRC and DEST, got {' '.join(words) or 'neither'}; see --help")
    source = pathlib.Path(words[0]).expanduser()
    if not source.exists():
        raise InputError(f"there is no {source}: give the folder of the files as SRC")
    return source, words[1]


def is_there(folder: pathlib.Path, origin: str = "") -> bool:
    """Return whether the data set is there already; InputError if something else is.

    origin: what it would be made of (`written.made_of`); "": as its name says.
    """
    from evqgan.data import written

    if written.is_whole(folder):
        if not written.is_made_of(folder, origin):
            raise InputError(
                f"{folder} is there, and was made of other files, or with other flags: give "
                "another --name, or remove it"
            )
        print(f"{folder} is there already, nothing is done", flush=True)
        return True
    if folder.exists():
        raise InputError(f"{folder} is there, and is no whole data set: remove it, or move it away")
    return False


def end(folder: pathlib.Path, damaged: int, keys: str) -> None:
    """Say what was made, without how many damaged records, and how it is read."""
    if damaged:
        print(f"left out {counted(damaged, 'damaged record')}", flush=True)
    print(f"{folder} is read by {keys}", flush=True)


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
