"""Charts of a few lines each, for the paper's figures: uint8 pictures, drawn with Pillow."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, which colour-blind readers can tell apart, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SCALE = 2  # ours: all lengths below are in points of so many pixels
FINER = 2  # ours: it is drawn larger, and made smaller again: smooth lines
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 44  # margins of the axes
TEXT, TITLE = 11, 12.5
GRID, INK, AXIS = "#E4E4E4", "#222222", "#888888"
LEGEND, LEGEND_LEFT = 17, 14  # the height of a line of the legend, and where it begins

Point = tuple[float, float]


class Line(NamedTuple):
    """A line of a chart: its name in the legend, and its points.

    style: "solid" with its points marked, "dashed" or "dotted" without.
    bars: half the height of a bar at each point, such as a standard deviation; () is none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    style: str = "solid"
    bars: Sequence[float] = ()

    def spans(self) -> list[tuple[float, float, float]]:
        """Return (x, low, high) of each bar."""
        points = zip(self.x, self.y, self.bars, strict=True) if self.bars else ()
        return [(x, y - half, y + half) for x, y, half in points if half]


class Chart(NamedTuple):
    """A chart: its title, the names of its axes, its lines, and which axes are logarithmic."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False


class Axis(NamedTuple):
    """Where values lie between two ends of a chart."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    room: float = 0.0  # share of the axis that stays free at either end

    def at(self, value: float) -> float:
        """Return the place of a value."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * (self.room + (1 - 2 * self.room) * share)


def draw(chart: Chart) -> np.ndarray:
    """Return a chart as uint8 [H,W,3]; x has a tick at each point, the legend is below."""
    columns = 3 if len(chart.lines) % 3 == 0 else 2
    height = HEIGHT + math.ceil(len(chart.lines) / columns) * LEGEND + 6
    pen = Pen(height)
    xs = sorted({x for line in chart.lines for x in line.x})
    ys = [y for line in chart.lines for y in line.y]
    ys += [y for line in chart.lines for span in line.spans() for y in span[1:]]
    ticks = y_ticks(min(ys), max(ys), chart.log_y)
    across = Axis(xs[0], xs[-1], LEFT, WIDTH - RIGHT, chart.log_x, 0.04)
    up = Axis(min(*ys, *ticks), max(*ys, *ticks), HEIGHT - BOTTOM, TOP, chart.log_y)
    _frame(pen, chart, [(across.at(x), x) for x in xs], [(up.at(tick), tick) for tick in ticks])
    for i, line in enumerate(chart.lines):
        _line(pen, line, across, up)
        left = LEGEND_LEFT + i % columns * (WIDTH - LEGEND_LEFT) / columns
        _entry(pen, line, left, HEIGHT + 4 + i // columns * LEGEND + LEGEND / 2)
    small = pen.image.resize((WIDTH * SCALE, height * SCALE), Image.Resampling.LANCZOS)
    return np.asarray(small)


class Pen:
    """Draws on a white picture, in points."""

    def __init__(self, height: float) -> None:
        """Begin a picture of WIDTH x height points."""
        self.unit = SCALE * FINER  # pixels of a point
        self.image = Image.new("RGB", (WIDTH * self.unit, round(height * self.unit)), "white")
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, words: str, anchor: str, size: float = TEXT) -> None:
        """Write a line of text; anchor: of Pillow, such as "rm": its right end, in its middle."""
        place, font = (x * self.unit, y * self.unit), ImageFont.load_default(size * self.unit)
        self._draw.text(place, words, fill=INK, font=font, anchor=anchor)

    def line(self, points: Sequence[Point], colour: str, width: float) -> None:
        """Draw a line through points."""
        places = [(x * self.unit, y * self.unit) for x, y in points]
        self._draw.line(places, colour, round(width * self.unit), "curve")

    def dot(self, x: float, y: float, colour: str) -> None:
        """Draw a dot."""
        box = [(x - 3) * self.unit, (y - 3) * self.unit, (x + 3) * self.unit, (y + 3) * self.unit]
        self._draw.ellipse(box, fill=colour)


def _frame(pen: Pen, chart: Chart, xs: Sequence[Point], ys: Sequence[Point]) -> None:
    """Draw what is behind the lines: the title, the axes and their ticks, as (place, number)."""
    for y, number in ys:
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID, 1)
        pen.text(LEFT - 6, y, f"{number:,.4g}", "rm")
    for x, number in xs:
        pen.line([(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 4)], AXIS, 1)
        pen.text(x, HEIGHT - BOTTOM + 7, f"{number:g}", "ma")
    pen.line([(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], AXIS, 1)
    pen.text(LEFT, 8, chart.title, "la", TITLE)
    pen.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, chart.x, "ma")
    _sideways(pen.image, chart.y, pen.unit)


def _line(pen: Pen, line: Line, across: Axis, up: Axis) -> None:
    """Draw a line with its bars and its points."""
    colour = COLOURS[line.colour % len(COLOURS)]
    points = [(across.at(x), up.at(y)) for x, y in zip(line.x, line.y, strict=True)]
    for piece in pieces(points, line.style):
        pen.line(piece, colour, 2)
    for x, low, high in line.spans():
        pen.line([(across.at(x), up.at(low)), (across.at(x), up.at(high))], colour, 1)
    for x, y in points if line.style == "solid" else ():
        pen.dot(x, y, colour)


def _entry(pen: Pen, line: Line, left: float, middle: float) -> None:
    """Draw a line's entry in the legend."""
    colour = COLOURS[line.colour % len(COLOURS)]
    for piece in pieces([(left, middle), (left + 26, middle)], line.style):
        pen.line(piece, colour, 2)
    pen.text(left + 32, middle, line.name, "lm")


def y_ticks(low: float, high: float, log: bool) -> list[float]:
    """Return round numbers around low to high: of a logarithmic axis 1, 2 and 5 of each decade."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        numbers = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        first = max((i for i, x in enumerate(numbers) if x <= low), default=0)
        last = min((i for i, x in enumerate(numbers) if x >= high), default=len(numbers) - 1)
        return numbers[first : last + 1]
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(times for times in (1, 2, 5, 10) if span / (step * times) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, last + 1)]


def pieces(points: Sequence[Point], style: str) -> list[Sequence[Point]]:
    """Return the pieces of a line through points: all of it, or dashes or dots of each part."""
    if style == "solid":
        return [points]
    on, off = {"dashed": (6, 3), "dotted": (2, 3)}[style]
    found: list[Sequence[Point]] = []
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        length = math.hypot(bx - ax, by - ay)
        for begin in np.arange(0, length, on + off):
            ends = (begin / length, min(begin + on, length) / length)
            found.append([(ax + (bx - ax) * share, ay + (by - ay) * share) for share in ends])
    return found


def _sideways(image: Image.Image, words: str, unit: int) -> None:
    """Write the name of the y axis beside it, from below upwards."""
    font = ImageFont.load_default(TEXT * unit)
    left, top, right, bottom = font.getbbox(words)
    label = Image.new("RGB", (math.ceil(right - left), math.ceil(bottom - top)), "white")
    ImageDraw.Draw(label).text((-left, -top), words, fill=INK, font=font)
    turned = label.rotate(90, expand=True)
    middle = (TOP + HEIGHT - BOTTOM) / 2 * unit
    image.paste(turned, (4 * unit, round(middle - turned.height / 2)))
