"""Block size and steps in a block against quality (paper, Fig. 8).

--workdir=[NAME=]PATH ...: trained generators of ours with different W_s, each sampled with each T;
those of one NAME and one W_s are runs of one system, and all are of one data set, size and token
grid. Without them ours is trained small with W_s 2, 4 and 8 on bundled digits of 8x8 tokens, of
which one block of 8 is the whole: some five minutes a seed, and as long for the samples. T is at
most the number of a block's tokens. The picture is OUT/fig8.png; of several runs it shows means,
and their standard deviations as bars.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evqgan.benchmark import runs
from evqgan.benchmark.paper import beside, charts, generation, small, workdirs
from evqgan.benchmark.paper.charts import Chart, Line
from evqgan.benchmark.paper.generation import Case
from evqgan.benchmark.paper.published import FIGURES
from evqgan.benchmark.paper.small import Small
from evqgan.core import pictures, progress
from evqgan.core.cli import Flag, whole
from evqgan.core.errors import InputError

WINDOWS = (2, None, 8)  # of small systems; None: 4, as in the other tables
STEPS = (1, 2, 4, 8, 16, 32)
COLOURS = "frechet_pixels"
CALLED = {"fid": "FID", COLOURS: "Frechet distance of colours at 8x8"}

FLAGS = (
    *generation.FLAGS,
    Flag("steps", whole(1), (), "T; several times (1, 2, 4, 8, 16 and 32)", repeated=True),
    small.SEEDS,
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each system, block size and T."""
    seeds = range(given.seeds)
    ours = [(window, seed) for window in WINDOWS for seed in seeds]
    systems = [Small("efficient_vqgan", given.data, window=w, seed=seed) for w, seed in ours]
    cases, scale = generation.chosen(given, systems)
    if given.workdir:
        workdirs.check_alike([(case.name, case.model) for case in cases])
    rows: list[dict[str, Any]] = []
    for (name, window), of_window in alike(cases).items():
        for steps in given.steps or STEPS:
            if steps <= window**2:
                found = measured(given, of_window, steps)
                real = found["card"]["real"]
                about = {"system": name, "data": real["source"], "size": real["size"][0]}
                rows.append({**about, "window": window, "steps": steps, **found})
    if not rows:
        most = max(window for _, window in alike(cases)) ** 2
        raise InputError(f"--steps={min(given.steps)}: T is at most a block's tokens, here {most}")
    rows += generation.real_rows(cases)
    file = pathlib.Path(given.out) / "fig8.png"
    mine = [row for row in rows if row.get("window")]
    if key := drawn(mine):
        pictures.save_png(file, picture(mine, key), {"mode": "fig8"})
        print(f"quality by block size and steps: {file}")
    else:
        progress.warn("nothing is drawn, as no distance was measured of all: give --features=NAME")
    title = f"Fig. 8: block size and steps in a block; {scale}"
    return f"{title} ({FIGURES['fig8']})", beside.aligned(
        [{"from": beside.OURS, **r} for r in rows]
    )


def alike(cases: Iterable[Case]) -> dict[tuple[str, int], list[Case]]:
    """Return the cases by name and W_s; InputError for a generator that has no blocks."""
    found: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        keys = case.model.config.generator
        if keys.name != "multigrained":
            raise InputError(f"{case.name} has no blocks: give the workdirs of our generators")
        found.setdefault((case.name, keys.window), []).append(case)
    return found


def measured(given: Any, cases: Sequence[Case], steps: int) -> dict[str, Any]:
    """Return the numbers of samples with T = steps, and their card.

    Of several runs they are {name: mean, name_sd: standard deviation, "seeds": how many}.
    """
    found = [generation.measured(given, case, steps=steps)[:2] for case in cases]
    numbers = [of_case for of_case, _ in found]
    row = dict(numbers[0])
    if len(cases) > 1:
        for key in numbers[0]:
            row |= runs.mean_and_sd(key, [of_case[key] for of_case in numbers])
        row["seeds"] = len(cases)
    return {**row, "card": runs.together([card for _, card in found])}


def picture(mine: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return two charts, as in the paper: quality by block size at T = 8 or as near, and by T.

    mine: the rows of ours. key: of quality, see `drawn`.
    """
    called = CALLED.get(key, key.replace("_", " "))
    windows = sorted({row["window"] for row in mine})
    nearest = []
    for window in windows:
        of_window = [row for row in mine if row["window"] == window]
        nearest.append(min(of_window, key=lambda row: (abs(row["steps"] - 8), row["steps"])))
    line = line_of("ours", windows, nearest, key)
    left = Chart("Block size, T = 8 or all of a block", "W_s", called, [line], True)
    lines = []
    for colour, window in enumerate(windows):
        of_window = sorted((r for r in mine if r["window"] == window), key=lambda r: r["steps"])
        points = [row["steps"] for row in of_window]
        lines.append(line_of(f"W_s = {window}", points, of_window, key, colour))
    right = Chart("Steps in a block", "T", called, lines, True)
    return pictures.row([charts.draw(left), charts.draw(right)], gap=16)


def drawn(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return which number is drawn: FID, else a distance by a network's features, else colours.

    None: all rows have none of these, as of a data set that is too large for colours.
    """
    by_features = [key for key in rows[0] if key.startswith("frechet_") and key[-3:] != "_sd"]
    keys = ("fid", *(key for key in by_features if key != COLOURS), COLOURS)
    return next((key for key in keys if all(row.get(key) is not None for row in rows)), None)


def line_of(
    name: str, x: Sequence[float], rows: Sequence[Mapping[str, Any]], key: str, colour: int = 0
) -> Line:
    """Return the line of a number of rows, with the standard deviations that they have."""
    bars = [row.get(f"{key}_sd") or 0.0 for row in rows]
    return Line(name, x, [row[key] for row in rows], colour, bars=bars)
