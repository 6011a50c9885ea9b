"""Pictures of tokens: images while they are filled, and ids as a map."""

import colorsys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evqgan.core import pictures
from evqgan.demo.jobs import Event
from evqgan.inference.editing import GREY
from evqgan.inference.model import Model

SIDE = 512  # ours: pixels of the map's longer side, at least
LEGIBLE = 28  # ours: pixels of a token's side from which its id is written into it
TURN = 0.6180339887  # of the circle of hues from one id to the next: neighbours differ


def generate(
    model: Model,
    labels: np.ndarray,
    numbers: np.ndarray,
    seed: int,
    changes: Mapping[str, Any],
    tell: Callable[[Event], None],
) -> np.ndarray:
    """Generate images, uint8 [B,H,W,3], and tell a picture of all of them after each step."""
    size = model.runner.rows(len(labels))
    shape = len(labels), *model.grid, model.depth
    model.to_images(np.zeros(shape, np.int32), size)  # compiled before anything is shown
    grids = np.full(shape, model.codes, np.int32)

    def watch(found: np.ndarray, ids: np.ndarray) -> None:
        rows = found.astype(np.int64)
        grids[rows] = ids
        tell(Event(picture=grids.copy()))

    history = model.history(labels, numbers, seed, changes, watch)
    return model.to_images(history[:, -1], size)


def shown(model: Model, grids: np.ndarray) -> np.ndarray:
    """Return images that are being filled as one picture; what is not made yet is grey.

    grids: int [B,h,w,D], V = `codes` where there is nothing yet.
    """
    is_made = (grids != model.codes).all(axis=-1)
    ids = np.where(is_made[..., None], grids, 0)
    images = model.to_images(ids, model.runner.rows(len(ids)))
    seen = is_made.repeat(model.factor, axis=1).repeat(model.factor, axis=2)
    return pictures.grid(np.where(seen[..., None], images, GREY))


def map_of(ids: np.ndarray, codes: int, side: int) -> np.ndarray:
    """Return ids int [h,w,D] as a picture, each in the colour of its code; of depths, the first.

    Where there is room, the id is written into its token. side: pixels at least.
    """
    grid = ids[..., 0]
    cell = max(1, max(SIDE, side) // max(grid.shape))
    hues = np.arange(codes) * TURN % 1
    colours = np.array([colorsys.hsv_to_rgb(hue, 0.45, 0.95) for hue in hues]) * 255
    tokens = colours[grid].astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)
    if cell < LEGIBLE:
        return tokens
    picture = Image.fromarray(tokens)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=cell / 3)
    for (y, x), value in np.ndenumerate(grid):
        at = ((x + 0.5) * cell, (y + 0.5) * cell)
        draw.text(at, str(value), fill=(0, 0, 0), font=font, anchor="mm")
    return np.asarray(picture)
