"""python -m evqgan.benchmark NAME [--json=FILE] [flags of NAME; NAME --help lists them]

table1 ... table7, fig1, fig8, fig9  the paper's tables and figures, beside what is measured here
reconstruction  --workdir=DIR --workdir=DIR ...  tokenizers side by side (paper, Table 1)
pipeline        --config=FILE --workers=0,1,2     images a second that training reads, and a core
step            --config=FILE[:variant] --batch=1  a tokenizer's step: parameters, memory, seconds
sampling        --latent=64 --steps=8            seconds an image's tokens take
samplers        --workdir=DIR --out=DIR           the best settings of a generator's sampler
device          --part=stage2 --rounds=5          full-size models on an accelerator
fits            --topology=v5e-8 --json=FILE      which configs fit on which accelerators
variants        --config=FILE --out=DIR --seeds=3  ways to train a generator, on equal terms
comparison      --config=FILE --out=DIR --seeds=3  the compared systems, trained on equal terms
compare         A.json B.json                    numbers of two evaluations, if their cards agree
faults          --out=DIR --kills=20              runs that are killed, stopped and hindered
reference       --folder=DIR --size=256 --crop=adm  statistics of real images for an FID
distribution    --samples=DIR --folder=DIR        FID and its kin of samples of another program

Prints a table, and where rows have cards, what they were measured on; --json writes {"name",
"title", "device", "command", "rows": [{...}]}.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from evqgan.benchmark import printing
from evqgan.core import build, cli, files, progress, replacing, signals
from evqgan.core.cli import DEBUG, PATH, Flag
from evqgan.core.errors import InputError

PAPER = (*(f"table{number}" for number in range(1, 8)), "fig1", "fig8", "fig9")
NAMES = (
    *PAPER,
    "reconstruction",
    "pipeline",
    "step",
    "sampling",
    "samplers",
    "device",
    "fits",
    "variants",
    "comparison",
    "compare",
    "reference",
    "distribution",
    "faults",
)
TAKE_FILES = ("compare",)  # the arguments that are no flags
TO_FILE = (
    "reconstruction",
    "reference",
    "distribution",
)  # whose --out is a file; of others a folder, or nothing
JSON = Flag("json", PATH, (), "write the rows there (of the paper's: OUT/NAME.json)")


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark, by sys.argv by default, and return the exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        return cli.run_to_code(argv, lambda _: print(__doc__)) or 2
    return cli.main(argv, run, lambda: help_of(argv))


def help_of(argv: Sequence[str]) -> str:
    """Return what --help prints: of a benchmark that is named, its own flags."""
    if argv[0] not in NAMES:
        return __doc__ or ""
    module = named(argv[0])
    return cli.describe(module.__doc__ or "", (*module.FLAGS, JSON, DEBUG))


def named(name: str) -> ModuleType:
    """Return the module of a benchmark, which has FLAGS and `run(given, overrides)`.

    Its `run` returns the title and the rows of a table. A function `conclude(rows)`, if it has one,
    raises InputError, once they are printed, if the command has failed by what they say.
    """
    if name not in NAMES:
        raise InputError(f"there is no benchmark {name!r}: {build.suggestion(name, NAMES)}")
    package = "benchmark.paper" if name in PAPER else "benchmark"
    return build.module(package, name, "the first argument", "FLAGS", "run")


def run(argv: list[str]) -> None:
    """Run the benchmark that the arguments name, print its table, and write --json."""
    module = named(argv[0])
    flags = (*module.FLAGS, JSON, DEBUG)
    given, overrides = cli.parse(flags, argv[1:], words=argv[0] in TAKE_FILES)
    file, picture = written(argv[0], given)
    for path, flag in ((file, "--json"), (picture, "--out")):
        if path:
            replacing.begin(path, argv[0], flag)
    import jax

    cli.start_jax()  # programs are not kept on disk: compiling is measured
    command = shlex.join(["python", "-m", "evqgan.benchmark", *argv])
    signals.note_work(argv[0], command)
    try:
        with progress.warnings_once():
            title, rows = module.run(given, overrides)
    except SystemExit as error:  # a training that was stopped, and has said so of itself
        if isinstance(error.code, int) and error.code > 128:
            signals.print_stopped(error.code - 128)
        raise
    device = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
    shown, cards = printing.numbered(rows)
    print(f"\n{title}, {device}\n{printing.table(shown)}{cards}")
    if file:
        head = {"name": argv[0], "title": title, "device": device, "command": command}
        files.save_json(file, {**head, "rows": rows})
        print(f"the rows are in {file}")
    if conclude := getattr(module, "conclude", None):
        conclude(rows)


def written(name: str, given: Any) -> tuple[str, str]:
    """Return the file of a benchmark's rows, and that of its picture or statistics; "" for none."""
    out = given.out if "out" in given else ""
    rows = given.json or (f"{out}/{name}.json" if name in PAPER else "")
    return rows, out if name in TO_FILE or not out else f"{out}/{name}.png"


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
