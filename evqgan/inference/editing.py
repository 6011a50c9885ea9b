"""Editing (paper, Sec. 4.3): inpainting, outpainting and class-conditional editing are one call with three masks.

1. The hidden pixels are painted over, and only then is anything encoded: nothing of them can reach a token.
2. Tokens that hold a hidden pixel, and `margin` tokens around them, are unknown.
3. Windows of the model's size fill the unknown tokens from the known ones outwards. What one window made is context of
   the next as tokens: nothing is decoded and encoded again, so that a far panorama does not drift.
4. Tiles of the model's size are decoded, blended where they overlap, and pasted over the hidden pixels and, fading,
   over `feather` pixels around them; all others are the very pixels that came.

Every network sees images of the model's size alone: a canvas of any size takes no more device memory and no more
compilations than one image. Functions take and return NumPy arrays; sizes, corners and grids are (rows, columns).
"""

import itertools
import math
import numbers

import numpy as np
from scipy import ndimage

from evqgan.core import build, room
from evqgan.core.errors import InputError

GREY = np.uint8(128)  # what hides a pixel: as near to 0 in [-1, 1] as 8 bits come
WORK = 32  # ours: bytes a pixel of a result takes: its canvas in float32, its weights, the result
WINDOWS = 2000  # ours: a panorama of 256,000 pixels by a model of 256x256, an hour and more
COARSE = 16  # ours: on smaller token grids a ring of tokens around a hole is too much of the picture to give up


def edit(
    model, images, mask, label=None, num=1, seed=0, margin=None, feather=None, report=None, force=False, **sampler
):
    """images uint8 [1,H,W,3] where mask [H,W] hides them (see `hidden`), anew, in `num` ways -> uint8 [num,H,W,3].

    model: a generator `CoreModel`. label: the class of what is made, by number or name; result n depends on
    (seed, n). report(windows done, of how many, seconds) is called after each window. InputError for what cannot be.

    margin in tokens, feather in pixels: see `extent` for their defaults. force: more than WINDOWS windows too.
    """
    labels = labels_of(model, label, num, seed)
    known = {*model.sampler, "margin", "feather", "report", "force"}
    if wrong := sorted(sampler.keys() - known):
        raise InputError(f"edit takes no {wrong[0]!r}: {build.nearest(wrong[0], known)}")
    margin, feather = extent(model, margin, feather)
    image, mask = one_image(images), hidden(mask)
    if mask.shape != image.shape[:2]:
        raise InputError(
            f"expected a mask of the image's {image.shape[1]} x {image.shape[0]} pixels (width x height), got "
            f"{' x '.join(map(str, mask.shape[::-1]))}"
        )
    if not mask.any():
        raise InputError("the mask hides nothing: it must be white where the image is to be made anew")
    sides = f"{image.shape[1]} x {image.shape[0]}"
    for what, pixels in (("margin", margin * model.factor), ("feather", feather)):
        if pixels > max(image.shape):
            raise InputError(f"a {what} of {pixels:,} pixels reaches beyond the image of {sides}: give less")
    room.require(WORK * num * mask.size, f"an image of {image.shape[1]:,}x{image.shape[0]:,}, in {num:,} ways,")
    unknown = dilated(touched(mask, model.factor, latent_of(model)), margin)
    least = 2 * unknown.sum() / np.prod(latent_of(model))  # half of a window is context
    room.limit(least, WINDOWS, "windows to fill", force)
    holes = holes_of(unknown, latent_of(model))
    model.check_mask(np.stack([hole for _, hole in holes]))
    ids = encode(model, painted_over(image, mask), unknown, num)
    fill(model, ids, holes, labels, seed, sampler, report)
    weight = feathered(mask, feather)
    made = decode(model, ids, weight > 0)
    return paste(image, made, weight)


def hidden(mask):
    """A mask [H,W] or [H,W,1] -> bool [H,W]: a boolean one as it is; of numbers 0 is kept, and one other hides."""
    mask = np.asarray(mask)
    mask = mask[..., 0] if mask.ndim == 3 and mask.shape[-1] == 1 else mask
    if mask.dtype == bool:
        return mask
    others = np.unique(mask[mask != 0]) if mask.dtype.kind in "uif" else [None] * 2
    if len(others) > 1 or not np.isfinite(others).all():
        some = f"with {len(others)} values beside 0" if mask.dtype.kind in "uif" else "of no numbers"
        raise InputError(f"expected a boolean mask, or one of 0 (kept) and one other value, got {mask.dtype} {some}")
    return mask != 0


def outpaint(model, images, left, top, right, bottom, label=None, num=1, seed=0, **how):
    """images uint8 [1,H,W,3] grown by so many pixels on each side, in `num` ways -> uint8 [num,H',W',3].

    As `edit` of a larger image of which the margins are hidden; how: `edit`'s margin, feather, report and sampler.
    """
    labels_of(model, label, num, seed)
    image, margins = one_image(images), (left, top, right, bottom)
    if not all(isinstance(x, numbers.Integral) for x in margins) or min(margins) < 0 or not any(margins):
        raise InputError(
            "expected margins of at least 0 pixels, one of them more, got left,top,right,bottom = "
            f"{','.join(map(str, margins))}"
        )
    sides = image.shape[0] + top + bottom, image.shape[1] + left + right
    room.require(WORK * num * math.prod(sides), f"an image of {sides[1]:,}x{sides[0]:,}, in {num:,} ways,")
    above, before = -top % model.factor, -left % model.factor  # the image begins where a token begins
    around = ((above + top, bottom), (before + left, right))
    mask = np.pad(np.zeros(image.shape[:2], bool), around, constant_values=True)
    canvas = np.pad(image, (*around, (0, 0)))
    return edit(model, canvas[None], mask, label, num, seed, **how)[:, above:, before:]


def labels_of(model, label, num, seed):
    """The class `label` for `num` images -> int32 [num]; InputError if the model cannot make them of this seed."""
    model.check_generates(num, seed)
    room.require(num * math.prod(model.size) * 3, f"{num:,} results")
    if model.classes and label is None:
        raise InputError("this model is class-conditional: editing needs a label")
    return np.full(num, 0 if label is None else model.label_of(label), np.int32)


def extent(model, margin, feather):
    """margin, feather, where None is the model's default; InputError for what cannot be.

    margin: 1 token, for those beside a hole have seen what was painted over it (with a tokenizer of photographs 11 to
    16 % of them are other codes, 2 to 7 % one token further); 0 on grids of less than 16 tokens, where context is
    scarce (the centre of digits: a mean squared error of 3,429, with a margin of 1 of 5,161). feather: half a token,
    with which digits are about as smooth across the border of a hole as they were.
    """
    margin = int(min(latent_of(model)) >= COARSE) if margin is None else margin
    feather = model.factor // 2 if feather is None else feather
    if not isinstance(margin, numbers.Integral) or margin < 0:
        raise InputError(f"expected a margin that is a whole number of tokens from 0, got {margin!r}")
    if not isinstance(feather, numbers.Real) or not 0 <= feather < np.inf:
        raise InputError(f"expected a feather that is a number of pixels from 0, got {feather!r}")
    return margin, feather


def one_image(images):
    """[1,H,W,3] -> [H,W,3]; InputError if there are more."""
    if len(images) != 1:
        raise InputError(f"expected one image to edit, got {len(images)}")
    return images[0]


def latent_of(model):
    """The token grid (h, w) of the model's images."""
    return tuple(side // model.factor for side in model.size)


def painted_over(image, mask):
    """image [H,W,3] with the pixels where mask [H,W] is True in the colour of the nearest one where it is not.

    So the tokens beside a hole see what usually lies beside such pixels, and nothing of what the hole hides.
    """
    if mask.all():
        return np.full_like(image, GREY)
    y, x = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    return image[y, x]


def touched(mask, factor, least):
    """The tokens that hold a pixel where mask bool [H,W] is True -> bool [h,w], of at least `least` tokens.

    Tokens that the border cuts are judged by their pixels inside it; those beyond it are True.
    """
    inside = [-(-side // factor) for side in mask.shape]
    grid = np.ones([max(own, other) for own, other in zip(inside, least, strict=True)], bool)
    padded = np.pad(mask, [(0, own * factor - side) for own, side in zip(inside, mask.shape, strict=True)])
    grid[: inside[0], : inside[1]] = padded.reshape(inside[0], factor, inside[1], factor).any(axis=(1, 3))
    return grid


def dilated(grid, margin):
    """grid bool [h,w], True also where something within `margin` tokens, diagonals included, is True."""
    return ndimage.maximum_filter(grid, 2 * margin + 1, mode="nearest") if margin else grid


def feathered(mask, feather):
    """How much of a pixel is made anew [H,W]: 1 where mask [H,W] is True, 0 where it is further than `feather`."""
    return np.clip(1 - ndimage.distance_transform_edt(~mask) / (feather + 1), 0, 1).astype(np.float32)


def tiles(length, size):
    """Where tiles of `size` begin that cover `length`, half a tile apart, the last one flush with the end."""
    return sorted({*range(0, length - size, max(size // 2, 1)), length - size})


def ramps(starts, size, length):
    """The weights [size] of each tile: linear across overlaps, those of all tiles over a place sum to 1."""
    tent = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + size] += tent
    return [tent / total[start : start + size] for start in starts]


def encode(model, image, unknown, num):
    """The ids int32 [num,h,w,D] of image [H,W,3] where unknown [h,w] is False, the same `num` times.

    A token is taken from the tile whose centre is nearest. The image is continued beyond its end to fill the grid.
    """
    size, f = latent_of(model), model.factor
    short = [(0, tokens * f - side) for tokens, side in zip(unknown.shape, image.shape[:2], strict=True)]
    image = np.pad(image, (*short, (0, 0)), mode="edge")
    ids = np.zeros((*unknown.shape, model.depth), np.int32)
    axes = []
    for length, own in zip(unknown.shape, size, strict=True):
        starts = tiles(length, own)
        bounds = [0, *((a + b + own) // 2 for a, b in itertools.pairwise(starts)), length]
        axes.append([(slice(s, s + own), a, b) for s, (a, b) in zip(starts, itertools.pairwise(bounds), strict=True)])
    needed = [(y, x) for y in axes[0] for x in axes[1] if not unknown[y[1] : y[2], x[1] : x[2]].all()]
    for i in range(0, len(needed), num):  # as many at once as are edited: nothing more to compile
        parts = (needed[i : i + num] * num)[:num]
        cut = [image[y.start * f : y.stop * f, x.start * f : x.stop * f] for (y, *_), (x, *_) in parts]
        for found, ((y, top, bottom), (x, left, right)) in zip(model.encode(np.stack(cut)), parts, strict=True):
            ids[top:bottom, left:right] = found[top - y.start : bottom - y.start, left - x.start : right - x.start]
    return np.repeat(ids[None], num, axis=0)


def windows(unknown, size):
    """Corners (y, x) of windows of `size` tokens, in order, after which nothing of unknown bool [h,w] is.

    Of the places that leave half of a window to what is known by then, the one that makes the most; without such a
    place, the one with most known. Then the one nearest to what was known at first, then the one with a hole at its
    centre.
    """
    unknown, corners = unknown.copy(), []
    far = np.zeros(unknown.shape, int)
    if not unknown.all():
        far = ndimage.distance_transform_cdt(unknown, "chessboard").astype(int)
    rows, columns = np.indices(unknown.shape)
    while unknown.any():
        new = sums(unknown, size)
        enough = (new > 0) & (new <= size[0] * size[1] // 2)
        some = np.where(new > 0, new, unknown.size + 1)
        y, x = np.nonzero(enough & (new == new[enough].max()) if enough.any() else new == some.min())
        distance = sums(unknown * far, size)[y, x]
        off = [sums(unknown * at, size)[y, x] / new[y, x] - start for at, start in ((rows, y), (columns, x))]
        off = [np.abs(middle - (own - 1) / 2) for middle, own in zip(off, size, strict=True)]
        best = np.lexsort((off[0] + off[1], distance))[0]
        corners.append((int(y[best]), int(x[best])))
        unknown[y[best] : y[best] + size[0], x[best] : x[best] + size[1]] = False
    return corners


def sums(grid, size):
    """The sum of grid [h,w] over every window of `size` -> int [h - size[0] + 1, w - size[1] + 1]."""
    total = np.pad(grid.astype(int).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (h, w), below = size, total[size[0] :]
    return below[:, w:] - below[:, :-w] - total[:-h, w:] + total[:-h, :-w]


def holes_of(unknown, size):
    """[((rows, columns) of a window, what is to be made in it bool of `size`)], in order, for unknown bool [h,w]."""
    unknown, found = unknown.copy(), []
    for y, x in windows(unknown, size):
        at = slice(y, y + size[0]), slice(x, x + size[1])
        found.append((at, unknown[at].copy()))
        unknown[at] = False
    return found


def fill(model, ids, holes, labels, seed, sampler, report=None):
    """Generates ids [B,h,w,D] where `holes` (see `holes_of`) says, in place, window by window."""
    began = model.rows.clock()
    for n, (at, hole) in enumerate(holes):
        mask = np.repeat(hole[None], len(ids), axis=0)
        key = [seed, n] if n else seed  # the first window as `sample`
        ids[:, *at] = model.fill(ids[:, *at], mask, labels, key, sampler, decode=False)
        if report:
            report(n + 1, len(holes), model.rows.clock() - began)


def decode(model, ids, wanted):
    """ids [B,h,w,D] -> float32 [B,H,W,3] from 0 to 255, right where wanted bool [H,W] is True."""
    size, f, shape = model.size, model.factor, wanted.shape
    height, width = (side * f for side in ids.shape[1:3])
    made = np.zeros((len(ids), height, width, 3), np.float32)
    axes = []
    for length, own in zip(ids.shape[1:3], latent_of(model), strict=True):
        starts = tiles(length, own)
        axes.append(list(zip(starts, ramps([s * f for s in starts], own * f, length * f), strict=True)))
    for (y, down), (x, across) in itertools.product(*axes):
        at = slice(y * f, y * f + size[0]), slice(x * f, x * f + size[1])
        if wanted[at].any():
            part = model.decode(ids[:, y : y + size[0] // f, x : x + size[1] // f])
            made[:, *at] += part * (down[:, None] * across)[..., None]
    return made[:, : shape[0], : shape[1]]


def paste(image, made, weight):
    """made [B,H,W,3] over image uint8 [H,W,3], as much as weight [H,W] says -> uint8 [B,H,W,3]."""
    weight = weight[..., None]
    return np.stack([np.round(x * weight + image * (1 - weight)).clip(0, 255).astype(np.uint8) for x in made])
