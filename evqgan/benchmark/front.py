"""A picture of settings: how good each is against what it costs."""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evqgan.core.captions import drawable
from evqgan.core.ticks import log_ticks, ticks

WIDTH, HEIGHT = 1200, 640  # ours: pixels
LEFT, BOTTOM, TOP, RIGHT = 90, 60, 40, 440  # ours: of the margins; names stand in the right one
RADIUS, TICK, LINE, WRAPPED = 5, 6, 18, 50
BLACK, GREY, BLUE, RED, GREEN = (
    (0, 0, 0),
    (170, 170, 170),
    (31, 90, 200),
    (200, 30, 30),
    (0, 120, 50),
)
COLOURS = {"chosen": GREEN, "preset": RED, "front": BLUE}


class Point(NamedTuple):
    """A setting in the picture.

    x: what it costs, above 0; the axis is logarithmic.
    y: how good it is, the lower the better, `error` on either side.
    kinds: of COLOURS; those of the front are joined by a line. A point of a kind is numbered, and
      its text stands beside the picture.
    """

    x: float
    y: float
    error: float
    text: str
    kinds: tuple[str, ...] = ()

    @property
    def colour(self) -> tuple[int, int, int]:
        """That of the first of its kinds in the order of COLOURS."""
        return next((colour for kind, colour in COLOURS.items() if kind in self.kinds), GREY)


def picture(points: Sequence[Point], x_name: str, y_name: str) -> np.ndarray:
    """Return the picture, uint8 [HEIGHT,WIDTH,3]."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    xs = [math.log(point.x) for point in points]
    x_low, x_high = min(xs) - 0.1, max(xs) + 0.25
    y_low = min(point.y - point.error for point in points)
    y_high = max(point.y + point.error for point in points)
    pad = 0.06 * (y_high - y_low) or 0.1 * abs(y_high) or 1.0
    y_low, y_high = y_low - pad, y_high + pad

    def at(x: float, y: float) -> tuple[float, float]:
        right, up = (math.log(x) - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)

    corner = at(math.exp(x_low), y_low)
    draw.line([(LEFT, TOP), corner, (WIDTH - RIGHT, corner[1])], BLACK)
    for y in ticks(y_low, y_high):
        _, down = at(math.exp(x_low), y)
        draw.line([(LEFT - TICK, down), (LEFT, down)], BLACK)
        draw.text((LEFT - TICK - 4, down), f"{y:.4g}", BLACK, font, anchor="rm")
    for x in log_ticks(math.exp(x_low), math.exp(x_high)):
        right, down = at(x, y_low)
        draw.line([(right, down), (right, down + TICK)], BLACK)
        draw.text((right, down + TICK + 4), f"{x:.4g}", BLACK, font, anchor="mt")
    draw.text((WIDTH - RIGHT, HEIGHT - 8), x_name, BLACK, font, anchor="rb")
    draw.text((8, 8), y_name, BLACK, font)
    named = sorted((point for point in points if point.kinds), key=lambda p: (p.x, p.y))
    draw.line([at(p.x, p.y) for p in named if "front" in p.kinds], BLUE, 2)
    for point in [*(p for p in points if not p.kinds), *named]:
        draw.line([at(point.x, point.y + sign * point.error) for sign in (-1, 1)], point.colour)
        draw.circle(at(point.x, point.y), RADIUS, point.colour)
    down = TOP
    for number, point in enumerate(named, 1):
        right, above = at(point.x, point.y)
        draw.text((right + RADIUS + 2, above), str(number), point.colour, font, anchor="lb")
        text = f"{number}  {point.text} ({', '.join(point.kinds)})"
        for part in textwrap.wrap(text, WRAPPED, subsequent_indent="    "):
            draw.text((WIDTH - RIGHT + 20, down), drawable(part), point.colour, font)
            down += LINE
    return np.asarray(image)
