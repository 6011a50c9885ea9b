"""Pictures for people: uint8 arrays laid side by side, labelled, and written as PNG."""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from evqgan.core import png_records
from evqgan.core.captions import drawable
from evqgan.core.files import atomic

PAPER = 255  # ours: gaps and empty cells are white, the background most viewers and pages have
INK = 64  # ours: bars are dark grey
TALL = "Ågj"  # letters as high and as low as a line of text goes
GAP = 2  # ours: pixels between pictures
GAIN = 4  # ours: a good reconstruction is off by a few grey levels, too dark to see as it is


def row(images: Iterable[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Lay images side by side from the left, tops aligned.

    images: each uint8 [H,W,3].
    gap: pixels between them.

    Returns uint8 [max H, sum W + gaps, 3].
    """
    images = [_checked(image) for image in images]
    if not images:
        raise ValueError("expected at least one image")
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    picture = np.full((height, width, 3), PAPER, np.uint8)
    left = 0
    for image in images:
        picture[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + gap
    return picture


def column(images: Iterable[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Lay images one below the other, left sides aligned.

    images: each uint8 [H,W,3].
    gap: pixels between them.

    Returns uint8 [sum H + gaps, max W, 3].
    """
    turned = [_checked(image).transpose(1, 0, 2) for image in images]
    return np.ascontiguousarray(row(turned, gap).transpose(1, 0, 2))


def grid(images: ArrayLike, columns: int | None = None, gap: int = GAP) -> np.ndarray:
    """Lay images out in reading order, as one uint8 [h,w,3].

    images: uint8 [N,H,W,3].
    columns: None: the squarest grid.
    gap: pixels between them.
    """
    images = np.asarray(images)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"expected images [N,H,W,3] with N > 0, got shape {images.shape}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    return column([row(images[i : i + columns], gap) for i in range(0, len(images), columns)], gap)


def bars(values: ArrayLike, height: int = 96, width: int = 512) -> np.ndarray:
    """Draw numbers as bars from left to right, as uint8 [height,width,3].

    values: at least 0; the largest is as high as the picture. Of more numbers than pixels a column
        shows the mean of its share.
    """
    values = np.asarray(values, np.float64)
    edges = np.arange(width + 1) * len(values) / width
    sums = np.interp(edges, np.arange(len(values) + 1), np.concatenate([[0], np.cumsum(values)]))
    means = np.diff(sums) * width / len(values)
    filled = np.arange(height)[::-1, None] < np.ceil(height * means / max(means.max(), 1e-9))[None]
    return np.where(filled[..., None], np.uint8(INK), np.uint8(PAPER)) * np.ones(3, np.uint8)


def error_map(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return where two pictures uint8 [...,3] differ: GAIN times the difference, clipped, uint8."""
    difference = np.abs(np.asarray(a, np.int32) - np.asarray(b, np.int32))
    return np.minimum(difference * GAIN, 255).astype(np.uint8)


def label(image: np.ndarray, text: str) -> np.ndarray:
    """Return an image uint8 [H,W,3] with `text` in black on a white band above it.

    The picture grows wider if the text needs it. The bands of all texts are equally high.
    """
    font, text = ImageFont.load_default(), drawable(text)
    left = math.ceil(font.getbbox(text)[0])
    bottom = math.ceil(font.getbbox(f"{text}{TALL}")[3])
    band = Image.new("RGB", (width_of(text), max(bottom, 1) + 3), (PAPER,) * 3)
    ImageDraw.Draw(band).text((1 - left, 1), text, fill=(0, 0, 0), font=font)
    return column([np.asarray(band), image], gap=0)


def width_of(text: str) -> int:
    """Return how wide the band of a `label` is, in pixels."""
    left, _, right, _ = ImageFont.load_default().getbbox(drawable(text))
    return max(math.ceil(right) - math.ceil(left), 1) + 2


def save_png(
    path: str | os.PathLike[str], image: np.ndarray, record: Mapping[str, Any] | None = None
) -> None:
    """Write uint8 [H,W,3] as a PNG file, whole or not at all; InputError if that cannot be.

    record: what the file says of how it was made, see `png_records`.
    """
    picture = Image.fromarray(_checked(image))
    info = png_records.chunk_of(record) if record else None
    with atomic(path) as file:
        picture.save(file, format="PNG", pnginfo=info)


def is_whole(path: pathlib.Path) -> bool:
    """Return whether a file is there and is a whole PNG: all of its checksums are read."""
    try:
        with path.open("rb") as file:
            PngImagePlugin.PngImageFile(file).verify()
    except (OSError, SyntaxError, ValueError):  # all that Pillow raises for damage
        return False
    return True


def _checked(image: ArrayLike) -> np.ndarray:
    """Return an image as an array; ValueError unless it is uint8 [H,W,3]."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image [H,W,3], got {image.dtype} {list(image.shape)}")
    return image
