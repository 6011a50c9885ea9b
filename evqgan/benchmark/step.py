"""One real training step of a config: parameters, memory, seconds. Images are generated, frozen networks untrained."""

import resource
import sys
import time

import jax
import numpy as np

from evqgan.core import build, mesh
from evqgan.core.config_files import OVERRIDE, override, read_file
from evqgan.core.errors import InputError
from evqgan.data import generated, pipeline
from evqgan.training.setup import jitted

GIB = 2**30


def arguments(parser):
    """The flags."""
    parser.add_argument("--config", required=True, help="FILE[:variant]; --config.key=value changes a key of it")
    parser.add_argument("--batch", type=int, default=1, help="images a step, all devices together")
    parser.add_argument("--compile_only", action="store_true", help="compile the step, do not run it")


def run(given, rest):
    """-> title, one row."""
    for arg in rest:
        if not OVERRIDE.match(arg):
            raise InputError(f"there is no flag {arg}; see --help")
    config = read_file(given.config)
    override(config, rest)
    if config.stage != "stage1":
        raise InputError(f"step measures the training of a tokenizer, {given.config} is of {config.stage}")
    with config.unlocked():
        config.batch_size = given.batch
        for part in ("perceptual", "adversarial"):  # which weights does not change what they cost
            if config.get(part):
                config[part] = {**config[part].to_dict(), "weights": "random"}
        if config.get("adversarial"):  # the step in which all of it takes part
            config.adversarial = {**config.adversarial.to_dict(), "start": "0 steps", "ramp": "0 steps"}
    height, width = build.call(pipeline.Dataset, config.dataset, "config.dataset").shape
    device_mesh = build.call(mesh.make, config.get("mesh", {}), "config.mesh")
    stage = build.module("training", config.stage, "config.stage").make(config, 10**6)
    like, init, update = jitted(stage, device_mesh)

    images = np.stack([generated.draw(i, 0, (height, width)) for i in range(given.batch)])
    batch = mesh.put({"image": images, "label": np.zeros(given.batch, np.int32)}, device_mesh)
    began = time.perf_counter()
    compiled = update.lower(like, batch).compile()
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    used += memory.output_size_in_bytes - memory.alias_size_in_bytes
    row = {
        "config": given.config, "batch": given.batch, "dtype": str(config.dtype),
        "parameters": sum(x.size for x in jax.tree.leaves(like["params"])), "bytes": int(used),
        "state_gib": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like)) / GIB,
        "step_gib": used / GIB, "compile_seconds": seconds,
    }  # fmt: skip
    if not given.compile_only:
        state, metrics = compiled(init(), batch)
        jax.block_until_ready(metrics)
        began = time.perf_counter()
        state, metrics = compiled(state, batch)
        row["loss"], row["skipped"] = float(metrics["loss"]), int(metrics["skipped"])
        row["step_seconds"] = time.perf_counter() - began
        statistics = jax.devices()[0].memory_stats() or {}
        unit = 1 if sys.platform == "darwin" else 1024
        peak = statistics.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
        row["peak_gib"] = peak / GIB
        row["peak_by"] = "allocator" if statistics else "process"
    return f"one training step of {given.config}", [row]
