"""Writes a trained model as a folder to pass on, which `evqgan.load` and all modes take.

python -m evqgan.export WORKDIR DEST [--dtype=float16|float32] [--check=90]

WORKDIR is a generator's, whose tokenizer is found through its config, a tokenizer's or a
quickstart's. DEST is a new or empty folder; nothing is left there unless all of it is written:

  config.json        both configs, without paths of this machine
  model.safetensors  the averaged weights of both, and nothing of training. In float16 they have
                     half the size; the codes' vectors stay in float32
  README.md          the model card, and LICENSE.txt: the licences of code and data
  evaluation.json    numbers with their protocol cards, if the workdir has any of these weights
  check.json, reference.npz
                     with --check: so many samples are made, and their distance to the training
                     images is kept, by which a test sees whether they are still as good

Use it by its path wherever a --workdir is asked for; what is made with it goes to workdirs/NAME.
"""

from evqgan.core import starting

if __name__ == "__main__":
    starting.end_in_a_line()

import pathlib
import shlex
import sys
from typing import Any

from evqgan.core import cli, exported_weights, signals
from evqgan.core.cli import DEBUG, PATH, Flag, choice, whole
from evqgan.core.errors import InputError
from evqgan.export import folder, gathered

FLAGS = (
    Flag("dtype", choice(*exported_weights.DTYPES), (), "of the weights (float16)", "float16"),
    Flag("tokenizer", PATH, (), "the workdir of the tokenizer, if it was moved", ""),
    Flag("check", whole(0, 10_000), (), "samples of a check that is kept (0: none)", 0),
    DEBUG,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line, by sys.argv by default, and return its exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(help_text())
        return 2
    return cli.main(argv, run, help_text)


def help_text() -> str:
    """Return what --help prints."""
    return cli.describe(__doc__ or "", FLAGS)


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    values, words = cli.prepare(parse, argv)
    workdir, dest = words[0], pathlib.Path(words[1]).expanduser()
    folder.require_new(dest)
    found = gathered.gather(workdir, values.tokenizer)
    if values.check and found.part != "generator":
        raise InputError(f"--check is of samples, {workdir} holds a tokenizer: leave it out")
    size = folder.write(dest, found, values.dtype, values.check)
    mode = "sample" if found.part == "generator" else "reconstruct --image=PICTURE"
    place = shlex.quote(str(dest))
    print(f"wrote {dest}: {found.part}, {size:,} bytes of weights in {values.dtype}; see README.md")
    print(f"next: python -m evqgan.main --workdir={place} --mode={mode}")


def parse(argv: list[str]) -> tuple[Any, list[str]]:
    """Return the flags and WORKDIR and DEST; InputError for all that is wrong with them."""
    values, words = cli.parse(FLAGS, argv, words=True)
    if len(words) != 2:
        got = " ".join(words) or "nothing"
        raise InputError(f"expected WORKDIR and DEST, got {got}; see --help")
    if values.check == 1:
        raise InputError("--check=1: a distance needs two samples or more")
    return values, words


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
