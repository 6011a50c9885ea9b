"""What the modes read: the model of a workdir, pictures, and masks."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from evqgan.core import processes
from evqgan.core.errors import InputError
from evqgan.core.progress import heartbeat
from evqgan.data import transforms
from evqgan.inference.model import Model, load

WHITE = 128  # ours: a mask hides pixels from this brightness on, of 255
COLOUR = 64  # ours: by so much red, green and blue may differ in what is meant to be grey


def load_model(
    config: ConfigDict | None, workdir: str | os.PathLike[str], batch_size: int | None = None
) -> Model:
    """Return the model of a workdir; config: None is the workdir's.

    The first process says what takes a while before it begins: this, and compilations.
    """
    chief = processes.this()[0] == 0
    log = functools.partial(print, flush=True) if chief else lambda line: None
    log(f"loading {workdir}")
    with heartbeat("loading", log):
        model = load(workdir, config, batch_size=batch_size)
    model.runner.tell = log
    return model


@contextlib.contextmanager
def of_flag(name: str) -> Iterator[None]:
    """Let an InputError of the body begin with the flag whose value is read."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def read_image(path: str | os.PathLike[str], background: str = "white") -> np.ndarray:
    """Return the picture in a file as uint8 [H,W,3]; transparency is laid over the `background`."""
    data = transforms.read_bytes(path)
    try:
        return transforms.decode(data, background)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Return a mask file as bool [H,W]: True where it is white, and the image is generated.

    What is black or transparent is kept. Raises InputError for a mask that hides nothing, or has
    colours.
    """
    image = read_image(path, "black")
    rule = "it must be white where the image is generated, and black or transparent elsewhere"
    if (colour := np.ptp(image, axis=-1)).max() > COLOUR:
        y, x = np.unravel_index(colour.argmax(), colour.shape)
        found = ", ".join(map(str, image[y, x]))
        raise InputError(f"the mask {path} has colours (red, green, blue = {found}): {rule}")
    grey = image.mean(axis=-1)
    if grey.max() < WHITE:
        raise InputError(
            f"the mask {path} hides nothing: pixels are generated from {WHITE} of 255 on, and its "
            f"brightest is {grey.max():.0f}; {rule}"
        )
    return grey >= WHITE


def read_whole_tokens(path: str | os.PathLike[str], factor: int) -> np.ndarray:
    """Return the centre of a picture that is whole tokens, uint8 [H,W,3]; say what is cropped.

    factor: pixels of a token's side.
    """
    image = read_image(pathlib.Path(path))
    height, width = image.shape[:2]
    h, w = height // factor * factor, width // factor * factor
    if not h * w:
        least = f"expected at least {factor} x {factor}"
        raise InputError(f"{path} has {width} x {height} pixels: {least}")
    if (h, w) != (height, width):
        sides = f"{width} x {height} pixels cropped to {w} x {h}"
        print(f"{path}: {sides}, multiples of {factor}", flush=True)
    top, left = (height - h) // 2, (width - w) // 2
    return image[top : top + h, left : left + w]
