"""One real training step of a tokenizer: parameters, memory, seconds.

Images are generated, frozen networks untrained.
"""

import resource
import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan.core import build, mesh
from evqgan.core.cli import CONFIG_KEYS, SWITCH, TEXT, Flag, whole
from evqgan.core.config_files import override, read_file
from evqgan.core.errors import InputError
from evqgan.core.progress import announced
from evqgan.core.space import GIB
from evqgan.data import generated
from evqgan.data.dataset import Dataset
from evqgan.training.prepare import jitted

MIB = 2**20
DTYPES = ("bfloat16", "float32")  # of the heavy products

FLAGS = (
    Flag("config", TEXT, (), "FILE[:variant] of a tokenizer", required=True),
    CONFIG_KEYS,
    Flag("batch", whole(1), (), "images a step, all devices together (1)", 1),
    Flag("compile_only", SWITCH, (), "compile the step, do not run it"),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the one row."""
    config = configured(given, overrides)
    with announced(f"compiling the training step of {given.config}"):
        like, init, update, batch = prepared(config)
        began = time.perf_counter()
        compiled = update.lower(like, batch).compile()
        seconds = time.perf_counter() - began
    used = by_compiler(compiled)
    row = {
        "config": given.config,
        "batch": given.batch,
        "dtype": str(config.dtype),
        "parameters": sum(x.size for x in jax.tree.leaves(like["params"])),
        "bytes": used,
        "state_gib": size(like) / GIB,
        "step_gib": used / GIB,
        "compile_seconds": seconds,
    }
    if not given.compile_only:
        with announced("taking two steps"):
            row |= taken(init, compiled, batch)
    return f"one training step of {given.config}", [row]


def prepared(config: ConfigDict) -> tuple[Any, Any, Any, Any]:
    """Return the shapes of the state, init and update of a stage 1, and a batch."""
    height, width = build.call(Dataset, config.dataset, "config.dataset").shape
    device_mesh = build.call(mesh.make, config.get("mesh", {}), "config.mesh")
    stage = build.module("training", config.stage, "config.stage").make(config, 10**6)
    images = np.stack([generated.draw(i, 0, (height, width)) for i in range(config.batch_size)])
    labels = np.zeros(config.batch_size, np.int32)
    batch = mesh.put({"image": images, "label": labels}, device_mesh)
    return *jitted(stage, device_mesh), batch


def configured(given: Any, overrides: list[str]) -> ConfigDict:
    """Return the config whose step is measured."""
    config = read_file(given.config)
    override(config, overrides)
    if config.stage != "stage1":
        what = f"{given.config} is of {config.stage}"
        raise InputError(f"step measures the training of a tokenizer, {what}")
    with config.unlocked():
        config.batch_size = given.batch
        for part in ("perceptual", "adversarial"):  # which weights does not change what they cost
            if config.get(part):
                config[part] = {**config[part].to_dict(), "weights": "random"}
        if config.get("adversarial"):  # the step in which all of it takes part
            keys = config.adversarial.to_dict()
            config.adversarial = {**keys, "start": "0 steps", "ramp": "0 steps"}
    return config


def taken(init: Any, compiled: Any, batch: Any) -> dict[str, Any]:
    """Take two steps, and return what the row says of the second one and of the memory.

    init: returns a new state.
    compiled: the step.
    """
    state, metrics = compiled(init(), batch)
    jax.block_until_ready(metrics)
    began = time.perf_counter()
    state, metrics = compiled(state, batch)
    row = {"loss": float(metrics["loss"]), "skipped": int(metrics["skipped"])}
    row["step_seconds"] = time.perf_counter() - began
    statistics = jax.devices()[0].memory_stats() or {}
    unit = 1 if sys.platform == "darwin" else 1024
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    row["peak_gib"] = statistics.get("peak_bytes_in_use", of_process) / GIB
    return {**row, "peak_by": "allocator" if statistics else "process"}


def by_compiler(compiled: Any) -> int:
    """Return the bytes that a compiled program needs."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return int(used - memory.alias_size_in_bytes)


def size(tree: Any) -> int:
    """Return the bytes of a tree of arrays or shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
