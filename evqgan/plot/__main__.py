"""Draws what runs wrote while they trained, or who attends to whom in a generator.

python -m evqgan.plot WORKDIR [WORKDIR ...] [--keys=train/loss,val/mse] [--x=hours] [--out=FILE]
python -m evqgan.plot attention [--workdir=DIR | --tokens=32] [--block=9] [--out=FILE]

The first reads metrics.jsonl of each WORKDIR, of a quickstart's of both its parts, and writes a
picture with a panel a key, all runs in each; those of tokenizers and of generators stand apart. A
run that is still training can be drawn, too.

The second draws a target block of a multi-grained generator (paper, Fig. 3): its tokens, the ring
around it and the global tokens, and which of these sees which.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import pathlib
import sys
from collections.abc import Sequence

from evqgan.core import cli, files, pictures, replacing, signals
from evqgan.core.cli import DEBUG, PATH, TEXTS, Flag, choice, whole
from evqgan.core.errors import InputError
from evqgan.core.progress import warn
from evqgan.plot import curves

PLOT, ATTENTION = "plot", "attention"
CURVES = (
    Flag("keys", TEXTS, (), "such as train/loss, loss (both train's and val's), or val/*"),
    Flag("x", choice(*curves.AXES), (), "what the x axis counts (steps)", "steps"),
    Flag("out", PATH, (), "the picture (curves.png)", "curves.png"),
    DEBUG,
)
BLOCK = (
    Flag("workdir", PATH, (), "of a generator; without it the next three say its sizes", ""),
    Flag("tokens", whole(1, 256), (), "of a side of the grid (32)", 32),
    Flag("window", whole(1, 256), (), "tokens of a block's side (8)", 8),
    Flag("extend", whole(0, 256), (), "tokens that the ring is wide (4)", 4),
    Flag("block", whole(0), (), "the target, numbered row by row from 0 (near the middle)"),
    Flag("out", PATH, (), "the picture (attention.png)", "attention.png"),
    DEBUG,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line, by sys.argv by default, and return its exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(help_text(argv))
        return 2
    return cli.main(argv, run, lambda: help_text(argv))


def help_text(argv: Sequence[str]) -> str:
    """Return what --help prints."""
    return cli.describe(__doc__ or "", table(argv))


def table(argv: Sequence[str]) -> tuple[Flag, ...]:
    """Return the flags of what is drawn: of a block if the first word says so, else of curves."""
    first = next((word for word in argv if not word.startswith("-")), "")
    return BLOCK if first == ATTENTION else CURVES


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    flags = table(argv)
    values, words = cli.parse(flags, argv, words=True)
    out = pathlib.Path(values.out)
    if out.suffix.lower() != ".png":
        raise InputError(f"--out={out}: expected the name of a PNG file")
    replacing.begin(out, PLOT)
    if flags is BLOCK:
        if others := [word for word in words if word != ATTENTION]:
            raise InputError(f"expected flags as --name=value, got {others[0]!r}; see --help")
        from evqgan.plot import attention  # brings JAX

        sizes = {name: values[name].value for name in ("tokens", "window", "extend")}
        picture = attention.of_workdir_or_sizes(values.workdir, sizes, values.block)
    else:
        from evqgan.plot import charts

        if not words:
            raise InputError("expected WORKDIR, one or several; see --help")
        runs = curves.read(words)
        picture = charts.picture(runs, values.keys or (), values.x)
        for damage in filter(None, (one.damage for one in runs)):
            warn(f"{damage}; left out")
    with files.writable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    pictures.save_png(out, picture, {"mode": PLOT})
    print(f"wrote {out}")


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
