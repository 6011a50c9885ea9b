"""Say what is wrong with a command line of evqgan.main, before machines for it are asked for.

python -m launch.check_flags [--here] [--elsewhere] [--fresh] [--devices=N] -- [its flags]

Exit code 2 and a line for a flag, its value or its mode, a config that cannot be read, a key that
it does not have, a batch that cannot be split over so many devices; with --elsewhere for data and
weights of the config by a relative path, and for files of flags by one that the commit has not;
with --fresh for those that training needs and that the config names no place of; else 0. What may
be on the machines alone is left to the program: a workdir, and by a path from / on what flags name,
and, unless it runs --here, a config.
"""

import pathlib
import sys
from typing import Any

from evqgan import flags as table
from evqgan import main as program
from evqgan.core import build, cli, config_files, exported, hub, public_names, stores, weights
from evqgan.core.cli import SWITCH, Flag, whole
from evqgan.core.errors import InputError
from evqgan.data import named

# Keys that may be paths of what a run reads, and which of them may be names of models.
MODELS = ("tokenizer.weights", "init")
PATHS = (
    "dataset.folder",
    "dataset.data_dir",
    "dataset.codes",
    "perceptual.weights",
    "adversarial.weights",
    *MODELS,
)
# Flags that name what a run reads.
FILES = [flag.name for flag in table.FLAGS if flag.kind is cli.PATH and flag.name != "json"]
PLACELESS = (
    None,
    "",
    *public_names.NAMES,
)  # of a model: nothing, or what a machine's own cache holds
FLAGS = (
    Flag("here", SWITCH, (), "the program runs on this machine, or one with the same files"),
    Flag("elsewhere", SWITCH, (), "the program runs on machines that have no data of this one"),
    Flag("fresh", SWITCH, (), "these machines are new: nothing was prepared on them"),
    Flag("devices", whole(1), (), "how many devices it will have, all processes together"),
)


def run(argv: list[str]) -> None:
    """Raise InputError for what is wrong with the arguments."""
    if "--" not in argv:
        raise InputError("expected -- before the flags of evqgan.main; see --help")
    middle = argv.index("--")
    own: Any = cli.parse(FLAGS, argv[:middle])[0]
    flags, keys = program.flags_of(argv[middle + 1 :])
    if own.elsewhere:
        check_files(flags)
    if not flags.config or (flags.config.startswith(("/", "~")) and not own.here):
        return
    config = config_files.read_file(flags.config)
    config_files.override(config, keys)
    if own.devices and flags.mode == "train":
        check_batches(config, own.devices)
    if own.elsewhere:
        check_paths(config, flags.config)
    if own.fresh and flags.mode == "train" and config.stage != "quickstart":
        check_given(config, flags.config)


def check_files(flags: Any) -> None:
    """Raise InputError for a file of a flag by a relative path, unless it is in the commit.

    The commit is the present folder, as check_flags of launch/environment.sh has it.
    """
    for name in FILES:
        path = flags[name].value
        if path is None or is_elsewhere(path) or pathlib.Path(path).exists():
            continue
        raise InputError(
            f"no worker has {path}, which is relative to where it runs: commit it, or give "
            f"--{name}=/PATH that all workers have"
        )


def check_paths(config: Any, file: str) -> None:
    """Raise InputError for data or weights of a config, or of its stages, by a relative path.

    A name is no path: of a model that ships, is public or of the Hub, or "random".
    """
    for name in ("", "tokenizer", "generator") if config.stage == "quickstart" else ("",):
        part = config[name] if name else config
        for key in PATHS:
            *sections, last = key.split(".")
            path = part
            for section in [*sections, last]:
                path = path.get(section) if hasattr(path, "get") else None
            if not isinstance(path, str) or is_elsewhere(path) or (key in MODELS and is_name(path)):
                continue
            where = ".".join(filter(None, ["config", name, key]))
            instead = f"give --{where}=gs://BUCKET/DIR, or /PATH that all workers have"
            if sections == ["dataset"]:
                instead = (
                    "put its images into a bucket by launch/prepare_data.sh, or give "
                    f"--{where}=/PATH that all workers have"
                )
            raise InputError(
                f"no worker has {path}, which is {where} of {file}, relative to where it runs: "
                f"{instead}"
            )


def is_elsewhere(path: str) -> bool:
    """Return whether a path, "" or "random" among them, may be right on another machine."""
    return path in ("", "random") or stores.is_remote(path) or path.startswith(("/", "~"))


def is_name(path: str) -> bool:
    """Return whether what is given as a workdir names a model, and may do so elsewhere."""
    return path in exported.names() or path in public_names.NAMES or hub.is_named(path)


def check_given(config: Any, file: str) -> None:
    """Raise InputError for what a config of one stage needs to train and new machines have not.

    That is a data set that does not come with the code, the tokenizer of a generator, frozen
    networks of a tokenizer's loss, and public models, which are converted on each machine.
    """
    data = config.dataset
    name = data.get("name") or "generated"
    comes_along = name == "generated" or named.is_ours(name)
    if not (comes_along or data.get("codes") or data.get("data_dir")):
        missing(f"the data set {name}", file, "dataset.data_dir", "data")
    if config.get("init") in public_names.NAMES:
        missing(f"the model {config.init}", file, "init", config.init)
    if config.stage == "stage2" and (given := config.tokenizer.get("weights")) in PLACELESS:
        what = f"the tokenizer {given}" if given else "its tokenizer"
        missing(what, file, "tokenizer.weights", given or "stage1")
    if config.stage != "stage1":
        return
    from evqgan.training import stage1

    for networks in stage1.frozen_networks(config).values():
        absent = [x for x in networks.names.values() if not weights.is_shipped(x)]
        if absent and not networks.folder:
            what = f"the weights of {' and '.join(absent)}"
            missing(what, file, networks.key.removeprefix("config."), "weights")


def missing(what: str, file: str, key: str, folder: str) -> None:
    """Raise InputError for `what`, which a key of the config would name."""
    raise InputError(
        f"no new machine has {what}, and {file} names no place for that: put it into a bucket, and "
        f"give --config.{key}=gs://BUCKET/{folder} (docs/training.md, Data and weights of a pod)"
    )


def check_batches(config: Any, devices: int) -> None:
    """Raise InputError for a batch of training that cannot be split, as training would.

    Of a config of both stages, the batch of each; what is not set yet is proposed by the program.
    """
    from jax.sharding import AbstractMesh

    from evqgan.core import mesh

    for name in ("tokenizer", "generator") if config.stage == "quickstart" else ("",):
        part, where = (config[name], f"config.{name}") if name else (config, "config")
        batch_size = part.get("batch_size") or config.get("batch_size")
        if not isinstance(batch_size, int):
            continue
        keys = {"number": devices, **part.get("mesh", {})}
        axes = AbstractMesh(build.call(mesh.sizes, keys, f"{where}.mesh"), mesh.AXES)
        mesh.check_split(axes, batch_size, f"{where}.batch_size")
        parts = part.optimizer.get("accumulate") or 1
        if batch_size % parts == 0:  # else training says so
            key = f"{where}.batch_size / {where}.optimizer.accumulate"
            mesh.check_split(axes, batch_size // parts, key)


def main(argv: list[str] | None = None) -> int:
    """Check a command line, sys.argv by default, and return the exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    return cli.main(argv, run, lambda: cli.describe(__doc__ or "", FLAGS))


if __name__ == "__main__":
    sys.exit(main())
