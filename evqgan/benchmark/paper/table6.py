"""Memory and time of one training step of a generator, by resolution (paper, Table 6).

The step is the one that training compiles, on stored ids: parameters, averages, Adam's moments,
gradients and all that is computed on the way; no tokenizer. On a CPU it is compiled and not run
(--timed runs it): argument + output + temp - alias bytes of the compiler. On an accelerator it also
runs, and the allocator tells its peak. All systems at full size take half an hour on two CPU cores,
ours alone (--system=ours) two minutes.
"""

import time
from typing import Any, get_args

import jax
from ml_collections import ConfigDict

from evqgan.benchmark.generator_step import CODER, CONFIG, TOKENIZER, prepared
from evqgan.benchmark.paper import beside, small
from evqgan.benchmark.paper.published import TABLE6
from evqgan.benchmark.step import DTYPES, MIB, by_compiler, size
from evqgan.core import build, progress
from evqgan.core.cli import CONFIG_KEYS, SWITCH, TEXT, Flag, choice, whole
from evqgan.core.config_files import SHIPPED, override, read_file
from evqgan.core.errors import InputError
from evqgan.generators.multigrained_network import AttentionMask

SIDES = (32, 64, 128)  # of the token grids of Table 6
BLOCKS = ((128, "1"),)  # and ours with one target block
# The other systems: config, codes. Of RQ-VAE a position has four codes, and is of 32x32 pixels: as
# many codes an image.
OTHERS = {
    "VQGAN": ("vqgan_imagenet_stage2", 16384),
    "VIM-Base": ("vim_imagenet_stage2", 8192),
    "MaskGIT": ("maskgit_imagenet_stage2", 1024),
    "RQ-Transformer": ("rqtransformer_imagenet_stage2:1400m", 16384),
}
OURS = "ours"
RESIDUAL = 4  # codes of a position of RQ-VAE

FLAGS = (
    Flag("system", TEXT, (), "ours, VQGAN, VIM-Base, ...; several times (all)", repeated=True),
    Flag(
        "config",
        TEXT,
        (),
        "of ours: FILE[:variant] of a stage 2 (ffhq_stage2:1024)",
        CONFIG,
    ),
    CONFIG_KEYS,
    Flag("latent", whole(1), (), "side of the token grid; several times", repeated=True),
    Flag("blocks", TEXT, (), "ours: target blocks, all or a number; several times", repeated=True),
    Flag("attention", choice(*get_args(AttentionMask)), (), "of ours (prefix)", "prefix"),
    Flag("extend", whole(0), (), "ours: E_s (default: the config's)"),
    Flag("batch", whole(1), (), "images a step (1)", 1),
    Flag("dtype", choice(*DTYPES), (), "of the heavy products (bfloat16)", "bfloat16"),
    Flag("timed", SWITCH, (), "run the step on a CPU, too"),
    small.OUT,
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: the paper's, and one for each system, grid and blocks."""
    found = []
    # All configs first: what is wrong with the last is said before the first is compiled.
    asked = [(case, configured(given, overrides, *case)) for case in cases(given)]
    for (system, side, blocks), config in asked:
        text = f"{system}, {side}x{side} tokens{f', blocks {blocks}' if blocks else ''}"
        with progress.announced(f"compiling {text}"):
            like, init, update, batch = prepared(config)
            compiled = update.lower(like, batch).compile()
        row = row_of(given, system, side, blocks, like, by_compiler(compiled))
        progress.say(f"{text}: {row['mib']:,} MiB")
        if given.timed or jax.default_backend() != "cpu":
            # The allocator's peak never falls: the least comes first.
            found.append((row, init, compiled, batch))
        else:
            found.append((row, None, None, None))
    for row, *parts in sorted(found, key=lambda entry: entry[0]["mib"]):
        if parts[0]:
            row |= taken(*parts)
    what = "full-size models, untrained, on stored ids"
    return f"{TABLE6.name}, {TABLE6.title}; measured here: {what}", beside.beside(
        TABLE6, (r for r, *_ in found)
    )


def cases(given: Any) -> list[tuple[str, int, str]]:
    """Return (system, side of the grid, target blocks or "") of each row.

    Raises InputError for a system that there is not, and for blocks that are no number.
    """
    for blocks in given.blocks or ():
        if blocks != "all" and not (blocks.isdecimal() and int(blocks)):
            raise InputError(f"expected --blocks=all, or a number from 1, got {blocks!r}")
    systems = given.system or [*OTHERS, OURS]
    for system in systems:
        if system != OURS and system not in OTHERS:
            hint = build.suggestion(system, [*OTHERS, OURS])
            raise InputError(f"there is no system {system!r}: {hint}")
    found = []
    for system in systems:
        sides = given.latent or SIDES
        if system != OURS:
            found += [(system, side, "") for side in sides]
            continue
        found += [(OURS, side, blocks) for blocks in given.blocks or ["all"] for side in sides]
        if not given.latent and not given.blocks:
            found += [(OURS, *case) for case in BLOCKS]
    return found


def row_of(given: Any, system: str, side: int, blocks: str, like: Any, used: int) -> dict[str, Any]:
    """Return a row.

    side: of the token grid.
    blocks: "all", a number, or "" of a system without blocks.
    like: the shapes of the state.
    used: bytes of the step.
    """
    about: dict[str, Any] = {"batch": given.batch, "weights": "untrained"}
    about["remat"] = "as in the config"
    if system == OURS:
        about["attention"] = given.attention
    return {
        "system": system,
        "parameters": sum(x.size for x in jax.tree.leaves(like["params"])),
        "latent": side,
        "mib": round(used / MIB),
        "state_mib": round(size(like) / MIB),
        "blocks": int(blocks) if blocks.isdecimal() else blocks or None,
        "measured_by": "compiler",
        "seconds": None,
        "card": beside.card_of(given.dtype, **about),
    }


def configured(given: Any, overrides: list[str], system: str, side: int, blocks: str) -> ConfigDict:
    """Return the config of a row."""
    config = ours(given, blocks) if system == OURS else other(system)
    override(config, overrides)
    with config.unlocked():
        config.dtype, config.batch_size = given.dtype, given.batch
        config.optimizer.accumulate = 1
        if system == OURS:
            config.tokenizer = {"weights": "random", "model": TOKENIZER}
        config.dataset = {"name": "generated", "size": 16 * side}
    return config


def ours(given: Any, blocks: str) -> ConfigDict:
    """Return the config of ours, --config, with the flags that are of it."""
    config = read_file(given.config)
    if config.stage != "stage2":
        what = f"{given.config} is of {config.stage}"
        raise InputError(f"table6 measures the training of a generator, {what}")
    with config.unlocked():
        config.generator.attention = given.attention
        config.loss.targets = 0 if blocks == "all" else int(blocks)
        if given.extend is not None:
            config.generator.extend = given.extend
    return config


def other(system: str) -> ConfigDict:
    """Return the config of another system, unconditional, on a tokenizer that says its codes."""
    name, codes = OTHERS[system]
    file, _, variant = name.partition(":")
    config = read_file(f"{SHIPPED / 'configs' / 'baselines' / file}.py:{variant}")
    coder, quantizer = CODER, {"name": "vq", "codes": codes, "width": 8}
    if config.generator.name == "rqtransformer":
        coder = {**CODER, "depths": (2, 2, 2, 2)}
        quantizer = {"name": "residual", "codes": codes, "width": 256, "depth": RESIDUAL}
    model = {"encoder": coder, "decoder": coder, "quantizer": quantizer}
    with config.unlocked():
        config.tokenizer = {"weights": "random", "model": model}
        config.generator.classes = 0
    return config


def taken(init: Any, compiled: Any, batch: Any) -> dict[str, Any]:
    """Take two steps; return "seconds" of the second, and "mib" of an allocator that counts."""
    state, metrics = compiled(init(), batch)
    jax.block_until_ready(metrics)
    began = time.perf_counter()
    state, metrics = compiled(state, batch)
    jax.block_until_ready(metrics)
    seconds = time.perf_counter() - began
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    counted = {"mib": round(peak / MIB), "measured_by": "allocator"} if peak else {}
    return {"seconds": seconds, **counted}
