"""How far a change of tokens reaches in the decoded image (paper, Sec. 3.1, Fig. 1).

A square block of tokens in the middle is replaced by one token, as in the figure, and decoded
again; this is done for several tokens and held-out images, and the squared change of each pixel is
averaged over them.
"""

import pathlib
from typing import Any

import numpy as np

from evqgan.core import build, pictures
from evqgan.core.cli import PATH, Flag, whole
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.inference.evaluation import load_split
from evqgan.inference.model import Model, load

SHOWN = 4  # ours: images in the picture

Box = tuple[int, int, int, int]  # top, left, bottom, right, in pixels


WORKDIRS = Flag(
    "workdir", PATH, (), "a trained tokenizer; may come several times", repeated=True, required=True
)
FLAGS = (
    WORKDIRS,
    Flag("block", whole(), (), "side of the replaced block, in tokens (2)", 2),
    Flag("images", whole(), (), "how many held-out images (16)", 16),
    Flag("tokens", whole(), (), "how many tokens are tried, one after the other (4)", 4),
    Flag("out", PATH, (), "the picture (locality.png)", "locality.png"),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each workdir."""
    rows, shown = [], []
    for workdir in given.workdir:
        model, name = load_tokenizer(workdir), pathlib.Path(workdir).name
        dataset = build.call(Dataset, model.config.dataset, "config.dataset")
        images, _ = load_split(dataset, dataset.validation, given.images)
        before, after, box = replaced(model, images, given.block, given.tokens)
        change = np.square(after.astype(np.float64) - before).mean(axis=(0, 1, 4))
        rows.append({"workdir": name, "images": len(images), **reach(change, box)})
        shown.append(pictures.label(picture(images, before, after[0], change), name))
    pictures.save_png(given.out, pictures.column(shown, gap=8))
    columns = "image, reconstruction, with the block replaced, 4 x change"
    print(f"{columns}, and where it is on average: {given.out}")
    return f"locality: a block of {given.block}x{given.block} tokens replaced", rows


def load_tokenizer(workdir: str) -> Model:
    """Return the tokenizer of a workdir; InputError if it holds something else."""
    model = load(workdir)
    if model.config.stage != "stage1":
        raise InputError(f"{workdir} holds a {model.config.stage}: give the workdir of a tokenizer")
    return model


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
    if not 0 < side <= min(h, w):
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
    images: np.ndarray, before: np.ndarray, after: np.ndarray, change: np.ndarray
) -> np.ndarray:
    """Return a picture of a few images: as they are, reconstructed, changed, 4 x the difference.

    Beside them is the average change [H,W].
    """
    columns = [
        pictures.column([a, b, c, pictures.error_map(b, c)])
        for a, b, c in zip(images[:SHOWN], before[:SHOWN], after[:SHOWN], strict=True)
    ]
    relative = np.sqrt(change / max(change.max(), 1e-12))
    heat = np.repeat(np.round(255 * relative).astype(np.uint8)[..., None], 3, axis=-1)
    return pictures.row([*columns, heat], gap=8)
