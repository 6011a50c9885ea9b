"""How long a training will take: a few real steps of both stages are taken, and forgotten."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import build, mesh, processes
from evqgan.core.progress import counted, duration, heartbeat
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.training import stage as stages
from evqgan.training.prepare import jitted, jitted_update, rows_of
from evqgan.training.run_length import RunLength

LEAST, SECONDS = 2, 4.0  # ours: steps that are timed, and after so many seconds no further ones
SHORT = 30  # ours: a training of fewer steps is over sooner than it is timed
FORWARD = 3  # a step takes about three times as long as the forward pass in it


def estimate(config: ConfigDict, device: str, log: Callable[[str], None]) -> float:
    """Say how long a pair of stages will take on this device, and return the seconds.

    config: of a quickstart, complete, of which nothing is trained yet. Programs that are compiled
    here are kept, so that the training finds them.
    """
    dataset = build.call(Dataset, config.tokenizer.dataset, "config.dataset")
    source = pipeline.open_split(dataset, dataset.train)
    held = len(pipeline.open_split(dataset, dataset.validation))
    parts, forward = [], 0.0  # the latter: seconds of an image in a forward pass
    for name in ("tokenizer", "generator"):
        part = of_part(config, name, len(source.class_names))
        length = RunLength.of(part, len(source))
        if length.total < SHORT:
            log(f"{name}: {counted(length.total, 'step')}: too few to be timed")
            return 0.0
        size = counted(part.batch_size, "image")
        log(f"timing a few steps of the {name}, of {size} each, which are compiled once for all")
        with heartbeat(f"timing the {name}", log):
            first, complete, early = timed(part, len(source), len(source.class_names))
        early = min(early, length.total)
        training = early * first + (length.total - early) * complete
        forward = complete / part.batch_size / FORWARD
        evaluations = length.total // max(1, length.steps(part.eval_every)) + 1
        parts.append((name, length.total, training, evaluations * held * forward))
    # The generator, the last of both, samples.
    sampled = config.samples * passes(config.generator, config.tokenizer) * forward
    for name, steps, training, _ in parts:
        log(f"{name}: {counted(steps, 'step')} take about {duration(training)}")
    total = sampled + sum(training + rest for _, _, training, rest in parts)
    log(
        f"together with samples and evaluation about {duration(total)} on this device, {device}, "
        "and what compiling takes"
    )
    return total


def lengths(config: ConfigDict, images: int) -> list[str]:
    """Return how long both stages train, a line each; images: of the training set."""
    found = []
    for name in ("tokenizer", "generator"):
        length = RunLength.of(config[name], images)
        found.append(
            f"{name}: {length.total:,} steps of {counted(length.batch_size, 'image')}: each image "
            f"is seen {length.epochs(length.total):,.3g} times"
        )
    return found


def of_part(config: ConfigDict, name: str, classes: int) -> ConfigDict:
    """Return the resolved config of a stage of the pair, a generator's on an untrained tokenizer.

    classes: of the data.
    """
    part = config[name].copy_and_resolve_references()
    if name == "generator":
        with part.unlocked():
            model, dtype = config.tokenizer.tokenizer, config.tokenizer.dtype
            part.tokenizer = {"weights": "random", "model": model, "dtype": dtype}
    return stages.module(part).resolve(part, classes)


def timed(config: ConfigDict, examples: int, classes: int) -> tuple[float, float, int]:
    """Return the seconds of an early step and of a complete one, and how many are early.

    See `stage.Stage.early_steps`. A step takes as long as its images are read where that is slower.
    """
    stage = stages.module(config).make(config, examples, classes)
    device_mesh = build.call(mesh.make, config.get("mesh", {}), "config.mesh")
    compiled = jitted(stage, device_mesh)
    dataset = build.call(Dataset, config.dataset, "config.dataset")
    rows = rows_of(config, device_mesh)
    batches = pipeline.train_batches(dataset, config.batch_size, config.seed, 0, rows)

    def seconds(update: Any) -> float:
        """Return those of a step, compiled before: the mean of a few."""
        state, taken, began = compiled.init(), -1, 0.0
        # As many on every process, which take each step together, however their clocks go.
        while processes.agreed(taken < LEAST or time.perf_counter() - began < SECONDS):
            batch = mesh.put(next(batches), device_mesh, config.batch_size)
            state, metrics = update(state, batch)
            jax.block_until_ready(metrics)
            taken += 1
            if not taken:
                began = time.perf_counter()
        return (time.perf_counter() - began) / taken

    try:
        complete = seconds(compiled.update)
        early = complete
        if stage.early_steps:
            early = seconds(jitted_update(stage.early_update, compiled.abstract_state, device_mesh))
        reading = of_reading(batches, dataset.workers)
        return max(early, reading), max(complete, reading), stage.early_steps
    finally:
        batches.close()


def of_reading(batches: Iterator[Any], workers: int) -> float:
    """Return the seconds in which a batch is read, where many are read at a time.

    Those that lie ready, as many as were read while a step was compiled, are used up before. On a
    CPU, which reads and computes, steps were timed with this beside them.
    workers: config.dataset.workers, each of which holds two batches.
    """
    at_a_time = workers or pipeline.threads()
    for _ in range(2 * workers or pipeline.buffered()):
        next(batches)
    began = time.perf_counter()
    for _ in range(at_a_time):
        next(batches)
    return (time.perf_counter() - began) / at_a_time


def passes(generator: ConfigDict, tokenizer: ConfigDict) -> int:
    """Return how many forward passes of a training step an image takes to be sampled, about."""
    steps = generator.get("sample", {}).get("steps", 8)
    if not generator.get("loss", {}).get("targets"):
        return steps
    h, w = models.of_stage1(tokenizer).grid
    return steps * max(1, h * w // generator.generator.window**2)
