"""Checks whether this machine can do what is asked of it, in one screen.

python -m evqgan.doctor [--device=gpu|tpu|cpu|N] [--config=FILE[:variant]] [--workdir=DIR]
                        [--config.key=value ...] [--all] [--json=FILE]

What is installed, and whether the versions fit each other; the GPU's driver; the devices, a
product on each of them and its rate; how long a first program compiles, with and without the
cache; weights, memory, disk. With --config or --workdir, as in evqgan.main, also what that needs:
its keys, its tokenizer, weights, packages, data, memory, disk for checkpoints, and whether its
workdir can be written and its checkpoint is whole. Of large data some images are decoded; with
--all each one, all that are broken are named, and any fails the check. Several processes
(EVQGAN_DISTRIBUTED=1) compare their code, versions and clocks.

A line a check: ok, warning, or FAIL with what to do. Exit code 1 if one has failed. Nothing is
trained, downloaded or prepared.
"""

from evqgan.core import startup

if __name__ == "__main__":
    startup.begin()
    startup.check_packages()

import importlib
import os
import pathlib
import sys
from typing import Any

from evqgan.core import cli, compilation_cache, config_files, files, replacing, signals, space
from evqgan.core.cli import CONFIG_KEYS, DEBUG, PATH, PLACE, SWITCH, TEXT, TEXTS, Flag
from evqgan.core.errors import InputError, Unfit
from evqgan.core.progress import counted, say
from evqgan.doctor import machine
from evqgan.doctor.report import Report, Wrong

FLAGS = (
    Flag("device", TEXTS, (), "what has to be there: gpu, tpu, cpu, a number, or both as in gpu,8"),
    Flag("config", TEXT, (), "FILE[:variant] of an experiment that is to run here"),
    CONFIG_KEYS,
    Flag("workdir", PLACE, (), "its workdir, there or not"),
    Flag("all", SWITCH, (), "decode every image of the data, and name all that are broken"),
    Flag("json", PATH, (), "a file for what was found"),
    DEBUG,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line, by sys.argv by default, and return its exit code (`cli.main`)."""
    argv = sys.argv[1:] if argv is None else argv
    return cli.main(argv, run, lambda: cli.describe(__doc__ or "", FLAGS))


def run(argv: list[str]) -> None:
    """Do what the arguments say; raise Unfit if a check has failed."""
    values: Any
    values, rest = cli.parse(FLAGS, argv)
    if rest and not (values.config or values.workdir):
        raise InputError(f"{rest[0]} needs --config=FILE or --workdir=DIR")
    if values.all and not (values.config or values.workdir):
        raise InputError("--all needs --config=FILE or --workdir=DIR, whose data are looked at")
    machine.asked(values.device or ())
    if values.json:
        replacing.begin(values.json, "doctor", "--json")
    several = os.environ.get("EVQGAN_DISTRIBUTED") == "1"
    report = Report(held=several)
    report.run("packages", machine.packages)
    report.run("compilers", machine.compilers)
    report.run("driver", machine.driver)
    started = report.run("start", lambda: start(several))
    report.speak(quiet=several and started and sys.modules["jax"].process_index() != 0)
    others = "all" if not started else examined(report, values, rest)
    if values.json and not report.quiet:  # the first process of a run
        files.save_json(values.json, report.as_json())
    failed = report.failed()
    if failed or others:
        number = f"{len(failed)} of {counted(len(report.checks), 'check')}"
        what = f"{number} failed: {', '.join(failed)}" if failed else f"{others} failed a check"
        raise Unfit(f"{what}; what to do stands in their lines above")
    say(f"all is well, in {counted(len(report.checks), 'check')}")


def start(several: bool) -> None:
    """Start JAX as evqgan.main does, and import what the other checks need."""
    compilation_cache.enable()
    try:
        cli.start_jax(several)
    except InputError as error:
        asked = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
        builds = {"cuda": "cuda13", "gpu": "cuda13", "tpu": "tpu"}
        hint = f'pip install "jax[{builds[asked]}]", or ' if asked in builds else ""
        raise Wrong(f"{error}: {hint}unset JAX_PLATFORMS to see what there is") from error
    for name in ("devices", "experiment"):
        importlib.import_module(f"evqgan.doctor.{name}")


def examined(report: Report, values: Any, rest: list[str]) -> str:
    """Run the checks that need JAX; return which other processes of the run failed one, or ""."""
    from evqgan.core import processes
    from evqgan.doctor import devices, experiment

    workdir = values.workdir or config_files.default_workdir(values.config or "")
    report.run("processes", lambda: devices.several(values.workdir or ""))
    report.run("devices", lambda: devices.found(*machine.asked(values.device or ())))
    report.run("products", devices.products)
    report.run("compiling", devices.compiling)
    report.run("weights", experiment.weights_there)
    if not (values.config or values.workdir):
        report.run("memory", lambda: room_here(pathlib.Path.cwd()))
        return processes.others_failed(bool(report.failed()))
    read: list[Any] = []
    given = values.config, values.workdir, rest
    is_read = report.run("config", lambda: read.append(experiment.read(*given)))
    if is_read and not values.config and experiment.is_model(workdir):
        report.run("model", lambda: experiment.loaded(read[0], workdir))
    elif is_read:
        experiment.check(report, read[0], workdir, values.all)
    return processes.others_failed(bool(report.failed()))


def room_here(place: pathlib.Path) -> str:
    """Say how much memory and disk there are."""
    total, free = machine.memory()
    disk = space.free(place) / space.GIB
    memory = f"{free / space.GIB:,.1f} of {total / space.GIB:,.1f} GiB free"
    return f"{memory}; disk {disk:,.1f} GiB free in {place}"


if __name__ == "__main__":
    sys.exit(signals.leave(main()))
