"""Say what is wrong with a command line of evqgan.main, before machines for it are asked for.

python -m launch.check_flags [flags of evqgan.main]

Exit code 2 and a line for a flag, its value or its mode, a config that cannot be read, and a key
that it does not have; else 0. What may be on the machines alone is left to the program: a workdir,
a preset, and a config by a path from / on.
"""

import sys

from evqgan import main as program
from evqgan.core import cli, config_files


def run(argv: list[str]) -> None:
    """Raise InputError for what is wrong with the arguments."""
    flags, keys = program.flags_of(argv)
    if flags.config and not flags.config.startswith(("/", "~")):
        config_files.override(config_files.read_file(flags.config), keys)


def main(argv: list[str] | None = None) -> int:
    """Check a command line, sys.argv by default, and return the exit code (`cli.main`)."""
    return cli.main(sys.argv[1:] if argv is None else argv, run, lambda: __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
