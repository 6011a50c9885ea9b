"""Say what is wrong with a command line of evqgan.main, before machines for it are asked for.

python -m launch.check_flags [--here] [--elsewhere] [--devices=N] -- [flags of evqgan.main]

Exit code 2 and a line for a flag, its value or its mode, a config that cannot be read, a key that
it does not have, a batch that cannot be split over so many devices, and with --elsewhere for data
of the config by a relative path; else 0. What may be on the machines alone is left to the program:
a workdir, a preset, and, unless it runs --here, a config by a path from / on.
"""

import os
import sys
from typing import Any

from evqgan import main as program
from evqgan.core import build, cli, config_files, stores
from evqgan.core.cli import SWITCH, Flag, whole
from evqgan.core.errors import InputError

FLAGS = (
    Flag("here", SWITCH, (), "the program runs on this machine, or one with the same files"),
    Flag("elsewhere", SWITCH, (), "the program runs on machines that have no data of this one"),
    Flag("devices", whole(1), (), "how many devices it will have, all processes together"),
)


def run(argv: list[str]) -> None:
    """Raise InputError for what is wrong with the arguments."""
    if "--" not in argv:
        raise InputError("expected -- before the flags of evqgan.main; see --help")
    middle = argv.index("--")
    own: Any = cli.parse(FLAGS, argv[:middle])[0]
    flags, keys = program.flags_of(argv[middle + 1 :])
    if not flags.config or (flags.config.startswith(("/", "~")) and not own.here):
        return
    config = config_files.read_file(flags.config)
    config_files.override(config, keys)
    if own.elsewhere:
        check_data(config, flags.config)
    if own.devices and flags.mode == "train":
        check_batches(config, own.devices)


def check_data(config: Any, file: str) -> None:
    """Raise InputError for data of a config, or of one of its stages, by a relative path."""
    for name in ("", "tokenizer", "generator"):
        part = config.get(name, {}) if name else config
        for key in ("folder", "data_dir", "codes"):
            path = part.get("dataset", {}).get(key, "")
            if path and not (stores.is_remote(path) or os.path.isabs(path)):
                where = ".".join(filter(None, ["config", name, "dataset", key]))
                raise InputError(
                    f"no worker has {path}, which is {where} of {file}, relative to where it "
                    "runs: put its images into a bucket by launch/prepare_data.sh, or give "
                    f"--{where}=/PATH that all workers have"
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
