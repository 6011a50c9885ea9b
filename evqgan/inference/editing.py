"""Editing (paper, Sec. 4.3): inpainting, outpainting and class editing differ by the mask alone.

1. The hidden pixels are painted over, and only then is anything encoded: nothing of them can reach
   a token.
2. Tokens that hold a hidden pixel, and `margin` tokens around them, are unknown.
3. Windows of the model's size fill the unknown tokens from the known ones outwards; those of a
   generator in raster order, on a canvas wider than the model's, row by row. What one window
   made is context of the next as tokens: nothing is decoded and encoded again, so that a far
   panorama does not drift.
4. Tiles of the model's size are decoded, blended where they overlap, and pasted over the hidden
   pixels and, fading, over `feather` pixels around them; all others are the very pixels that came.

Every network sees images of the model's size alone: a canvas of any size takes no more device
memory and no more compilations than one image. Functions take and return NumPy arrays; sizes,
corners and grids are (rows, columns).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from scipy import ndimage

from evqgan.core import kinds, limits
from evqgan.core.errors import InputError, shown, size_text
from evqgan.core.processes import Report
from evqgan.core.progress import counted
from evqgan.inference.core import CoreModel
from evqgan.inference.masks import as_bool, check_mask
from evqgan.inference.planning import checked_edit_labels
from evqgan.inference.tiling import (
    blended,
    dilated,
    holes_of,
    nearest_tiles,
    own_part,
    row_holes,
    touched,
)
from evqgan.models import TokenGenerator

GREY = np.uint8(128)  # what hides a pixel: as near to 0 in [-1, 1] as 8 bits come
BYTES_PER_PIXEL = 32  # ours, of a result: its canvas in float32, its weights, the result
MAX_WINDOWS = 2000  # ours: a panorama of 256,000 pixels by a model of 256x256, an hour and more
# ours: on smaller token grids a ring of tokens around a hole is too much of the picture to give up
COARSE = 16


def edit(
    model: CoreModel,
    images: np.ndarray,
    mask: Any,
    label: Any = None,
    num: int = 1,
    seed: int = 0,
    margin: int | None = None,
    feather: float | None = None,
    report: Report | None = None,
    force: bool = False,
    **changes: Any,
) -> np.ndarray:
    """Generate an image where a mask hides it, in `num` ways, uint8 [num,H,W,3].

    Result n depends on (seed, n). Raises InputError for a request that cannot be fulfilled.

    images: uint8 [1,H,W,3]; mask: [H,W], see `masks.as_bool`.
    label: the class of what is made, by number or name.
    margin: in tokens; feather: in pixels; for their defaults see `extent`.
    report: report(windows done, of how many, seconds) is called after each window.
    force: more than MAX_WINDOWS windows too.
    changes: to config.sample.
    """
    labels = checked_edit_labels(model.known_classes("edit"), model.size, label, num, seed)
    num, seed = len(labels), int(seed)
    model.check_settings(changes)
    tokens, pixels = extent(model, margin, feather)
    image, mask = one_image(images), as_bool(mask)
    check_mask(image, mask)
    check_extent(model, image, margin, feather)
    what = f"an image of {size_text(mask.shape)}, in {counted(num, 'way')},"
    limits.require_memory(BYTES_PER_PIXEL * num * mask.size, what)
    unknown = dilated(touched(mask, model.factor, model.grid), tokens)
    least = 2 * unknown.sum() / np.prod(model.grid)  # half of a window is context
    limits.limit_work(least, MAX_WINDOWS, "windows to fill", force)
    holes = holes_in(model, unknown)
    limits.limit_work(len(holes), MAX_WINDOWS, "windows to fill", force)
    model.check_mask(np.stack([hole for _, hole in holes]))
    weight = feathered(mask, pixels)
    tiles = tiles_over(model, unknown.shape, weight > 0)
    read = np.zeros(unknown.shape, bool)  # tokens that a window or a tile looks at
    for at in itertools.chain((at for at, _ in holes), (tile.tokens for tile in tiles)):
        read[at] = True
    ids = encode(model, painted_over(image, mask), read & ~unknown, num)
    fill(model, ids, holes, labels, seed, changes, report)
    return paste(image, decode(model, ids, tiles, image.shape), weight)


def holes_in(model: CoreModel, unknown: np.ndarray) -> list[tuple]:
    """Return the windows that fill unknown bool [h,w], in order, see `holes_of` and `row_holes`."""
    generator = cast(TokenGenerator, model.generator)
    is_wider = unknown.shape[1] > model.grid[1]
    by_row = is_wider and generator.traits.fills == "suffix"
    return (row_holes if by_row else holes_of)(unknown, model.grid)


def check_extent(model: CoreModel, image: np.ndarray, margin: Any, feather: Any) -> None:
    """Raise InputError for a margin or feather that was given, and is larger than the image."""
    beyond = f"reaches beyond the image of {size_text(image.shape[:2])}: give less"
    if (margin or 0) * model.factor > max(image.shape[:2]):
        raise InputError(f"a margin of {margin:,} tokens, {model.factor} pixels each, {beyond}")
    if (feather or 0) > max(image.shape[:2]):
        raise InputError(f"a feather of {feather:,} pixels {beyond}")


def check_margins(margins: Sequence[int]) -> None:
    """Raise InputError unless an image can grow by these pixels (left, top, right, bottom)."""
    if not all(kinds.fits(x, int) for x in margins) or not any(margins):
        raise InputError(
            "expected margins in whole pixels from 0 on, one of them more, got "
            f"left,top,right,bottom = {','.join(map(repr, margins))}"
        )


def outpaint(
    model: CoreModel,
    images: np.ndarray,
    left: int,
    top: int,
    right: int,
    bottom: int,
    label: Any = None,
    num: int = 1,
    seed: int = 0,
    **how: Any,
) -> np.ndarray:
    """Grow an image by so many pixels on each side, in `num` ways, uint8 [num,H',W',3].

    As `edit` of a larger image of which the margins are hidden.

    images: uint8 [1,H,W,3].
    how: `edit`'s margin, feather, report, force and changes to config.sample.
    """
    known = model.known_classes("outpaint")
    num = len(checked_edit_labels(known, model.size, label, num, seed))
    image = one_image(images)
    check_margins((left, top, right, bottom))
    left, top, right, bottom = map(int, (left, top, right, bottom))
    sides = image.shape[0] + top + bottom, image.shape[1] + left + right
    what = f"an image of {size_text(sides)}, in {counted(num, 'way')},"
    limits.require_memory(BYTES_PER_PIXEL * num * math.prod(sides), what)
    # The image begins where a token begins.
    above, before = -top % model.factor, -left % model.factor
    around = ((above + top, bottom), (before + left, right))
    mask = np.pad(np.zeros(image.shape[:2], bool), around, constant_values=True)
    canvas = np.pad(image, (*around, (0, 0)))
    made = edit(model, canvas[None], mask, label, num, seed, **how)
    return made[:, above:, before:]


def extent(model: CoreModel, margin: Any, feather: Any) -> tuple[int, float]:
    """Fill in the default margin (tokens) and feather (pixels), and validate them.

    margin: 1 by default, because the encoder saw what was painted over the hole: with a tokenizer
      of photographs 11 to 16 % of the tokens next to it change, 2 to 7 % of those one further. On
      grids below 16 tokens it is 0, since context is scarce there (digits, centre hidden: mean
      squared error 3,429, with a margin of 1 5,161).
    feather: half a token by default, with which digits are about as smooth across the border of a
      hole as they were.
    """
    margin = int(min(model.grid) >= COARSE) if margin is None else margin
    feather = model.factor // 2 if feather is None else feather
    if not kinds.fits(margin, int):
        expected = "a margin that is a whole number of tokens from 0"
        raise InputError(f"expected {expected}, got {shown(margin)}")
    if not kinds.fits(feather, float):
        raise InputError(
            f"expected a feather that is a number of pixels from 0, got {shown(feather)}"
        )
    return margin, feather


def one_image(images: np.ndarray) -> np.ndarray:
    """Return the image of [1,H,W,3] as [H,W,3]; InputError if there are more."""
    if len(images) != 1:
        raise InputError(f"expected one image to edit, got {len(images)}")
    return images[0]


def painted_over(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return image [H,W,3] with hidden pixels in the colour of the nearest one that is not.

    So the tokens beside a hole see what usually lies beside such pixels, and nothing of what the
    hole hides.
    """
    if mask.all():
        return np.full_like(image, GREY)
    distances = ndimage.distance_transform_edt
    y, x = distances(mask, return_distances=False, return_indices=True)
    return image[y, x]


def feathered(mask: np.ndarray, feather: float) -> np.ndarray:
    """Return how much of a pixel is generated, float32 [H,W].

    1 where the mask [H,W] is True, 0 where it is further than `feather`.
    """
    distance = ndimage.distance_transform_edt(~mask)
    return np.clip(1 - distance / (feather + 1), 0, 1).astype(np.float32)


def encode(model: CoreModel, image: np.ndarray, needed: np.ndarray, num: int) -> np.ndarray:
    """Return the ids int32 [num,h,w,D] of an image where they are needed, the same `num` times.

    A token is taken from the tile whose centre is nearest; tiles of which no token is needed are
    not encoded. The image is continued beyond its end to fill the grid.

    image: [H,W,3]; needed: bool [h,w].
    """
    size, f = model.grid, model.factor
    sides = zip(needed.shape, image.shape[:2], strict=True)
    short = [(0, tokens * f - side) for tokens, side in sides]
    image = np.pad(image, (*short, (0, 0)), mode="edge")
    ids = np.zeros((*needed.shape, model.depth), np.int32)
    rows, columns = map(nearest_tiles, needed.shape, size)
    own = [(y, x) for y in rows for x in columns if needed[y[1] : y[2], x[1] : x[2]].any()]
    for i in range(0, len(own), num):  # as many at once as are edited: nothing more to compile
        parts = (own[i : i + num] * num)[:num]
        pixels = [[slice(f * at.start, f * at.stop) for at, *_ in part] for part in parts]
        cut = [image[y, x] for y, x in pixels]
        for found, part in zip(model.to_ids(np.stack(cut)), parts, strict=True):
            y, x = part
            ids[y[1] : y[2], x[1] : x[2]] = own_part(found, y, x)
    return np.repeat(ids[None], num, axis=0)


def fill(
    model: CoreModel,
    ids: np.ndarray,
    holes: list[tuple],
    labels: np.ndarray,
    seed: int,
    changes: Mapping[str, Any],
    report: Report | None = None,
) -> None:
    """Generate ids [B,h,w,D] where `holes` (see `holes_in`) says, in place, window by window."""
    began = model.runner.clock()
    for n, (at, hole) in enumerate(holes):
        mask = np.repeat(hole[None], len(ids), axis=0)
        key = [seed, n] if n else seed  # the first window as `sample`
        ids[:, *at] = model.fill(ids[:, *at], mask, labels, key, changes)
        if report:
            report(n + 1, len(holes), model.runner.clock() - began)


class Tile(NamedTuple):
    """A tile of the model's size over a larger canvas."""

    tokens: tuple[slice, slice]
    pixels: tuple[slice, slice]
    weight: np.ndarray  # [H,W] of the model; those of all tiles over a pixel sum to 1


def tiles_over(model: CoreModel, grid: Sequence[int], needed: np.ndarray) -> list[Tile]:
    """Return the tiles, of those that cover a token grid [h,w], that hold a pixel which is needed.

    needed: bool [H,W]; the grid may go on beyond it.
    """
    size, f, own = model.size, model.factor, model.grid
    axes = [blended(length, part, f) for length, part in zip(grid, own, strict=True)]
    found = []
    for (y, down), (x, across) in itertools.product(*axes):
        pixels = slice(y * f, y * f + size[0]), slice(x * f, x * f + size[1])
        if needed[pixels].any():
            tokens = slice(y, y + own[0]), slice(x, x + own[1])
            found.append(Tile(tokens, pixels, down[:, None] * across))
    return found


def decode(
    model: CoreModel, ids: np.ndarray, tiles: Sequence[Tile], shape: Sequence[int]
) -> np.ndarray:
    """Return images float32 [B,H,W,3] from 0 to 255, right where the tiles are all that cover it.

    ids: [B,h,w,D].
    shape: (H, W, ...) of the image; the grid may go on beyond it.
    """
    made = np.zeros((len(ids), *(side * model.factor for side in ids.shape[1:3]), 3), np.float32)
    for tile in tiles:
        made[:, *tile.pixels] += model.to_images(ids[:, *tile.tokens]) * tile.weight[..., None]
    return made[:, : shape[0], : shape[1]]


def paste(image: np.ndarray, made: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Paste made [B,H,W,3] over image uint8 [H,W,3], as much as weight [H,W] says."""
    weight = weight[..., None]
    blended = (np.round(x * weight + image * (1 - weight)) for x in made)
    return np.stack([x.clip(0, 255).astype(np.uint8) for x in blended])
