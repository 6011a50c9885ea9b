"""The modes sample, edit and evaluate: a trained workdir to pictures and numbers on disk."""

import itertools
import json
import math
import pathlib
import zipfile
import zlib

import jax
import numpy as np
from ml_collections import ConfigDict

import evqgan
from evqgan import rejection, stage2, steps, train
from evqgan.core import build, files, mesh, pictures, processes
from evqgan.core import stage as stages
from evqgan.core.errors import InputError
from evqgan.core.log import duration
from evqgan.core.rows import Progress
from evqgan.data import pipeline, transforms
from evqgan.edit import GREY
from evqgan.evals import samples as sample_statistics
from evqgan.sample import load, read_config

GRID = 100  # ours: images of grid.png, the first ones; more can be seen one by one
WHOLE = 2**31  # ours: bytes of decoded images, of which samples are compared with each one


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
        given = stage2.with_classes(given.copy_and_resolve_references(), config.generator.get("classes", 0))
        with given.unlocked():
            given.tokenizer = config.tokenizer  # it was found by training, as classes may be
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


@processes.together()
def evaluate(config, workdir, out, metrics, batch_size=None):
    """The numbers of config.evals, and those of workdir/samples/samples.npz where there is one, into evaluation.json.

    Each number stands with its protocol card: what was measured on what, with which weights. Of a quickstart's workdir
    both the tokenizer and the generator, which has `config`, are measured. With `metrics`, names of evaluators, the
    other numbers of an evaluation.json remain. batch_size: images a device at a time (default: as the config says).
    Several processes measure together; the first one writes, and it alone has the numbers of samples.
    """
    first = processes.this()[0] == 0
    top, file = pathlib.Path(workdir), (out or pathlib.Path(workdir)) / "evaluation.json"
    parts = [(config, read_config(workdir)[1])]
    if parts[0][1] != top and (top / "tokenizer" / "config.json").is_file():
        parts.insert(0, read_config(top / "tokenizer"))
    known = [*(name for part, _ in parts for name in part.evals), "samples"]
    for name in metrics:
        if name not in known:
            raise InputError(f"there is no metric {name!r} in this workdir: {build.nearest(name, known)}")
    samples = top / "samples" / "samples.npz"
    if "samples" in metrics and not samples.is_file():
        raise InputError(f"there is no {samples}: make samples first, with --mode=sample --num=1000")
    found = files.read_json(file, "what evaluate writes; move it away") if metrics and file.is_file() else {}
    for part, place in parts:
        evals = {name: keys for name, keys in part.evals.items() if not metrics or name in metrics}
        compare = part is config and samples.is_file() and (not metrics or "samples" in metrics)
        if evals or compare:
            model, dataset = load(place, part), build.call(pipeline.Dataset, part.dataset, "config.dataset")
            dataset = dataset.of_images()  # stored ids may be gone, and do not change the numbers
            found |= evaluate_model(model, part, dataset, evals, batch_size)
            if compare and first:
                try:
                    found |= evaluate_samples(model, dataset, samples, "samples" in metrics)
                except InputError as error:
                    if "samples" in metrics:
                        raise
                    print(f"no numbers of the samples in {samples}: {error}")
    if first:
        files.save_json(file, found)
        for key, entry in found.items():
            if isinstance(entry["value"], float):
                print(f"{key:32s} {entry['value']:.4g}")
    return found


def evaluate_model(model, config, dataset, evals, batch_size=None):
    """What the evaluators `evals` {name: keys} say of a loaded model -> {name: value, protocol}.

    All devices of all processes work on it. Batches are as large as the config says on any number of them, for random
    masks depend on the batch: devices that cannot divide it compute what others do.
    """
    stage = stages.module(config).make(config)
    config = config.copy_and_resolve_references()
    devices = jax.device_count()
    size = batch_size * devices if batch_size else config.get("eval_batch_size", config.batch_size)
    device_mesh = mesh.make(data=math.gcd(size, devices), tensor=-1)
    state = everywhere(model.state, device_mesh)
    with config.unlocked():
        config.evals = ConfigDict({name: {**keys, "show": 0} for name, keys in evals.items()})  # numbers alone
        config.eval_batch_size = size
    found = {}
    for name, evaluator in train.evaluators(config, stage, dataset, device_mesh).items():
        keys = {"split": dataset.validation, "batch_size": size, **build.plain(evals[name])}
        card = protocol(model, dataset, evaluator=name, **keys)
        for key, value in evaluator.run(state):
            if np.ndim(value) == 0:
                found[key] = {"value": value, "protocol": card}
    return found


def everywhere(state, device_mesh):
    """Arrays that every local device holds whole -> the same arrays as every device of the mesh, local or not, does."""
    whole = mesh.replicated(device_mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_single_device_arrays(x.shape, whole, [s.data for s in x.addressable_shards]),
        state,
    )


def evaluate_samples(model, dataset, file, wanted):
    """What `evals.samples` says of a samples.npz beside the real images of the data set -> {name: value, protocol}.

    Every sample is compared with every image of the data set, so that it must fit WHOLE bytes; if it does not, there
    are no numbers, or InputError if they are `wanted`.
    """
    number = sum(len(pipeline.open_split(dataset, split)) for split in (dataset.train, dataset.validation))
    if number * int(np.prod(dataset.shape)) * 3 > WHOLE:
        message = f"samples are compared with data sets of up to {WHOLE:,} bytes; {number:,} images are more"
        if wanted:
            raise InputError(message)
        print(message)
        return {}
    images, labels, about = read_samples(file)
    train_images, train_labels = whole(dataset, dataset.train)
    held_images, held_labels = whole(dataset, dataset.validation)
    card = protocol(
        model, dataset, evaluator="samples", split=f"{dataset.train}, held out: {dataset.validation}", **about
    )
    numbers = sample_statistics.nearest(images, train_images, held_images)
    numbers |= sample_statistics.frechet(images, train_images, held_images)
    if labels is not None:
        held = (held_images, held_labels)
        numbers |= sample_statistics.classifier_agreement(train_images, train_labels, images, labels, *held)
        numbers |= sample_statistics.spread(images, labels, train_images, train_labels)
    return {name: {"value": value, "protocol": card} for name, value in numbers.items()}


def read_samples(file):
    """A samples.npz -> images, labels or None, and how they were made, for the protocol card."""
    try:
        with np.load(file, allow_pickle=False) as saved:
            images, labels = saved["images"], saved.get("labels")
            how = {"samples_step": int(saved["step"]), "samples_seed": int(saved["seed"])}
            how |= {name: saved[name].item() for name in ("acceptance", "classifier", "candidates") if name in saved}
            return images, labels, {"samples": len(images), **how, "sampler": json.loads(saved["sampler"].item())}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} is not what --mode=sample writes: {error}; make the samples again") from error


def whole(dataset, split, limit=None):
    """The images and labels of a split, or the first ones, as evaluation sees them -> uint8 [N,H,W,3], int32 [N]."""
    batches = itertools.islice(pipeline.eval_batches(dataset.of_images(), split, limit or 64), 1 if limit else None)
    batches = [{k: v[b["valid"]] for k, v in b.items()} for b in batches]
    return tuple(np.concatenate([b[key] for b in batches]) for key in ("image", "label"))


def protocol(model, dataset, **more):
    """What a number needs beside it to be compared with another one."""
    data = dataset.folder or dataset.name
    return {
        "workdir": model.workdir.name,
        "step": model.step,
        "weights": "averaged (EMA)",
        "data": data,
        "size": list(model.size),
        "crop": dataset.crop,
        "images": "uint8, rounded and clipped",
        "device": jax.devices()[0].device_kind,
        "versions": {"evqgan": evqgan.__version__, "jax": jax.__version__},
        **more,
    }


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
