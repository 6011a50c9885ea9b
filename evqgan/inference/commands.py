"""The modes sample, edit and reconstruct: a trained workdir to pictures on disk."""

import collections
import functools
import itertools
import json
import pathlib
import re

import numpy as np

from evqgan.core import files, pictures, processes
from evqgan.core.errors import InputError
from evqgan.core.log import duration
from evqgan.data import folder as folders
from evqgan.data import transforms
from evqgan.inference import filmstrip, rejection
from evqgan.inference.batched import Progress
from evqgan.inference.editing import GREY
from evqgan.inference.model import load

GRID = 100  # ours: images of grid.png, the first ones; more can be seen one by one
COLUMNS, WIDTH = 20, 2600  # ours: its classes at most, and its pixels: ten columns of 256
LETTERS = 24  # ours: of the name of a class
PIXELS = 2**22  # ours: a device reconstructs 4 million pixels at a time, as `encode`


def opened(config, workdir, batch_size):
    """The model of a workdir; the first process says what takes a while before it begins, this and compilations."""
    say = functools.partial(print, flush=True) if processes.this()[0] == 0 else lambda line: None
    say(f"loading {workdir}")
    model = load(workdir, config, batch_size=batch_size)
    model.rows.tell = say
    return model


@processes.together()
def sample(
    config, workdir, out, num, labels, seed, one_by_one=True, batch_size=64, steps_strip=False, acceptance=1.0,
    classifier=None, classifier_weights="", force=False,
):  # fmt: skip
    """`num` samples into `out` (default: workdir/samples): samples.npz, grid.png, and images/, a PNG an image.

    Stopped, the same call goes on: what is made is kept as ids in out/candidates until all is written. No more than a
    batch of images is ever in memory. steps_strip: steps.png too (`filmstrip.picture`). With an `acceptance` below 1,
    those of more candidates that the `classifier` likes best (`rejection.find`; default resnet101). force: more than
    `room.IMAGES`, too. Several processes share the candidates, `out` has to be one folder for all; the first one
    writes.
    """
    out = out or pathlib.Path(workdir) / "samples"
    model = opened(config, workdir, batch_size)
    labels = model.planned(num, labels, seed, acceptance, force)
    about, report, part = {}, Progress(model.rows), processes.this()
    if acceptance != 1:
        classifier = rejection.find(classifier or "resnet101", model, classifier_weights)
        about = {"acceptance": acceptance, "classifier": rejection.name_of(classifier)}
    elif classifier or classifier_weights:
        raise InputError("a classifier chooses among candidates: give an --acceptance below 1 too, such as 0.5")
    with processes.together():
        if not part[0]:
            files.tried(out)
            check_samples(out / "images")
    with processes.together():
        made, size = rejection.choose(
            model, labels, seed, acceptance, classifier or None, out / "candidates", {},
            None if part[0] else report, part,
        )  # fmt: skip
    if part[0]:
        return
    about |= {"candidates": report.total} if classifier else {}
    how = {"step": model.step, "seed": seed, "sampler": json.dumps(model.sampler), **about}
    if model.classes:
        how |= {"class_names": model.class_names} if model.class_names else {}
    else:
        del made["labels"]
    columns = columns_of(labels, how.get("class_names"), model.size[1])
    shown = dict.fromkeys(itertools.chain(*columns.values()) if columns else range(min(num, GRID)))
    print(f"writing {num:,} images to {out}", flush=True)
    with files.swapped(out / "images") as folder:
        images = written(model, made["ids"], size, folder if one_by_one else None, shown)
        images = files.Pieces((num, *model.size, 3), np.uint8, images)
        files.save_npz(out / "samples.npz", images=images, **made, **how)
    if not one_by_one:
        (out / "images").rmdir()
    pictures.save_png(out / "grid.png", grid(shown, columns))
    if steps_strip:
        pictures.save_png(out / "steps.png", filmstrip.picture(model, labels, made["numbers"], seed))
    rejection.remove(out / "candidates")
    best = f", the best of {report.total:,}," if classifier else ""
    print(f"{num:,} samples{best} of step {model.step:,} are in {out}  {report.rate}")


def check_samples(folder):
    """InputError if in `folder`, which will be replaced, there is anything but samples of an earlier call."""
    for path in folder.glob("*"):
        if not re.fullmatch(r"\d{5,}\.png", path.name):
            raise InputError(f"{folder} would be replaced, but holds {path.name}, no sample: give another --out")


def written(model, ids, size, folder, shown):
    """Yields the images of ids [N,h,w,D], decoded `size` at a time; each becomes a PNG in `folder`, if there is one.

    shown: {number of an image: None}, which become {number: image}.
    """
    for start in range(0, len(ids), size):
        images = model.decode(ids[start : start + size], size)
        for i, image in enumerate(images, start):
            if i in shown:
                shown[i] = image
            if folder:
                pictures.save_png(folder / f"{i:05d}.png", image)
        yield images


def columns_of(labels, names, side):
    """What grid.png shows of labels int32 [num], by class: {text: the numbers of the images below it}.

    The first classes, as many as there is room for with images `side` pixels wide. Without `names` nothing.
    """
    columns, left = {}, WIDTH
    for label in dict.fromkeys(labels.tolist() if names else []):
        text = names[label] if len(names[label]) <= LETTERS else f"{names[label][: LETTERS - 3]}..."
        left -= max(side, pictures.width_of(text)) + pictures.GAP
        if columns and (left < 0 or len(columns) == COLUMNS):
            break
        columns.setdefault(text, []).extend(np.flatnonzero(labels == label).tolist())
    return {text: numbers[: max(1, GRID // len(columns))] for text, numbers in columns.items()}


def grid(images, columns):
    """Images {number: uint8 [H,W,3]} as a picture, in `columns` of a class each, if there are any."""
    if not columns:
        return pictures.grid(list(images.values()))
    return pictures.row(
        [pictures.label(pictures.column([images[i] for i in numbers]), text) for text, numbers in columns.items()]
    )


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

    how: margin and feather of `inference.editing`. Of several processes the first one does it alone.
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
    model, how = opened(config, workdir, batch_size), {"report": filled, **how}  # to load takes all processes
    if processes.this()[0]:
        return None
    files.tried(out)
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
    print(f"{len(results):,} {'edit is' if len(results) == 1 else 'edits are'} in {out}")
    return masked, results


@processes.together()
def reconstruct(config, workdir, out, image, batch_size=64):
    """`image`, a picture file or a folder of them, as `input | reconstruction`, into `out` (workdir/reconstructions).

    Pictures have any size; what a side has beyond a multiple of the tokenizer's factor is cropped, on both ends. A
    folder's pictures keep their places below it, and one that cannot be used is skipped with a line. Of several
    processes the first one does it alone.
    """
    if not image:
        raise InputError("reconstruct needs --image=FILE, or --image=FOLDER of pictures")
    image, out = pathlib.Path(image), out or pathlib.Path(workdir) / "reconstructions"
    paths = [image / name for name in folders.image_paths(str(image))] if image.is_dir() else [image]
    targets = named([path.relative_to(image if image.is_dir() else image.parent) for path in paths])
    model = opened(config, workdir, batch_size)  # it takes all processes
    if processes.this()[0]:
        return
    files.tried(out)
    skipped, made = [], 0

    def inputs():
        for target, path in zip(targets, paths, strict=True):
            try:
                yield target, whole_tokens(path, model.factor)
            except InputError as error:
                if not image.is_dir():
                    raise
                skipped.append(path)
                print(f"skipped: {error}", flush=True)

    for shape, alike in itertools.groupby(inputs(), lambda pair: pair[1].shape):
        each = max(1, min(batch_size, PIXELS // (shape[0] * shape[1]))) * model.rows.mesh.size
        while some := list(itertools.islice(alike, each)):
            images = np.stack([before for _, before in some])
            again = model.reconstruct(images, min(each, model.rows.size(len(images))))
            for (target, before), after in zip(some, again, strict=True):
                pictures.save_png(out / target, pictures.row([before, after]))
                made += 1
    if not made:
        raise InputError(f"none of the {len(skipped):,} pictures in {image} can be reconstructed, see above")
    print(f"{made:,} reconstructions are in {out}{f'; {len(skipped):,} were skipped' if skipped else ''}")


def named(paths):
    """Relative paths of pictures -> those of the PNG files that are made of them: a.jpg -> a.png, if no other does."""
    ends = [path.with_suffix(".png") for path in paths]
    counts = collections.Counter(ends)
    pairs = zip(paths, ends, strict=True)
    return [end if counts[end] == 1 else path.with_name(f"{path.name}.png") for path, end in pairs]


def whole_tokens(path, factor):
    """The picture in a file, its centre of whole tokens -> uint8 [H,W,3]; says what is cropped."""
    image = read_image(path)
    height, width = image.shape[:2]
    sides = h, w = height // factor * factor, width // factor * factor
    if not h * w:
        raise InputError(f"{path} has {width} x {height} pixels: expected at least {factor} x {factor}")
    if sides != (height, width):
        print(f"{path}: {width} x {height} pixels cropped to {w} x {h}, multiples of {factor}", flush=True)
    top, left = (height - h) // 2, (width - w) // 2
    return image[top : top + h, left : left + w]


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
