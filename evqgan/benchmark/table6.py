"""Memory of one training step of the generator, by resolution (paper, Table 6).

The step is the one that training compiles, on a token cache: parameters, averages, Adam's moments,
gradients and all that is computed on the way; no tokenizer. On a CPU it is compiled and not run:
argument + output + temp - alias bytes of the compiler. On an accelerator it also runs, and the
allocator tells its peak.
"""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan.core import mesh
from evqgan.core.cli import CONFIG_KEYS, TEXT, Flag, whole
from evqgan.core.config_files import SHIPPED, override, read_file
from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import stage2
from evqgan.training.prepare import jitted

# Unconditional, as Table 6's parameters are; positions that do not grow with the grid.
CONFIG = f"{SHIPPED / 'configs' / 'ffhq_stage2.py'}:1024"
PUBLISHED = {32: 5560, 64: 14154, 128: 58096}  # MiB: Table 6, batch 1, float32
ROWS = ((32, "all"), (64, "all"), (128, "all"), (128, "1"))
# A tokenizer only fixes the grid and the codebook's size here: f = 16 and 1024 codes, as in every
# stage 2 of configs/.
CODER = {"name": "swin", "width": 8, "depths": (2, 2, 2), "window": 8, "head_dim": 8}
TOKENIZER = {
    "encoder": CODER,
    "decoder": CODER,
    "quantizer": {"name": "vq", "codes": 1024, "width": 8},
}
GIB = 2**30


FLAGS = (
    Flag("config", TEXT, (), "FILE[:variant] of a stage 2 (ffhq_stage2:1024)", CONFIG),
    CONFIG_KEYS,
    Flag("latent", whole(), (), "side of the token grid; may come several times", repeated=True),
    Flag("blocks", TEXT, (), "target blocks: all, or a number; several times", repeated=True),
    Flag("attention", TEXT, (), "prefix or joint (prefix)", "prefix"),
    Flag("extend", whole(), (), "E_s (default: the config's)"),
    Flag("batch", whole(), (), "images a step (1)", 1),
    Flag("dtype", TEXT, (), "of the heavy products: bfloat16 or float32 (bfloat16)", "bfloat16"),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each grid and number of blocks."""
    cases: tuple[tuple[int, str], ...] = ROWS
    if given.latent or given.blocks:
        sides = given.latent or PUBLISHED
        cases = tuple((side, blocks) for blocks in given.blocks or ["all"] for side in sides)
    found = []
    for side, blocks in cases:
        like, init, update, batch = step(configured(given, overrides, side, blocks))
        compiled = update.lower(like, batch).compile()
        row = row_of(given, side, blocks, like, by_compiler(compiled))
        print(f"{side} x {side} tokens, blocks {blocks}: {row['gib']:.2f} GiB", flush=True)
        found.append((row, init, compiled, batch))
    if jax.default_backend() != "cpu":  # the allocator's peak never falls
        for row, *parts in sorted(found, key=lambda entry: entry[0]["bytes"]):
            row |= by_allocator(*parts)
    return "memory of one training step", [row for row, *_ in found]


def row_of(given: Any, side: int, blocks: str, like: Any, used: int) -> dict[str, Any]:
    """Return a row.

    side: of the token grid.
    blocks: "all", or a number.
    like: the shapes of the state.
    used: bytes of the step.
    """
    published = PUBLISHED.get(side) if blocks == "all" and given.batch == 1 else None
    return {
        "system": "ours",
        "attention": given.attention,
        "blocks": blocks if blocks == "all" else int(blocks),
        "latent": side,
        "batch": given.batch,
        "dtype": given.dtype,
        "parameters": sum(x.size for x in jax.tree.leaves(like["params"])),
        "bytes": used,
        "measured_by": "compiler",
        "gib": used / GIB,
        "state_gib": size(like) / GIB,
        "published_gib": published and published / 1024,
    }


def configured(given: Any, overrides: list[str], side: int, blocks: str) -> ConfigDict:
    """Return the config of a row."""
    config = read_file(given.config)
    if config.stage != "stage2":
        what = f"{given.config} is of {config.stage}"
        raise InputError(f"table6 measures the training of a generator, {what}")
    override(config, overrides)
    if blocks != "all" and not (blocks.isdecimal() and int(blocks)):
        raise InputError(f"expected --blocks=all, or a number from 1, got {blocks!r}")
    if given.dtype not in ("bfloat16", "float32"):
        raise InputError(f"expected --dtype=bfloat16 or float32, got {given.dtype!r}")
    if min(given.batch, side) < 1:
        least = "a batch and a grid of at least 1"
        raise InputError(f"expected {least}, got {given.batch} and {side}")
    with config.unlocked():
        config.tokenizer = {"weights": "random", "model": TOKENIZER}
        config.dataset = {"name": "generated", "size": side * tokenizers.make(TOKENIZER).factor}
        config.dtype, config.batch_size = given.dtype, given.batch
        config.generator.attention = given.attention
        config.loss.targets = 0 if blocks == "all" else int(blocks)
        if given.extend is not None:
            config.generator.extend = given.extend
    return config


def step(config: ConfigDict) -> tuple[Any, Any, Any, Any]:
    """Return what `prepare.jitted` makes of the stage without its tokenizer, and a batch of ids.

    The former is the shapes of the state, init, and update.
    """
    stage = stage2.make(config, examples=10**6)
    height = config.dataset.size // tokenizers.make(TOKENIZER).factor

    def init() -> dict[str, Any]:
        return {key: value for key, value in stage.init().items() if key != "tokenizer"}

    def update(state: Any, batch: Any) -> tuple[dict[str, Any], Any]:
        state, metrics = stage.update({**state, "tokenizer": {}}, batch)
        return {key: value for key, value in state.items() if key != "tokenizer"}, metrics

    device_mesh = mesh.make(devices=jax.devices()[:1])
    ids = np.zeros((config.batch_size, height, height, 1), np.int32)
    batch = mesh.put({"ids": ids, "label": np.zeros(config.batch_size, np.int32)}, device_mesh)
    return *jitted(SimpleNamespace(init=init, update=update), device_mesh), batch


def by_compiler(compiled: Any) -> int:
    """Return the bytes that a compiled program needs."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return int(used - memory.alias_size_in_bytes)


def by_allocator(init: Any, compiled: Any, batch: Any) -> dict[str, Any]:
    """Take two steps, and return {"bytes", "gib", "measured_by"} by the allocator.

    It is empty where the allocator does not count.
    """
    state = init()
    for _ in range(2):
        state, metrics = compiled(state, batch)
    jax.block_until_ready(metrics)
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if not peak:
        return {}
    return {"bytes": peak, "gib": peak / GIB, "measured_by": "allocator"}


def size(tree: Any) -> int:
    """Return the bytes of a tree of arrays or shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
