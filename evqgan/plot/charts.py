"""Curves of several runs as one picture: a panel a key, and the panels of each stage together."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.ticks import log_ticks, number, ticks
from evqgan.plot import curves
from evqgan.plot.canvas import BLACK, GREY, PALE_GREY, Canvas, Colour, pale, width_of
from evqgan.plot.curves import Axis, Run

WIDTH, HEIGHT = 300, 190  # ours: of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 28, 26, 26  # ours: its margins
COLUMNS, HEAD, LINE = 4, 30, 18  # ours: panels of a row; what stands above the panels of a stage
LOG = 20.0  # ours: values above 0 of which one is so many times another are on a log scale
LINEAR = "learning_rate"  # but for those whose names end so: they fall to almost 0
SPIKES = (1, 99)  # ours: percentiles between which raw values always are in the panel
COLOURS: tuple[Colour, ...] = (
    (31, 100, 180),
    (215, 100, 20),
    (40, 140, 60),
    (190, 40, 50),
    (120, 80, 170),
    (20, 160, 170),
    (150, 110, 30),
    (200, 80, 150),
)
OF_AXES = {"steps": "steps", "images": "images seen", "hours": "hours of training steps"}
TITLES = {"stage1": "tokenizers (stage 1)", "stage2": "generators (stage 2)", "": "runs"}


class Line(NamedTuple):
    """A curve of a panel: x, y [N], and y smoothed.

    is_held_out: whether it is of held-out data. note: what tells it from others of its colour.
    breaks: the indices of points from which on it was measured otherwise.
    """

    x: np.ndarray
    y: np.ndarray
    smooth: np.ndarray
    is_held_out: bool
    colour: Colour
    note: str = ""
    breaks: Sequence[int] = ()


class Panel(NamedTuple):
    """The curves of a key, those of training and of held-out data."""

    title: str
    lines: list[Line]


def picture(runs: Sequence[Run], keys: Sequence[str], axis: Axis = "steps") -> np.ndarray:
    """Return the curves of runs as a picture, uint8 [H,W,3].

    keys: see `curves.chosen`.

    Raises InputError where there is nothing to draw.
    """
    if not any(run.values for run in runs):
        damage = "; ".join(run.damage for run in runs if run.damage)
        wait = "these runs have no numbers yet: wait for their first lines"
        raise InputError(f"nothing can be drawn: {damage}" if damage else wait)
    wanted = curves.chosen(runs, keys)
    stages = sorted({run.stage for run in runs}, key=lambda stage: (stage == "", stage))
    sections = []
    for stage in stages:
        alike = [run for run in runs if run.stage == stage]
        if found := panels(alike, wanted, axis):
            sections.append((stage, alike, found))
    if not sections:
        raise InputError(
            "these runs have too few numbers yet: wait for their next lines, or name some by --keys"
        )
    columns = min(COLUMNS, max(len(found) for *_, found in sections))
    width = columns * WIDTH
    heads = [legend(None, stage, alike, axis, width, 0) for stage, alike, _ in sections]
    rows = [math.ceil(len(found) / columns) for *_, found in sections]
    canvas = Canvas(width, sum(heads) + sum(rows) * HEIGHT)
    top = 0
    for (stage, alike, found), head, down in zip(sections, heads, rows, strict=True):
        legend(canvas, stage, alike, axis, width, top)
        for n, panel in enumerate(found):
            left, below = n % columns * WIDTH, top + head + n // columns * HEIGHT
            draw(canvas, panel, left, below, axis)
        top += head + down * HEIGHT
    return canvas.picture()


def panels(runs: Sequence[Run], keys: Sequence[str], axis: Axis) -> list[Panel]:
    """Return the panels of runs of one stage, in the order of `keys`."""
    lines: dict[str, list[Line]] = {}
    for n, run in enumerate(runs):
        for key in keys:
            if key not in run.values:
                continue
            kind, _, name = key.partition("/")
            name, _, share = name.partition("@")
            title = name if kind in ("train", "val") else key
            x = curves.positions(run, run.values[key], axis)
            y = np.array(list(run.values[key].values()), np.float64)
            is_held_out, colour = kind == "val", COLOURS[n % len(COLOURS)]
            smooth = y if is_held_out else curves.smoothed(y)
            starts = np.searchsorted(list(run.values[key]), run.breaks.get(key, ())).tolist()
            line = Line(x, y, smooth, is_held_out, colour, share, starts)
            lines.setdefault(title, []).append(line)
    return [Panel(*item) for item in lines.items()]


def legend(
    canvas: Canvas | None, stage: str, runs: Sequence[Run], axis: Axis, width: int, top: int
) -> int:
    """Write what a section is and whose colours are whose; return how high that is.

    canvas: None only measures.
    """
    x, y = 10, top + 8
    title = TITLES.get(stage, stage)
    texts: list[tuple[str, Colour, int, Colour | None]] = [(title, BLACK, 15, None)]
    texts += [(run.name, BLACK, 12, COLOURS[n % len(COLOURS)]) for n, run in enumerate(runs)]
    said: tuple[str, ...] = (
        "line: training, smoothed (pale: as it is)",
        "dots: held out",
        f"x: {OF_AXES[axis]}",
    )
    if any(run.breaks for run in runs):
        said += ("bar: measured otherwise from there on",)
    texts += [(text, GREY, 12, None) for text in said]
    for text, ink, size, colour in texts:
        swatch = 22 if colour else 0
        if x > 10 and x + swatch + width_of(text, size) > width:
            x, y = 10, y + LINE
        if canvas:
            if colour:
                canvas.line([(x, y + 9), (x + 16, y + 9)], colour, 2.5)
            canvas.text(x + swatch, y + 15, text, ink, size, "ls")
        x += swatch + width_of(text, size) + 20
    return y - top - 8 + HEAD


def draw(canvas: Canvas, panel: Panel, left: int, top: int, axis: Axis) -> None:
    """Draw a panel with its left upper corner at (left, top)."""
    box = left + LEFT, top + TOP, left + WIDTH - RIGHT, top + HEIGHT - BOTTOM
    low, high, is_log = extent(panel)
    x_high = max(line.x.max() for line in panel.lines) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        up = (
            math.log(y / low) / math.log(high / low)
            if is_log and y > 0
            else (y - low) / (high - low)
        )
        return box[0] + x / x_high * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    title = f"{panel.title} (log)" if is_log else panel.title
    canvas.text(box[0], box[1] - 7, title, BLACK, 13, "ls")
    for y in (log_ticks if is_log else ticks)(low, high, 5):
        down = at(0, y)[1]
        canvas.line([(box[0], down), (box[2], down)], PALE_GREY, 0.7)
        canvas.text(box[0] - 5, down, number(y), GREY, 11, "rm")
    for x in ticks(0, x_high, 4):
        right = at(x, low)[0]
        canvas.line([(right, box[3]), (right, box[3] + 4)], GREY, 0.7)
        canvas.text(
            right,
            box[3] + 6,
            f"{number(x)}{axis[0]}" if axis == "hours" else number(x),
            GREY,
            11,
            "mt",
        )
    with canvas.inside((box[0] - 3, box[1] - 3, box[2] + 4, box[3] + 1)):
        for line in panel.lines:
            if line.smooth is not line.y:
                canvas.line(
                    [at(*point) for point in zip(line.x, line.y, strict=True)], pale(line.colour), 1
                )
        for line in panel.lines:
            points = [at(*point) for point in zip(line.x, line.smooth, strict=True)]
            for start, end in itertools.pairwise((0, *line.breaks, len(points))):
                canvas.line(points[start:end], line.colour, 1.2 if line.is_held_out else 1.8)
            for start in line.breaks:
                middle = (points[start - 1][0] + points[start][0]) / 2
                canvas.line([(middle, box[1]), (middle, box[3])], pale(line.colour), 1.2)
            for point in points if line.is_held_out or len(points) == 1 else ():
                canvas.dot(*point, 2.4, line.colour)
            canvas.text(points[-1][0] + 4, points[-1][1], line.note, line.colour, 10, "lm")
    canvas.line([(box[0], box[1]), (box[0], box[3]), (box[2], box[3])], GREY, 0.7)


def extent(panel: Panel) -> tuple[float, float, bool]:
    """Return the lowest and highest value of a panel, and whether its scale is logarithmic.

    Spikes of what is smoothed may reach beyond it.
    """
    shown = [line.smooth for line in panel.lines]
    shown += [np.percentile(line.y, SPIKES) for line in panel.lines if line.smooth is not line.y]
    low, high = min(x.min() for x in shown), max(x.max() for x in shown)
    if low > 0 and high / low >= LOG and not panel.title.endswith(LINEAR):
        return low / 1.1, high * 1.1, True
    pad = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    is_zero = 0 <= low < 0.3 * high  # then the axis may as well begin there
    return 0.0 if is_zero else low - pad, high + pad, False
