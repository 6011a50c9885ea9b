"""Images larger than the model's: encoded and decoded whole, or in tiles that overlap by half.

Whole is what one image of that size would be in training: a network of convolutions or of windows
takes any size, and there are no seams. Tiles are images of the model's own size, as it was trained,
on which a vision transformer insists; they take no more device memory than these. The token of a
place is that of the tile whose centre is nearest; pixels are blended across overlaps.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np

from evqgan.core import limits
from evqgan.core.errors import InputError, size_text
from evqgan.core.processes import Report
from evqgan.core.progress import counted
from evqgan.inference.batched import PIXELS
from evqgan.inference.core import CoreModel
from evqgan.inference.tiling import blended, nearest_tiles, own_part

BYTES_PER_PIXEL = 19  # ours: two copies of the canvas in float32, and the result


def choose(model: CoreModel, shape: Sequence[int], tiles: bool | None, what: str) -> bool:
    """Return whether images of a size are to be taken in tiles.

    shape: (H, W) in pixels.
    tiles: None takes an image whole if the networks can and it has at most PIXELS pixels; the
      choice for a size larger than the model's is logged once.
    what: is done with them, "encoded", "decoded" or "reconstructed".

    Raises InputError for tiles of images that are smaller than one, and for images that are to be
    taken whole and that the networks do not take.
    """
    height, width = shape
    if tiles is not None and not isinstance(tiles, bool):
        raise InputError(f"tiles = {tiles!r}: expected True, False or None")
    own, size = size_text(model.size), size_text(shape)
    is_smaller = height < model.size[0] or width < model.size[1]
    if tiles and is_smaller:
        way = "leave tiles out" if model.takes((height, width)) else "make them larger"
        raise InputError(f"expected images of at least {own} to take in tiles, got {size}: {way}")
    is_cut = height % model.factor or width % model.factor  # both ways refuse it
    if is_cut or tuple(shape) == model.size:
        return bool(tiles)
    is_whole = bool(tiles) or model.takes((height, width))
    if not is_whole and (is_smaller or tiles is False):
        way = "make them larger" if is_smaller else "take them in tiles"
        raise InputError(f"this tokenizer takes images of {own} alone, got {size}: {way}")
    if tiles is not None or is_smaller:
        return bool(tiles)
    tiles = not is_whole or height * width > PIXELS
    key = what, height, width
    if key not in model.chosen:
        model.chosen.add(key)
        how = f"in tiles of {own} that overlap by half" if tiles else "whole"
        other = ""
        if is_whole:
            flag, way = ("--notiles", "whole") if tiles else ("--tiles", "in tiles")
            other = f" (tiles={not tiles}, or {flag}, does it {way})"
        larger = f"larger than the model's {own}"
        line = f"images of {size}, {larger}, are {what} {how}{other}"
        logging.getLogger(__name__).warning(line)
    return tiles


def most(model: CoreModel, shape: Sequence[int]) -> int:
    """Return how many images of a size all devices take at a time, whole; 1 a device at least.

    It is the model's `batch_size`, and of larger images than the model's fewer: as many as have no
    more than PIXELS pixels, or than a batch of the model's own images.

    shape: (H, W) in pixels.
    """
    runner = model.runner
    pixels = max(PIXELS, runner.batch_size * math.prod(model.size))
    return runner.mesh.size * max(1, min(runner.batch_size, pixels // math.prod(shape)))


def rows(model: CoreModel, number: int, shape: Sequence[int]) -> int:
    """Return how many rows a batch has, over all devices, of `number` images that are taken whole.

    shape: as in `most`.
    """
    return min(most(model, shape), model.runner.rows(number))


def encode(model: CoreModel, images: np.ndarray, report: Report | None = None) -> np.ndarray:
    """Return the ids int32 [B,h,w,D] of images uint8 [B,H,W,3], made in tiles.

    report: report(tiles done, of how many, seconds) is called after each batch.
    """
    f, (height, width) = model.factor, model.size
    if any(side % f for side in images.shape[1:3]):
        raise InputError(
            f"expected image sides that are multiples of {f}, got {size_text(images.shape[1:3])}: "
            "crop or resize it"
        )
    grid = [side // f for side in images.shape[1:3]]
    ids = np.zeros((len(images), *grid, model.depth), np.int32)
    rows, columns = map(nearest_tiles, grid, (height // f, width // f))
    places = list(itertools.product(range(len(images)), rows, columns))
    at = [(n, y.start * f, x.start * f) for n, (y, *_), (x, *_) in places]
    for start, size in batches(model, len(at), report):
        part = at[start : start + size]
        cut = np.stack([images[n, y : y + height, x : x + width] for n, y, x in part])
        made = model.to_ids(cut, size)
        for one, (n, y, x) in zip(made, places[start : start + size], strict=True):
            ids[n, y[1] : y[2], x[1] : x[2]] = own_part(one, y, x)
    return ids


def decode(model: CoreModel, ids: np.ndarray, report: Report | None = None) -> np.ndarray:
    """Return the images uint8 [B,H,W,3] of ids int32 [B,h,w,D], made in tiles and blended.

    report: as in `encode`.
    """
    f, (height, width) = model.factor, model.size
    h, w = height // f, width // f
    sides = [length * f for length in ids.shape[1:3]]
    what = f"{counted(len(ids), 'image')} of {size_text(sides)}"
    limits.require_memory(BYTES_PER_PIXEL * len(ids) * math.prod(sides), what)
    canvas = np.zeros((len(ids), *sides, 3), np.float32)
    rows, columns = blended(ids.shape[1], h, f), blended(ids.shape[2], w, f)
    places = list(itertools.product(range(len(ids)), rows, columns))
    for start, size in batches(model, len(places), report):
        part = places[start : start + size]
        made = model.to_images(
            np.stack([ids[n, y : y + h, x : x + w] for n, (y, _), (x, _) in part]), size
        )
        for one, (n, (y, down), (x, across)) in zip(made, part, strict=True):
            at = np.s_[n, y * f : y * f + height, x * f : x * f + width]
            canvas[at] += one * (down[:, None] * across)[..., None]
    return np.round(canvas, out=canvas).astype(np.uint8)


def batches(model: CoreModel, number: int, report: Report | None) -> Iterator[tuple[int, int]]:
    """Yield where each batch of tiles begins and its size, and report it when it is done."""
    size, began = model.runner.rows(number), model.runner.clock()
    for start in range(0, number, size):
        yield start, size
        if report:
            report(min(start + size, number), number, model.runner.clock() - began)
