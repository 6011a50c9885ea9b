"""Writes a trained model as a folder to pass on, which `evqgan.load` and all modes take.

python -m evqgan.export WORKDIR DEST [--step=N|best|last] [--dtype=float16|float32] [--check=90]
    [--noprograms]
python -m evqgan.export MODEL DEST
python -m evqgan.export MODEL --push=hf://USER/NAME [--public]

WORKDIR is a generator's, whose tokenizer is found through its config, a tokenizer's or a
quickstart's. DEST is a new or empty folder; nothing is left there unless all of it is written:

  config.json        both configs, without paths of this machine
  model.safetensors  the averaged weights of both, and nothing of training. In float16 they have
                     half the size; the codes' vectors stay in float32
  README.md          the model card, and LICENSE.txt: the licences of code and data
  evaluation.json    numbers with their protocol cards, if the workdir has any of these weights
  reconstruct.jax, decode.jax, sample.jax
                     programs that need no evqgan, but JAX alone; the card says how they are run
  check.json, reference.npz
                     with --check: so many samples are made, and their distance to the training
                     images is kept, by which a test sees whether they are still as good

MODEL is such a folder, or the name of a model that ships. With DEST it is copied, with programs of
the JAX that is installed here. --push uploads the folder to the Hugging Face Hub in one commit; a
repository is made if there is none, private unless --public is given. WORKDIR DEST --push=... does
both.

Use it by its path wherever a --workdir is asked for, or once it is pushed by hf://USER/NAME; what
is made with it goes to workdirs/NAME.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import pathlib
import shlex
import sys
from typing import Any

from evqgan.core import cli, exported, exported_weights, hub, signals
from evqgan.core.cli import DEBUG, PATH, STEP, SWITCH, TEXT, Flag, choice, whole
from evqgan.core.errors import InputError
from evqgan.export import folder as folders
from evqgan.export import gathered, pushing

FLAGS = (
    Flag("dtype", choice(*exported_weights.DTYPES), (), "of the weights (float16)", "float16"),
    Flag("step", STEP, (), "which checkpoint: its step, best (by config.best) or last (last)"),
    Flag("tokenizer", PATH, (), "the workdir of the tokenizer, if it was moved", ""),
    Flag("check", whole(0, 10_000), (), "samples of a check that is kept (0: none)", 0),
    Flag("programs", SWITCH, (), "write programs for JAX alone (true; --noprograms: no)", True),
    Flag("push", TEXT, (), "upload the folder to the Hugging Face Hub, as hf://USER/NAME", ""),
    Flag("public", SWITCH, (), "with --push: whoever likes may read the repository"),
    DEBUG,
)
OF_WORKDIR = ("dtype", "step", "tokenizer", "check", "programs")  # flags of a workdir's export


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
    folder = exported.find(words[0]) if len(words) == 1 else pathlib.Path(words[1]).expanduser()
    if len(words) == 2:
        if values.push:
            pushing.check(values.push, values.public)
        write(values, words[0], folder)
    if values.push:
        pushing.push(folder, values.push, values.public)


def write(values: Any, source: str, dest: pathlib.Path) -> None:
    """Write the folder `dest` of a workdir, or a copy of an exported model, as the flags say."""
    folders.require_new(dest)
    model = exported.find(source)
    if exported.is_one(model):
        for name in OF_WORKDIR:
            if values[name].present:
                why = f"{source} is an exported model, whose weights stay as they are"
                raise InputError(f"{why}: leave --{name} out")
        folders.copy(model, dest)
        print(f"wrote {dest}: a copy of {source}, with programs by this JAX; see README.md")
        return
    found = gathered.gather(source, values.tokenizer, step=values.step)
    if values.check and found.part != "generator":
        raise InputError(f"--check is of samples, {source} holds a tokenizer: leave it out")
    size = folders.write(dest, found, values.dtype, values.check, values.programs)
    mode = "sample" if found.part == "generator" else "reconstruct --image=PICTURE"
    place = shlex.quote(str(dest))
    print(f"wrote {dest}: {found.part}, {size:,} bytes of weights in {values.dtype}; see README.md")
    print(f"next: python -m evqgan.main --workdir={place} --mode={mode}")


def parse(argv: list[str]) -> tuple[Any, list[str]]:
    """Return the flags, and WORKDIR and DEST or a MODEL to push; InputError for what is wrong."""
    values: Any
    values, words = cli.parse(FLAGS, argv, words=True)
    if len(words) != 2 and not (values.push and len(words) == 1):
        got = " ".join(words) or "nothing"
        raise InputError(f"expected WORKDIR and DEST, got {got}; see --help")
    if len(words) == 1 and (given := [name for name in OF_WORKDIR if values[name].present]):
        raise InputError(f"{words[0]} is pushed as it is: leave --{given[0]} out")
    if values.check == 1:
        raise InputError("--check=1: a distance needs two samples or more")
    if values.public and not values.push:
        raise InputError("--public is of --push=hf://USER/NAME: give both, or leave it out")
    if values.push:
        values.push = hub.parse(values.push).name
    return values, words


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
