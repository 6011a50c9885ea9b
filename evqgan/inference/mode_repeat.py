"""The mode sample with --image: the image of a PNG that says how it was made, made again."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from evqgan.core import (
    checkpoint,
    chosen_step,
    exported,
    pictures,
    png_records,
    processes,
    replacing,
    stores,
)
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.inference import planning, records
from evqgan.inference.images import read_image
from evqgan.inference.mode_inputs import load_model, of_flag

NAME = "repeated.png"


@processes.together()
def repeat(
    config: ConfigDict,
    workdir: pathlib.Path,
    out: pathlib.Path | None,
    image: str,
    batch_size: int | None = None,
    step: chosen_step.Step = None,
) -> None:
    """Write repeated.png into `out`, by default workdir/repeated, and say if it is the same.

    image: the PNG's file. batch_size: images a device at a time at most, as `load` has it.
    step: as of `load`; None: the one that the PNG says, if its checkpoint is there, else the last.

    Of several processes the first one does it alone.
    """
    with of_flag("--image"):
        record = records.checked(png_records.read(image))
        there = read_image(image)
    path = (out or exported.results(workdir) / "repeated") / NAME
    if stores.same(path, image):
        raise InputError(f"--image={image} would be replaced: give another folder by --out")
    planning.require_generator(config.stage == "stage2", workdir, "--mode=sample")
    if step is None and record["step"] in checkpoint.steps_in(of_workdir(workdir)[1]):
        step = record["step"]
    with processes.together():
        if processes.this()[0] == 0:
            replacing.begin(path, "sample")
    model = load_model(config, workdir, batch_size, step)  # it takes all processes
    if processes.this()[0]:
        return
    shared = records.of_model(model)
    with of_flag("--image"):
        made = records.repeat(model, shared, record)
    again = {**shared, **record, "mode": "sample"}
    if model.class_names:
        again["class"] = model.class_names[record["label"]]
    pictures.save_png(path, made, again)
    print(f"{path} {differs(made, there)} {image}")


def differs(made: np.ndarray, there: np.ndarray) -> str:
    """Return in words how the pixels of an image uint8 [H,W,3] differ from those of another."""
    if made.shape != there.shape:
        return "has another size than"
    changed = np.count_nonzero((made != there).any(axis=-1))
    return f"differs in {changed:,} pixels from" if changed else "has the very pixels of"
