"""The picture of images being filled block by block."""

import numpy as np

from evqgan.core import pictures
from evqgan.inference.editing import GREY

IMAGES = 4  # ours: rows of the picture
FRAMES = 16  # ours: frames of a row, as many as a screen shows


def picture(model, labels, numbers, seed, sampler=None):
    """The first images of these labels int32 [B] and `numbers` [B] of the seed, a row each -> uint8 [H',W',3].

    model: a generator `CoreModel`. A row begins with nothing and ends with the image; tokens not made yet are grey.
    """
    labels, numbers = labels[:IMAGES], numbers[:IMAGES]
    states = model.new(labels, numbers, seed, {**(sampler or {}), "trace": True})
    images = model.decode(states[:, -1])
    return pictures.column([pictures.row(frames(*pair, model.codes)) for pair in zip(states, images, strict=True)])


def frames(states, image, codes):
    """An image [H,W,3] as it is filled -> at most FRAMES images uint8 [F,H,W,3], the first grey, the last whole.

    states [S,h,w,D] int: the tokens after each step, V = `codes` where there is none yet; a token once made stays.
    """
    made = np.concatenate([np.zeros((1, *states.shape[1:3]), bool), (states != codes).all(axis=-1)])
    shown = np.linspace(0, len(states), min(FRAMES, len(made))).round().astype(int)
    f = image.shape[0] // states.shape[1]
    seen = made[shown].repeat(f, axis=1).repeat(f, axis=2)
    return np.where(seen[..., None], image, GREY)
