"""The modes sample and edit: a trained workdir to pictures on disk."""

import json
import pathlib

import numpy as np

from evqgan import rejection, steps, train
from evqgan.core import files, pictures, processes
from evqgan.core import stage as stages
from evqgan.core.errors import InputError
from evqgan.core.log import duration
from evqgan.core.rows import Progress
from evqgan.data import transforms
from evqgan.edit import GREY
from evqgan.sample import load, read_config

GRID = 100  # ours: images of grid.png, the first ones; more can be seen one by one


def settings(given, workdir):
    """The config of a workdir, with the keys of `given` that say how to sample and evaluate.

    given: the config the workdir was made with, or that of the quickstart which it is a part of; InputError when it is
    another one's.
    """
    config, place = read_config(workdir)
    if given.stage == "quickstart":
        given = given.tokenizer if config.stage == "stage1" else given.generator
    same = config.stage == given.stage
    if same and config.stage == "stage2":
        given = given.copy_and_resolve_references()
        with given.unlocked():
            given.tokenizer = config.tokenizer  # it was found by training
    ours, theirs = (stages.filled(c) if same else {"stage": c.stage} for c in (given, config))
    found_by_training = ("class_names", "data", *(("tokenizer", "stored_ids") if config.stage == "stage2" else ()))
    for key, (here, there) in train.difference(ours, theirs).items():
        if not any(f"{key}.".startswith(f"{free}.") for free in (*train.FREE, *found_by_training)):
            raise InputError(
                f"{place} holds a run with config.{key} = {there}, --config says {here}: give another --workdir, or "
                "leave --config out"
            )
    with config.unlocked():
        config.update({key: given[key] for key in train.FREE if key in given})
    return config


@processes.together()
def sample(
    config, workdir, out, num, labels, seed, one_by_one=True, batch_size=64, steps_strip=False, acceptance=1.0,
    classifier=None, classifier_weights="",
):  # fmt: skip
    """`num` samples into `out` (default: workdir/samples): samples.npz, grid.png, and one PNG an image.

    steps_strip: steps.png too (`steps.picture`). With an `acceptance` below 1, those of more candidates that the
    `classifier` likes best (`rejection.find`; default resnet101); stopped, the same call goes on in out/candidates.
    Of several processes each makes a part, in out/parts, which has to be one folder for all; the first one writes.
    """
    out = out or pathlib.Path(workdir) / "samples"
    model = load(workdir, config, batch_size=batch_size)
    model.check_generates(num)
    choice, about, report, part = {}, {}, Progress(model.rows), processes.this()
    if acceptance != 1:
        classifier = rejection.find(classifier or "resnet101", model, classifier_weights)
        choice = {"acceptance": acceptance, "classifier": classifier, "folder": out / "candidates"}
        about = {"acceptance": acceptance, "classifier": rejection.name_of(classifier)}
    elif classifier or classifier_weights:
        raise InputError("a classifier chooses among candidates: give an --acceptance below 1 too, such as 0.5")
    with processes.together():
        made = model.sample(num, labels, seed, None if part[0] else report, part=part, **choice)
        if part[1] > 1:
            files.save_npz(out / "parts" / f"{part[0]}.npz", **made)
    if part[0]:
        return
    made = merged(out / "parts", part[1], num) if part[1] > 1 else made
    images = made["images"]
    about |= {"candidates": report.total} if choice else {}
    how = {"step": model.step, "seed": seed, "sampler": json.dumps(model.sampler), **about}
    how |= {"class_names": model.class_names} if model.class_names and "labels" in made else {}
    before = (out / "samples.npz").is_file()
    files.save_npz(out / "samples.npz", **made, **{name: np.asarray(value) for name, value in how.items()})
    if choice:
        rejection.remove(choice["folder"])
    columns = 10 if num >= GRID else None  # with ten classes in turn, a column is a class
    pictures.save_png(out / "grid.png", pictures.grid(images[:GRID], columns))
    if one_by_one:
        for i, image in enumerate(images):
            pictures.save_png(out / f"{i:05d}.png", image)
    if before:
        remove_from(out, "[0-9][0-9][0-9][0-9][0-9].png", num if one_by_one else 0)
    if steps_strip:
        labels = made.get("labels", np.zeros(num, np.int32))
        pictures.save_png(out / "steps.png", steps.picture(model, labels, made["numbers"], seed))
    best = f", the best of {report.total:,}," if choice else ""
    print(f"{num:,} samples{best} of step {model.step:,} are in {out}  {report.rate}")


def merged(folder, parts, number):
    """What so many processes left in `folder`, one part after the other -> {name: array [number,...]}; they go."""
    found = []
    for path in (folder / f"{i}.npz" for i in range(parts)):
        if not path.is_file():
            raise InputError(f"{path} was made elsewhere: --out has to be one folder for all processes")
        with np.load(path, allow_pickle=False) as saved:
            found.append(dict(saved))
    rejection.remove(folder)
    return {name: np.concatenate([part[name] for part in found])[:number] for name in found[0]}


def remove_from(folder, pattern, number):
    """Removes the pictures of an earlier call from `number` on: `pattern` is a glob, whose files end in digits."""
    for path in folder.glob(pattern):
        if int(path.stem.split("_")[-1]) >= number:
            path.unlink()


def filled(done, number, seconds):
    """Prints how far a large edit is, and the time left."""
    if number > 1:
        left = duration(seconds / done * (number - done))
        print(f"edit {done:,}/{number:,} windows  {seconds:,.1f} s  ETA {left}", flush=True)


@processes.together()
def edit(config, workdir, out, image, mask, box, outpaint, label, num, seed, batch_size=64, **how):
    """Inpainting, outpainting or class editing of one picture into `out` (default: workdir/edits).

    how: margin and feather of `evqgan.edit`. Of several processes the first one does it alone.
    """
    if not image or sum(x is not None for x in (mask, box, outpaint)) != 1:
        raise InputError("edit needs --image=FILE and exactly one of --mask=FILE, --box=l,t,r,b, --outpaint=l,t,r,b")
    out = out or pathlib.Path(workdir) / "edits"
    picture = read_image(image)
    height, width = picture.shape[:2]
    hidden = np.zeros((height, width), bool)
    if mask is not None:
        white = read_mask(mask)
        if white.shape != hidden.shape:
            raise InputError(
                f"expected a mask of the image's {width} x {height} pixels, {mask} has "
                f"{white.shape[1]} x {white.shape[0]}"
            )
        hidden = white
    elif box is not None:
        left, top, right, bottom = numbers("--box", box)
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise InputError(f"--box={left},{top},{right},{bottom} does not lie in the image of {width} x {height}")
        hidden[top:bottom, left:right] = True
    else:
        left, top, right, bottom = numbers("--outpaint", outpaint)
    model, how = load(workdir, config, batch_size=batch_size), {"report": filled, **how}  # to load takes all processes
    if processes.this()[0]:
        return None
    if outpaint is not None:
        results = model.outpaint(picture, left, top, right, bottom, label, num, seed, **how)
        margins = ((top, bottom), (left, right))
        picture = np.pad(picture, (*margins, (0, 0)))
        hidden = np.pad(hidden, margins, constant_values=True)
    else:
        results = model.edit(picture, hidden, label, num, seed, **how)
    masked = np.where(hidden[..., None], GREY, picture)
    before = (out / "strip.png").is_file()
    for i, result in enumerate(results):
        pictures.save_png(out / f"edit_{i:03d}.png", result)
    pictures.save_png(out / "masked.png", masked)
    pictures.save_png(out / "strip.png", pictures.row([masked, *results]))
    if before:
        remove_from(out, "edit_[0-9][0-9][0-9].png", num)
    print(f"{len(results)} edits are in {out}")
    return masked, results


def numbers(flag, texts):
    """Four whole numbers from a flag's parts."""
    try:
        left, top, right, bottom = (int(x) for x in texts)
    except ValueError:
        raise InputError(f"{flag} takes four whole numbers, left,top,right,bottom, not {','.join(texts)}") from None
    return left, top, right, bottom


def read_image(path, background="white"):
    """A picture file -> uint8 [H,W,3]; transparency is laid over the `background`."""
    data = transforms.read_bytes(path)
    try:
        return transforms.decode(data, background)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_mask(path):
    """A picture file, white where an image is made anew, transparent or black where it is kept -> bool [H,W]."""
    grey = read_image(path, "black").mean(axis=-1)
    if grey.max() < 128:
        raise InputError(
            f"the mask {path} hides nothing: pixels are made anew from 128 of 255 on, and its brightest is "
            f"{grey.max():.0f}; transparent ones are kept"
        )
    return grey >= 128
