"""grid.png: samples in one picture, each class by itself."""

import math
from collections.abc import Sequence

import numpy as np

from evqgan.core import pictures
from evqgan.core.errors import cut

SHOWN = 100  # ours: images of the picture, the first ones; more can be seen one by one
CLASSES, WIDTH = 20, 2600  # ours: at most so many classes, and pixels: room for ten images of 256
LETTERS = 24  # ours: of the name of a class


def by_class(labels: np.ndarray, names: Sequence[str] | None, side: int) -> dict[str, list[int]]:
    """Return what grid.png shows, {name of a class: the numbers of the images below it}.

    labels: int32 [num].
    names: of the classes; without any, nothing is returned.
    side: the width of an image in pixels. As many classes are taken as there is room for, in the
      order in which they come first.
    """
    found: dict[str, list[int]] = {}
    if not names:
        return found
    left = WIDTH
    for label in dict.fromkeys(labels.tolist()):
        text = cut(names[label], LETTERS)
        left -= max(side, pictures.width_of(text)) + pictures.GAP
        if found and (left < 0 or len(found) == CLASSES):
            break
        found.setdefault(text, []).extend(np.flatnonzero(labels == label).tolist())
    return {text: numbers[: max(1, SHOWN // len(found))] for text, numbers in found.items()}


def picture(images: dict[int, np.ndarray], classes: dict[str, list[int]]) -> np.ndarray:
    """Return images {number: uint8 [H,W,3]} as one picture, each class by itself if there are any.

    A class takes several columns where there is room, so that a picture of few is about square.
    classes: of `by_class`.
    """
    if not classes:
        return pictures.grid(list(images.values()))
    room = WIDTH // (next(iter(images.values())).shape[1] + pictures.GAP)
    most = max(map(len, classes.values()))
    across = max(1, min(round(math.sqrt(most / len(classes))), room // len(classes)))
    parts = {text: pictures.grid([images[i] for i in few], across) for text, few in classes.items()}
    return pictures.row([pictures.label(part, text) for text, part in parts.items()])
