"""python -m evqgan.benchmark NAME [--json=FILE] [flags of NAME; --help lists them]

reconstruction  --workdir=DIR --workdir=DIR ...      tokenizers side by side on held-out images (paper, Table 1)
locality        --workdir=DIR --workdir=DIR ...      how far a change of tokens reaches in the image (paper, Fig. 1)
step            --config=FILE[:variant] --batch=1    one training step: parameters, memory, seconds
table6          --latent=64 --blocks=all|1           memory of a generator's training step (paper, Table 6)
sampling        --latent=64 --steps=8                seconds an image's tokens take, by attention and order
variants        --config=FILE --out=DIR --seeds=3    ways to train a generator, trained and compared on equal terms
comparison      --config=FILE --out=DIR --seeds=3    the compared systems, both stages trained on equal terms

Prints a table; --json writes {"name", "title", "device", "command", "rows": [{...}]}.
"""

import argparse
import shlex
import sys
import traceback

import jax

from evqgan.core import build, files
from evqgan.core.errors import InputError
from evqgan.core.log import NonFinite

NAMES = ("reconstruction", "locality", "step", "table6", "sampling", "variants", "comparison")


class Parser(argparse.ArgumentParser):
    """Wrong flags are an InputError: one line, as everywhere here."""

    def error(self, message):
        raise InputError(f"{message}; see --help")


def main(argv=None):
    """Runs one benchmark -> exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    try:
        name = argv[0]
        if name not in NAMES:
            raise InputError(f"there is no benchmark {name!r}: {build.nearest(name, NAMES)}")
        benchmark = build.module("benchmark", name, "the first argument")
        parser = Parser(f"python -m evqgan.benchmark {name}", description=benchmark.__doc__, allow_abbrev=False)
        parser.add_argument("--json", help="write the rows there")
        parser.add_argument("--debug", action="store_true", help="show tracebacks")
        benchmark.arguments(parser)
        given, rest = parser.parse_known_args(argv[1:])
        title, rows = benchmark.run(given, rest)
        device = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
        print(f"\n{title}, {device}\n{table(rows)}")
        if given.json:
            command = shlex.join(["python", "-m", "evqgan.benchmark", *argv])
            files.save_json(given.json, dict(name=name, title=title, device=device, command=command, rows=rows))
            print(f"the rows are in {given.json}")
        return 0
    except (InputError, NonFinite, OSError) as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, NonFinite) else 2


def table(rows):
    """Rows, dicts with the same keys, as aligned text."""
    names = list(rows[0])
    cells = [names, *([text(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def text(value):
    """A number with four digits, or with all that a whole one has; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
