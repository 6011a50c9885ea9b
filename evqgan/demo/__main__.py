"""Serves a model as a web page, on this machine alone.

python -m evqgan.demo --workdir=DIR|NAME [--step=N|best|last] [--port=7860]

The page generates, inpaints, outpaints, changes the class of a picture and reconstructs; it shows
the shell command that makes the same, and its PNG files say how they were made: the page and
python -m evqgan.main --mode=sample --image=FILE.png make them again. DIR is the workdir of a
generator, of a tokenizer (which reconstructs alone) or an exported model; NAME is a model that
ships, drawings by default. It needs Gradio: python -m pip install "gradio>=6,<7"

Nobody but this machine reaches it unless --host is given. It has no login and no encryption: give
--host in a network whose users you trust. Ctrl-C ends it. See docs/demo.md.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()

import importlib.util
import sys
from typing import Any

from evqgan.core import cli, signals
from evqgan.core.cli import DEBUG, PATH, PLACE, STEP, TEXT, Flag, whole
from evqgan.core.errors import InputError

INSTALL = 'python -m pip install "gradio>=6,<7"'
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FLAGS = (
    Flag("workdir", PLACE, (), "the model: a workdir or a name (drawings)", "drawings"),
    Flag("step", STEP, (), "which checkpoint: its step, best (by config.best) or last (last)"),
    Flag("host", TEXT, (), "the address to listen at (127.0.0.1: this machine alone)", LOOPBACK[0]),
    Flag("port", whole(0, 65535), (), "the port (7860); 0: any that is free", 7860),
    Flag("preset", PATH, (), "a file of sampler settings to offer; may be repeated", [], True),
    Flag("batch_size", whole(1), (), "images a device at a time"),
    DEBUG,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line, by sys.argv by default, and return its exit code (`cli.main`)."""
    return cli.main(sys.argv[1:] if argv is None else argv, run, help_text)


def help_text() -> str:
    """Return what --help prints."""
    return cli.describe(__doc__ or "", FLAGS)


def run(argv: list[str]) -> None:
    """Load the model and serve its page until the process is stopped."""
    values = cli.prepare(parse, argv)
    from evqgan.demo import server, studio
    from evqgan.inference.mode_inputs import load_model

    server.port_at(values.host, values.port)  # refused before the model is loaded
    model = load_model(None, values.workdir, values.batch_size, values.step)
    step = None if values.step in (None, "last") else model.step
    with studio.opened(model, values.workdir, values.preset, step) as made:
        server.serve(made, values.host, values.port)


def parse(argv: list[str]) -> Any:
    """Return the flags; InputError for all that is wrong with them, and where Gradio is absent."""
    values: Any = cli.parse(FLAGS, argv)[0]
    if not values.host or not values.workdir:
        raise InputError("--host and --workdir take a value: give one, or leave it out")
    if importlib.util.find_spec("gradio") is None:
        raise InputError(f"the web page needs Gradio, which is not installed: {INSTALL}")
    if values.host not in LOOPBACK:
        print(
            f"--host={values.host}: whoever reaches this address can use the page, without a "
            "login and unencrypted",
            flush=True,
        )
    return values


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
