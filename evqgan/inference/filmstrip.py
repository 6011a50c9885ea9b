"""The picture of images being filled block by block."""

import numpy as np

from evqgan.core import pictures
from evqgan.inference.core import CoreModel
from evqgan.inference.editing import GREY

IMAGES = 4  # ours: rows of the picture
FRAMES = 16  # ours: frames of a row, as many as a screen shows


def picture(model: CoreModel, labels: np.ndarray, numbers: np.ndarray, seed: int) -> np.ndarray:
    """Return the first images of a seed as they are filled, a row each, uint8 [H',W',3].

    A row begins with nothing and ends with the image; tokens not made yet are grey.

    labels: int32 [B]; numbers: uint32 [B], of the images.
    """
    history = model.history(labels[:IMAGES], numbers[:IMAGES], seed)
    images = model.to_images(history[:, -1])
    pairs = zip(history, images, strict=True)
    return pictures.column([pictures.row(frames(*pair, model.codes)) for pair in pairs])


def frames(history: np.ndarray, image: np.ndarray, codes: int) -> np.ndarray:
    """Return at most FRAMES frames of an image, uint8 [F,H,W,3], the first grey, the last whole.

    history: int [S,h,w,D], the ids after each step, V = `codes` where there is none yet.
    image: uint8 [H,W,3].
    """
    nothing = np.zeros((1, *history.shape[1:3]), bool)
    is_made = np.concatenate([nothing, (history != codes).all(axis=-1)])
    shown = np.linspace(0, len(history), min(FRAMES, len(is_made))).round().astype(int)
    factor = image.shape[0] // history.shape[1]
    seen = is_made[shown].repeat(factor, axis=1).repeat(factor, axis=2)
    return np.where(seen[..., None], image, GREY)
