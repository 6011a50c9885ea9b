"""`--compile_only=TOPOLOGY`: compile the programs of a mode, and say whether they fit."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from evqgan.aot import advice, programs, report, topology
from evqgan.core import build, files
from evqgan.core.errors import DoesNotFit
from evqgan.core.progress import heartbeat


def run(config: Any, name: str, mode: str, batch_size: int | None, tries: int, json: str) -> None:
    """Compile what a mode runs of a config for the devices of `name`, and print what it takes.

    mode: train, sample or evaluate. batch_size: images a device, of sample and evaluate.
    tries: of changes, see `advice.lines`. json: a file for the rows; "" for none.

    Raises InputError for what cannot be compiled, and DoesNotFit if a program does not fit.
    """
    with compiled_anew():
        rows = rows_of(config, name, mode, batch_size, tries)
    if json:
        as_json = [row._asdict() for row in rows]
        files.save_json(json, {"name": "compile_only", "rows": as_json})
    large = [row.program for row in rows if not row.fits]
    if large:
        raise DoesNotFit(f"{' and '.join(large)}: more memory than {name} has")


def rows_of(
    config: Any, name: str, mode: str, batch_size: int | None = None, tries: int = 0
) -> list[report.Row]:
    """Return the rows of a config's programs, with advice; they are printed as they come."""
    target, config, rows = topology.target(name), programs.completed(config), []
    wrong = f"nothing can be built for --mode={mode} from this config"
    with build.one_line(wrong):
        made = programs.MAKERS[mode](config, target.devices, batch_size)
    for program in made:
        with build.one_line(wrong), heartbeat(f"compiling the {program.name}"):
            row = report.compiled(program, target)
        print(report.text(row), flush=True)
        if not row.fits and mode == "train":
            for line in advice.lines(config, target, row, tries):
                print(f"  {line}", flush=True)
                row = row._replace(advice=(*row.advice, line))
        rows.append(row)
    return rows


@contextlib.contextmanager
def compiled_anew() -> Iterator[None]:
    """Take no kept program in the body: how long compiling takes is measured."""
    name = "jax_enable_compilation_cache"
    before = getattr(jax.config, name)
    with contextlib.ExitStack() as stack:
        stack.callback(compilation_cache.reset_cache)  # which notes whether it is used
        stack.callback(jax.config.update, name, before)
        jax.config.update(name, False)
        compilation_cache.reset_cache()
        yield
