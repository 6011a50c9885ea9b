"""Seconds to sample an image's tokens, by block size and resolution (paper, Fig. 9).

Ours with several W_s, a GPT of its size that caches keys and values, and MaskGIT, untrained: speed
does not depend on the weights. All of one resolution are timed in turn. With W_s = 1 ours samples a
token at a time. The full size on an accelerator; on a CPU narrow models of two layers, some ten
minutes. The picture is OUT/fig9.png.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from evqgan.benchmark import device, sampling, timing
from evqgan.benchmark.paper import beside, charts, small
from evqgan.benchmark.paper.charts import Chart, Line
from evqgan.benchmark.paper.published import FIGURES
from evqgan.core import pictures
from evqgan.core.cli import Flag, whole
from evqgan.core.errors import InputError

WINDOWS = (1, 2, 4, 8, 16)
GRIDS = {"cpu": (16, 32)}  # sides of token grids: f = 16
GRIDS_FULL = (16, 32, 64)
STEPS = 8  # of the configs, as the keys of ours
OURS = {"name": "multigrained", "global_tokens": "ordered", "extend": 4}
FACTOR = 16

FLAGS = (
    Flag("latent", whole(1), (), "side of the token grid; several times", repeated=True),
    Flag("window", whole(1), (), "W_s; several times (1, 2, 4, 8 and 16)", repeated=True),
    Flag("layers", whole(1), (), "depth (24, the configs'; on a CPU 2)"),
    Flag("width", whole(1), (), "a multiple of 128 (768, the configs'; on a CPU 384)"),
    Flag("batch", whole(1), (), "images at a time (1)", 1),
    Flag("rounds", whole(1), (), "timed calls of a program (3)", 3),
    small.OUT,
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each system, block size and resolution."""
    sampling.fill(given)
    rows: list[dict[str, Any]] = []
    for side, windows in cases(given):
        print(f"{side}x{side} tokens: compiling {len(windows) + 2} programs", flush=True)
        programs = [program(given, side, {**OURS, "window": w}, steps=steps_of(w)) for w in windows]
        programs += [program(given, side, keys) for keys in device.RIVALS.values()]
        abouts: list[dict[str, Any]] = [{"system": "ours", "window": w} for w in windows]
        abouts += [{"system": name, "window": None} for name in device.RIVALS]
        timed = timing.rows_of(programs, given.rounds, float("inf"))
        for about, found in zip(abouts, timed, strict=True):
            rows.append(row(given, side, about, found))
            last = rows[-1]
            what = f"{last['system']}, W_s {last['window']}" if last["window"] else last["system"]
            print(f"  {what}: {last['seconds_per_image']:.3g} seconds an image", flush=True)
    file = pathlib.Path(given.out) / "fig9.png"
    pictures.save_png(file, picture(rows), {"mode": "fig9"})
    print(f"seconds by block size: {file}")
    model = f"{given.layers} layers of width {given.width}, {device.dtype_here()}, untrained"
    return f"Fig. 9: sampling, {model} ({FIGURES['fig9']})", beside.aligned(rows)


def cases(given: Any) -> list[tuple[int, list[int]]]:
    """Return the sides of token grids, each with those W_s that divide it.

    Raises InputError for a W_s that divides none of them.
    """
    sides = given.latent or GRIDS.get(jax.default_backend(), GRIDS_FULL)
    for window in given.window or ():
        if all(side % window for side in sides):
            given_sides = ", ".join(map(str, sides))
            raise InputError(f"--window={window} divides no token grid's side, here {given_sides}")
    return [(side, [w for w in given.window or WINDOWS if side % w == 0]) for side in sides]


def row(given: Any, side: int, about: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a program that was timed. about: its system and block size."""
    window = about["window"]
    card = beside.card_of(
        device.dtype_here(),
        weights="untrained",
        layers=given.layers,
        width=given.width,
        batch=given.batch,
        timed=f"median of {given.rounds} calls, in turn with those of this resolution",
    )
    if window:
        card |= {"extend": OURS["extend"], "order": "raster"}
    return {
        "from": beside.OURS,
        "system": about["system"],
        "latent": side,
        "size": side * FACTOR,
        "window": window,
        "steps": steps_of(window) if window else STEPS if about["system"] == "MaskGIT" else None,
        "seconds_per_image": found["seconds"] / given.batch,
        "card": card,
    }


def steps_of(window: int) -> int:
    """Return T in a block: no more than it has tokens."""
    return min(STEPS, window**2)


def program(given: Any, side: int, generator: Mapping[str, Any], **sampler: Any) -> timing.Program:
    """Return the program of a generator at this resolution, as deep and wide as asked for.

    generator: its keys in config.generator, others than its size. sampler: those of config.sample.
    """
    config = device.generator_config(small=False)
    keys = {**generator, "layers": given.layers, "width": given.width, "classes": 1000}
    with config.unlocked():
        config.dataset.size = side * FACTOR
        config.generator = ConfigDict({**keys, "heads": given.width // sampling.HEAD})
    return device.drawing(str(generator["name"]), config, given.batch, **sampler)


def picture(rows: list[dict[str, Any]]) -> Any:
    """Return the chart of all rows: ours as lines over W_s, the others as level ones."""
    lines = []
    windows = sorted({row["window"] for row in rows if row["window"]})
    for colour, side in enumerate(dict.fromkeys(row["latent"] for row in rows)):
        found = [row for row in rows if row["latent"] == side]
        mine = [row for row in found if row["window"]]
        y = [row["seconds_per_image"] for row in mine]
        lines.append(Line(f"ours, {side}x{side} tokens", [r["window"] for r in mine], y, colour))
        for style, other in zip(("dashed", "dotted"), found[len(mine) :], strict=True):
            level = [other["seconds_per_image"]] * 2
            ends = [windows[0], windows[-1]]
            lines.append(Line(f"{other['system']}, {side}x{side}", ends, level, colour, style))
    title = "Seconds to sample an image's tokens"
    return charts.draw(Chart(title, "block size W_s", "seconds an image", lines, True, True))
