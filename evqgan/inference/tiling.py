"""Tiles and windows over a token grid larger than the model's: which, where, in which order."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def touched(mask: np.ndarray, factor: int, least: Sequence[int]) -> np.ndarray:
    """Return the tokens that hold a hidden pixel, bool [h,w], of at least `least` tokens.

    Tokens that the border cuts are judged by their pixels inside it; those beyond it are True.

    mask: bool [H,W].
    """
    inside = [-(-side // factor) for side in mask.shape]
    grid = np.ones([max(own, other) for own, other in zip(inside, least, strict=True)], bool)
    sides = zip(inside, mask.shape, strict=True)
    padded = np.pad(mask, [(0, own * factor - side) for own, side in sides])
    parts = padded.reshape(inside[0], factor, inside[1], factor)
    grid[: inside[0], : inside[1]] = parts.any(axis=(1, 3))
    return grid


def dilated(grid: np.ndarray, margin: int) -> np.ndarray:
    """Return grid bool [h,w], True also where something within `margin` tokens is True.

    Diagonals count.
    """
    if not margin:
        return grid
    return ndimage.maximum_filter(grid, 2 * margin + 1, mode="nearest")


def tiles(length: int, size: int) -> list[int]:
    """Return where tiles of `size` begin that cover `length`.

    They are half a tile apart, the last one is flush with the end.
    """
    return sorted({*range(0, length - size, max(size // 2, 1)), length - size})


def ramps(starts: Sequence[int], size: int, length: int) -> list[np.ndarray]:
    """Return the weights [size] of each tile, linear across overlaps.

    Those of all tiles over a position sum to 1.
    """
    tent = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + size] += tent
    return [tent / total[start : start + size] for start in starts]


Side = tuple[slice, int, int]  # of a tile: all its tokens; from which to which it is nearest to


def nearest_tiles(length: int, size: int) -> list[Side]:
    """Return tiles that cover `length`, each with the tokens (from, to) that it is nearest to."""
    starts = tiles(length, size)
    middles = ((a + b + size) // 2 for a, b in itertools.pairwise(starts))
    bounds = itertools.pairwise([0, *middles, length])
    return [(slice(s, s + size), a, b) for s, (a, b) in zip(starts, bounds, strict=True)]


def own_part(ids: np.ndarray, y: Side, x: Side) -> np.ndarray:
    """Return of a tile's ids [h,w,D] those of the tokens that it is nearest to.

    y, x: of `nearest_tiles`, down and across.
    """
    (rows, top, bottom), (columns, left, right) = y, x
    return ids[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]


def blended(length: int, size: int, factor: int) -> list[tuple[int, np.ndarray]]:
    """Return tiles that cover `length` tokens: where each begins, and its pixels' weights.

    factor: pixels of a token's side.
    """
    starts = tiles(length, size)
    weights = ramps([start * factor for start in starts], size * factor, length * factor)
    return list(zip(starts, weights, strict=True))


def windows(unknown: np.ndarray, size: Sequence[int]) -> list[tuple[int, int]]:
    """Choose, greedily, the order in which windows fill all unknown tokens; return their corners.

    Each step takes, among windows of which at most half is unknown, the one with the most unknown
    tokens; if there is none, the one with the fewest. Ties go to the window nearest to the
    originally known tokens, then to the one most centred on its hole.

    unknown: bool [h,w]; size: (rows, columns) of a window.
    """
    unknown, corners = unknown.copy(), []
    far = np.zeros(unknown.shape, int)
    if not unknown.all():
        far = ndimage.distance_transform_cdt(unknown, "chessboard").astype(int)
    axes = np.indices(unknown.shape)
    while unknown.any():
        new = sums(unknown, size)
        is_enough = (new > 0) & (new <= size[0] * size[1] // 2)
        some = np.where(new > 0, new, unknown.size + 1)
        most = is_enough & (new == new[is_enough].max(initial=0))
        y, x = np.nonzero(most if is_enough.any() else new == some.min())
        distance = sums(unknown * far, size)[y, x]
        off_centre = np.zeros(len(y))
        for at, start, own in zip(axes, (y, x), size, strict=True):
            middle = sums(unknown * at, size)[y, x] / new[y, x] - start
            off_centre = off_centre + np.abs(middle - (own - 1) / 2)
        best = np.lexsort((off_centre, distance))[0]
        top, left = int(y[best]), int(x[best])
        corners.append((top, left))
        unknown[top : top + size[0], left : left + size[1]] = False
    return corners


def sums(grid: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return the sum of grid [h,w] over every window, int [h - rows + 1, w - columns + 1].

    size: (rows, columns) of a window.
    """
    total = np.pad(grid.astype(int).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (h, w), below = size, total[size[0] :]
    return below[:, w:] - below[:, :-w] - total[:-h, w:] + total[:-h, :-w]


def holes_of(unknown: np.ndarray, size: Sequence[int]) -> list[tuple]:
    """Return the windows that fill unknown bool [h,w], in order.

    Each is ((rows, columns), what is to be made in it, bool of `size`).
    """
    unknown, found = unknown.copy(), []
    for y, x in windows(unknown, size):
        at = slice(y, y + size[0]), slice(x, x + size[1])
        found.append((at, unknown[at].copy()))
        unknown[at] = False
    return found


def row_holes(unknown: np.ndarray, size: Sequence[int]) -> list[tuple]:
    """Return the windows that fill unknown bool [h,w] row by row, in order, as `holes_of` does.

    For generators that see only what comes before in raster order. The window moves with what is
    made, as VQGAN's (Sec. 3.3), by half of its width: it makes the rest of a row, which lies in its
    middle where the canvas allows, and what it makes below is made again later.
    """
    unknown, found = unknown.copy(), []
    (height, width), (rows, columns) = size, unknown.shape
    for row in np.flatnonzero(unknown.any(axis=1)):
        top = min(max(int(row) - height // 2, 0), rows - height)
        for left in tiles(columns, width):
            at = slice(top, top + height), slice(left, left + width)
            if unknown[row, at[1]].any():
                found.append((at, unknown[at].copy()))
                unknown[row, at[1]] = False
    return found
