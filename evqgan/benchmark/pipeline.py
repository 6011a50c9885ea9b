"""Images a second that training reads, by threads and by worker processes, with no model.

Each number of --workers is a value of config.dataset.workers, and 0 is threads. They are measured
in turn, so that a busy moment of the machine meets all of them; rates are medians.

images_s_core: images by seconds of a core that this process and its workers used.
cores: how many of them were busy.
first_seconds: until the first batch was there.
worker_mib: memory of its own that a worker took, the largest.
lowest_to_highest: images a second of single rounds.
"""

import contextlib
import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import psutil

from evqgan.benchmark import runs
from evqgan.core import build
from evqgan.core.cli import CONFIG_KEYS, TEXT, TEXTS, Flag, whole
from evqgan.core.errors import InputError
from evqgan.core.progress import announced
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset

MIB = 2**20
TICK = 0.01  # seconds of a core that Linux tells apart
FLAGS = (
    Flag("config", TEXT, (), "FILE[:variant] whose images of training are read", required=True),
    CONFIG_KEYS,
    Flag("workers", TEXTS, (), "numbers of worker processes (0,1,2)", ["0", "1", "2"]),
    Flag("batch", whole(1), (), "images of a batch (64)", 64),
    Flag("rounds", whole(1), (), "how often each is measured (5)", 5),
    Flag("seconds", whole(1), (), "how long each time (10)", 10),
)


class Measured(NamedTuple):
    """What one round found."""

    rate: float  # images a second
    core: float  # images a second of a core
    first: float  # seconds until the first batch
    memory: float | None  # bytes of the largest worker; None without workers


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title, and a row for each number of workers."""
    config = runs.config_with_data(given.config, overrides)
    dataset = build.call(Dataset, config.dataset, "config.dataset")
    numbers = [number_of(text) for text in dict.fromkeys(given.workers)]
    pipeline.prepare(dataset)
    found: dict[int, list[Measured]] = {number: [] for number in numbers}
    turns = numbers * given.rounds
    what = dataset.codes or dataset.folder or dataset.name
    with announced(f"reading {what}, {len(turns)} times {given.seconds} s") as at:
        for done, number in enumerate(turns, 1):
            of_number = dataclasses.replace(dataset, workers=number)
            found[number].append(measured(of_number, given.batch, given.seconds))
            at(done, len(turns))
    height, width = dataset.shape
    title = f"reading batches of {given.batch} images of {height} x {width}"
    return f"{title}, {psutil.cpu_count()} cores", [row(*entry) for entry in found.items()]


def number_of(text: str) -> int:
    """Return a number of workers as it was typed."""
    if not text.isdecimal():
        raise InputError(f"--workers expects numbers of processes, such as 0,1,2, got {text!r}")
    return int(text)


def measured(dataset: Dataset, batch_size: int, seconds: float) -> Measured:
    """Read for so many seconds, after what is made ahead was taken."""
    began = time.perf_counter()
    with contextlib.closing(pipeline.train_batches(dataset, batch_size, seed=0)) as batches:
        next(batches)
        first = time.perf_counter() - began
        workers = [psutil.Process(pid) for pid in batches.pids()]
        processes = [psutil.Process(), *workers]
        for _ in range(2 * len(workers) or pipeline.threads()):
            next(batches)
        before, began, images = core_seconds(processes), time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            images += len(next(batches)["label"])
        used = core_seconds(processes) - before
        memory = max((worker.memory_full_info().uss for worker in workers), default=None)
    return Measured(images / passed, images / max(used, TICK), first, memory)


def core_seconds(processes: list[psutil.Process]) -> float:
    """Return the seconds of a core that processes used so far."""
    times = [process.cpu_times() for process in processes]
    return sum(spent.user + spent.system for spent in times)


def row(number: int, rounds: list[Measured]) -> dict[str, Any]:
    """Return the row of a number of workers: medians, and the range of the rates."""
    rates = [found.rate for found in rounds]
    memory = [found.memory for found in rounds if found.memory is not None]
    return {
        "workers": number,
        "images_s": statistics.median(rates),
        "images_s_core": statistics.median(found.core for found in rounds),
        "cores": statistics.median(found.rate / found.core for found in rounds),
        "first_seconds": statistics.median(found.first for found in rounds),
        "worker_mib": max(memory) / MIB if memory else None,
        "lowest_to_highest": f"{min(rates):.0f} to {max(rates):.0f}",
    }
