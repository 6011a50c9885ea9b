"""grid.png: samples in one picture, each class by itself."""

import math
from collections.abc import Sequence

import numpy as np

from evqgan.core import pictures
from evqgan.core.errors import cut

SHOWN = 100  # ours: images of the picture, the first ones; more can be seen one by one
COLUMNS, WIDTH = 20, 2600  # ours: its classes at most, and its pixels: ten columns of 256
LETTERS = 24  # ours: of the name of a class


def columns_of(labels: np.ndarray, names: Sequence[str] | None, side: int) -> dict[str, list[int]]:
    """Return what grid.png shows, by class: {text: the numbers of the images below it}.

    labels: int32 [num].
    names: of the classes; without any, nothing is returned.
    side: the width of an image in pixels; the first classes are taken that there is room for.
    """
    columns: dict[str, list[int]] = {}
    if not names:
        return columns
    left = WIDTH
    for label in dict.fromkeys(labels.tolist()):
        text = cut(names[label], LETTERS)
        left -= max(side, pictures.width_of(text)) + pictures.GAP
        if columns and (left < 0 or len(columns) == COLUMNS):
            break
        columns.setdefault(text, []).extend(np.flatnonzero(labels == label).tolist())
    return {text: numbers[: max(1, SHOWN // len(columns))] for text, numbers in columns.items()}


def picture(images: dict[int, np.ndarray], columns: dict[str, list[int]]) -> np.ndarray:
    """Return images {number: uint8 [H,W,3]} as one picture, each class by itself if there are any.

    The whole is about as wide as high if there is room, so that few classes are no narrow strip.
    """
    if not columns:
        return pictures.grid(list(images.values()))
    room = WIDTH // (next(iter(images.values())).shape[1] + pictures.GAP)
    most = max(map(len, columns.values()))
    across = max(1, min(round(math.sqrt(most / len(columns))), room // len(columns)))
    parts = {text: pictures.grid([images[i] for i in few], across) for text, few in columns.items()}
    return pictures.row([pictures.label(part, text) for text, part in parts.items()])
