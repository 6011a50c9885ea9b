"""Block size and steps in a block against quality (paper, Fig. 8).

--workdir=[NAME=]PATH ...: trained generators of ours with different W_s, each sampled with each T.
Without them ours is trained small with W_s 2, 4 and 8 on bundled digits of 8x8 tokens, of which one
block of 8 is the whole: some five minutes, and as long for the samples. T is at most the number of
a block's tokens. The picture is OUT/fig8.png.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from evqgan.benchmark import beside, charts, generation
from evqgan.benchmark.charts import Chart, Line
from evqgan.benchmark.published import FIGURES
from evqgan.benchmark.small import Small
from evqgan.core import pictures
from evqgan.core.cli import Flag, whole
from evqgan.core.errors import InputError

WINDOWS = (2, None, 8)  # of small systems; None: 4, as in the other tables
STEPS = (1, 2, 4, 8, 16)
QUALITY = ("fid", "frechet_pixels")  # the first that all rows have is drawn
CALLED = {"fid": "FID", "frechet_pixels": "Frechet distance of colours at 8x8"}

FLAGS = (
    *generation.FLAGS,
    Flag("steps", whole(1), (), "T; several times (1, 2, 4, 8 and 16)", repeated=True),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each block size and T."""
    systems = [Small("efficient_vqgan", given.data, window=window) for window in WINDOWS]
    cases, scale = generation.chosen(given, systems)
    rows: list[dict[str, Any]] = []
    for case in cases:
        window = case.model.config.generator.get("window")
        if case.model.config.generator.name != "multigrained":
            raise InputError(f"{case.name} has no blocks: give the workdirs of our generators")
        for steps in given.steps or STEPS:
            if steps <= window**2:
                numbers, card, _ = generation.measured(given, case, steps=steps)
                about = {"system": case.name, "window": window, "steps": steps}
                rows.append({**about, **numbers, "card": card})
    rows += generation.real_rows(cases)
    file = pathlib.Path(given.out) / "fig8.png"
    pictures.save_png(file, picture(rows))
    print(f"quality by block size and steps: {file}")
    title = f"Fig. 8: block size and steps in a block; {scale}"
    return f"{title} ({FIGURES['fig8']})", beside.aligned(
        [{"from": beside.OURS, **r} for r in rows]
    )


def picture(rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Return two charts, as in the paper: quality by block size at T = 8 or as near, and by T."""
    mine = [row for row in rows if row.get("window")]
    key = next(key for key in QUALITY if all(row.get(key) is not None for row in mine))
    windows = sorted({row["window"] for row in mine})
    nearest = []
    for window in windows:
        of_window = [row for row in mine if row["window"] == window]
        nearest.append(min(of_window, key=lambda row: (abs(row["steps"] - 8), row["steps"])))
    y = [row[key] for row in nearest]
    left = Chart(
        "Block size, T = 8 or all of a block", "W_s", CALLED[key], [Line("ours", windows, y)], True
    )
    lines = []
    for colour, window in enumerate(windows):
        of_window = sorted((r for r in mine if r["window"] == window), key=lambda r: r["steps"])
        points = [r["steps"] for r in of_window], [r[key] for r in of_window]
        lines.append(Line(f"W_s = {window}", *points, colour))
    right = Chart("Steps in a block", "T", CALLED[key], lines, True)
    return pictures.row([charts.draw(left), charts.draw(right)], gap=16)
