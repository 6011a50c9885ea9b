"""A picture of lines, boxes and texts, with smooth edges. Coordinates are pixels (x, y)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evqgan.core.captions import drawable

SCALE = 3  # ours: all but texts is drawn so much larger, and then averaged
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom
WHITE, BLACK, GREY, PALE_GREY = ((value,) * 3 for value in (255, 0, 120, 225))


def pale(colour: Colour, share: float = 0.72) -> Colour:
    """Return a colour mixed with so much white."""
    red, green, blue = (round(255 * share + x * (1 - share)) for x in colour)
    return red, green, blue


class Canvas:
    """A white picture of `width` x `height` pixels to draw on."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), WHITE)
        self._draw, self._left, self._top = ImageDraw.Draw(self._image), 0, 0
        self._texts: list[tuple] = []

    def line(self, points: Sequence[Sequence[float]], colour: Colour, width: float = 1) -> None:
        """Draw lines from point to point."""
        large = [self._at(*point) for point in points]
        self._draw.line(large, colour, max(round(width * SCALE), 1), joint="curve")

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a filled circle."""
        self._draw.circle(self._at(x, y), radius * SCALE, colour)

    def box(self, box: Box, fill: Colour | None = None, edge: Colour | None = None) -> None:
        """Draw a rectangle, filled, with an edge or both."""
        corners = [self._at(*box[:2]), self._at(*box[2:])]
        self._draw.rectangle(corners, fill, edge, SCALE if edge else 0)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour = BLACK,
        size: int = 12,
        anchor: str = "la",
    ) -> None:
        """Write a line of text; anchor: as Pillow's, "la" puts its left upper corner at (x, y)."""
        self._texts.append((x, y, drawable(text), colour, size, anchor))

    @contextmanager
    def inside(self, box: Box) -> Iterator[None]:
        """Have nothing of what the body draws reach beyond a box."""
        left, top, right, bottom = (round(x * SCALE) for x in box)
        whole = self._image, self._draw
        self._image = self._image.crop((left, top, right, bottom))
        self._draw, self._left, self._top = ImageDraw.Draw(self._image), left, top
        try:
            yield
        finally:
            part, (self._image, self._draw) = self._image, whole
            self._left = self._top = 0
            self._image.paste(part, (left, top))

    def picture(self) -> np.ndarray:
        """Return the picture, uint8 [height,width,3]."""
        image = self._image.reduce(SCALE)
        draw = ImageDraw.Draw(image)
        for x, y, text, colour, size, anchor in self._texts:
            draw.text((x, y), text, colour, ImageFont.load_default(size), anchor)
        return np.asarray(image)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * SCALE - self._left, y * SCALE - self._top


def width_of(text: str, size: int = 12) -> int:
    """Return how many pixels a line of text is wide."""
    return round(ImageFont.load_default(size).getlength(drawable(text)))
