"""What the modes read: the model of a workdir, pictures, and masks."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import checkpoint, chosen_step, processes
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError, size_text
from evqgan.core.progress import heartbeat
from evqgan.inference.images import read_image
from evqgan.inference.model import Model, load


def load_model(
    config: ConfigDict | None,
    workdir: str | os.PathLike[str],
    batch_size: int | None = None,
    step: chosen_step.Step = None,
) -> Model:
    """Return the model of a workdir, which computes in the dtype of its config.

    config: None is the workdir's. step: as of `load`.

    The first process says what takes a while before it begins: this, and compilations.
    """
    chief = processes.this()[0] == 0
    log = functools.partial(print, flush=True) if chief else lambda line: None
    saved, folder = of_workdir(workdir)
    number = models.find_step(folder, saved, step)
    log(f"loading {workdir}{'' if number is None else f', {checkpoint.trained(number)}'}")
    with heartbeat("loading", log):
        model = load(workdir, config or saved, number, batch_size=batch_size)
    model.runner.tell = log
    return model


@contextlib.contextmanager
def of_flag(name: str) -> Iterator[None]:
    """Let an InputError of the body begin with the flag whose value is read."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def read_whole_tokens(path: str | os.PathLike[str], factor: int) -> np.ndarray:
    """Return the centre of a picture that is whole tokens, uint8 [H,W,3]; say what is cropped.

    factor: pixels of a token's side.
    """
    image = read_image(pathlib.Path(path))
    height, width = image.shape[:2]
    h, w = height // factor * factor, width // factor * factor
    if not h * w:
        raise InputError(
            f"{path} is of {size_text((height, width))}: expected at least "
            f"{size_text((factor, factor))} pixels"
        )
    if (h, w) != (height, width):
        sides = f"{width}x{height} cropped to {size_text((h, w))}"
        print(f"{path}: {sides}, multiples of {factor}", flush=True)
    top, left = (height - h) // 2, (width - w) // 2
    return image[top : top + h, left : left + w]
