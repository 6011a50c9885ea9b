"""What a change of tokens does to the decoded image: what Fig. 1 measures and shows, see `fig1`."""

from typing import Any

import numpy as np

from evqgan.core import pictures
from evqgan.core.errors import InputError
from evqgan.inference.model import Model

SHOWN = 4  # ours: images in the picture

Box = tuple[int, int, int, int]  # top, left, bottom, right, in pixels


def replaced(
    model: Model, images: np.ndarray, side: int, tokens: int
) -> tuple[np.ndarray, np.ndarray, Box]:
    """Return reconstructions, the same with a block of tokens replaced, and the block's box.

    images: uint8 [N,H,W,3], as the reconstructions; those with another block are [T,N,H,W,3].
    side: of the block, in tokens.
    tokens: T; they are those most often used in these images, the commonest first: as a rule a
        plain surface.
    """
    ids = model.encode(images)
    _, h, w, _ = ids.shape
    if side > min(h, w):
        raise InputError(f"--block={side} does not fit into {w} x {h} tokens")
    top, left, f = (h - side) // 2, (w - side) // 2, model.factor
    kinds, counts = np.unique(ids.reshape(-1, ids.shape[-1]), axis=0, return_counts=True)
    results = []
    for token in kinds[np.argsort(-counts, kind="stable")][:tokens]:
        changed = ids.copy()
        changed[:, top : top + side, left : left + side] = token
        results.append(model.decode(changed))
    box = top * f, left * f, (top + side) * f, (left + side) * f
    return model.decode(ids), np.stack(results), box


def reach(change: np.ndarray, box: Box) -> dict[str, Any]:
    """Return the numbers of a row.

    change: [H,W].
    box: where the block is.

    inside: share of the change in the box's own pixels; r90, r99: distance from the box, in pixels,
    within which 90 % and 99 % of it are; far: mean change of the pixels farther away than the box
    is wide, relative to that inside.
    """
    height, width = change.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    down = np.maximum(np.maximum(box[0] - rows, rows - box[2] + 1), 0)
    across = np.maximum(np.maximum(box[1] - columns, columns - box[3] + 1), 0)
    distance = np.maximum(down, across)  # 0 inside
    total = max(change.sum(), 1e-12)
    within = np.array([change[distance <= r].sum() for r in range(distance.max() + 1)]) / total
    far = change[distance > box[2] - box[0]]
    return {
        "inside": float(within[0]),
        "r90": int(np.argmax(within >= 0.9 - 1e-9)),
        "r99": int(np.argmax(within >= 0.99 - 1e-9)),
        "far": float(far.mean() / max(change[distance == 0].mean(), 1e-12)) if far.size else 0.0,
    }


def picture(
    images: np.ndarray, before: np.ndarray, after: np.ndarray, change: np.ndarray, times: int = 1
) -> np.ndarray:
    """Return a picture of a few images: as they are, reconstructed, changed, 4 x the difference.

    Beside them is the average change [H,W].

    times: how many pixels of the picture a pixel has, along each side.
    """
    columns = []
    for a, b, c in zip(images[:SHOWN], before[:SHOWN], after[:SHOWN], strict=True):
        lines = [enlarged(x, times) for x in (a, b, c, pictures.error_map(b, c))]
        columns.append(pictures.column(lines))
    relative = np.sqrt(change / max(change.max(), 1e-12))
    heat = np.repeat(np.round(255 * relative).astype(np.uint8)[..., None], 3, axis=-1)
    return pictures.row([*columns, enlarged(heat, times)], gap=8)


def enlarged(image: np.ndarray, times: int) -> np.ndarray:
    """Return an image with each pixel as a square of times x times ones."""
    return image.repeat(times, axis=0).repeat(times, axis=1)
