"""The modes sample, edit and evaluate: a trained workdir to pictures and numbers on disk."""

import pathlib

import jax
import numpy as np

import evqgan
from evqgan import train
from evqgan.core import build, files, mesh, pictures
from evqgan.core.errors import InputError
from evqgan.core.log import duration
from evqgan.data import pipeline, transforms
from evqgan.evals import samples as sample_statistics
from evqgan.sample import load, read_config

GRID = 100  # ours: images of grid.png, the first ones; more can be seen one by one


def progress(num, what):
    """A report(done, seconds) that prints images/s and the time left."""

    def report(done, seconds):
        rate = done / seconds
        print(f"{what} {done:,}/{num:,}  {rate:,.1f} images/s  ETA {duration((num - done) / rate)}", flush=True)

    return report


def sample(config, workdir, out, num, labels, seed, one_by_one=True):
    """`num` samples into `out` (default: workdir/samples): samples.npz, grid.png, and one PNG an image."""
    out = out or pathlib.Path(workdir) / "samples"
    model = load(workdir, config)
    images, labels, ids = model.generate(num, labels, seed, progress(num, "sample"))
    conditional = {"labels": labels} if model.classes else {}
    about = {"step": np.int64(model.step), "seed": np.int64(seed)}
    files.save_npz(out / "samples.npz", images=images, ids=ids, **conditional, **about)
    columns = 10 if num >= GRID else None  # with ten classes in turn, a column is a class
    pictures.save_png(out / "grid.png", pictures.grid(images[:GRID], columns))
    if one_by_one:
        for i, image in enumerate(images):
            pictures.save_png(out / f"{i:05d}.png", image)
    print(f"{num:,} samples of step {model.step:,} are in {out}")
    return images, labels


def edit(config, workdir, out, image, mask, box, outpaint, label, num, seed):
    """Inpainting, outpainting or class editing of one picture into `out` (default: workdir/edits)."""
    if not image or sum(x is not None for x in (mask, box, outpaint)) != 1:
        raise InputError("edit needs --image=FILE and exactly one of --mask=FILE, --box=l,t,r,b, --outpaint=l,t,r,b")
    out = out or pathlib.Path(workdir) / "edits"
    picture = read_image(image)
    height, width = picture.shape[:2]
    hidden = np.zeros((height, width), bool)
    if mask is not None:
        grey = read_image(mask)[..., 0]
        if grey.shape != hidden.shape:
            raise InputError(
                f"expected a mask of the image's {width} x {height}, {mask} has {grey.shape[1]} x {grey.shape[0]}"
            )
        hidden = grey >= 128
    elif box is not None:
        left, top, right, bottom = numbers("--box", box)
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise InputError(f"--box={left},{top},{right},{bottom} does not lie in the image of {width} x {height}")
        hidden[top:bottom, left:right] = True
    model = load(workdir, config)
    if outpaint is not None:
        left, top, right, bottom = numbers("--outpaint", outpaint)
        results = model.outpaint(picture, left, top, right, bottom, label, num, seed)
        margins = ((top, bottom), (left, right))
        picture = np.pad(picture, (*margins, (0, 0)))
        hidden = np.pad(hidden, margins, constant_values=True)
    else:
        results = model.edit(picture, hidden, label, num, seed)
    masked = np.where(hidden[..., None], np.uint8(128), picture)
    for i, result in enumerate(results):
        pictures.save_png(out / f"edit_{i:03d}.png", result)
    pictures.save_png(out / "masked.png", masked)
    pictures.save_png(out / "strip.png", pictures.row([masked, *results]))
    print(f"{len(results)} edits are in {out}")
    return masked, results


def evaluate(config, workdir, out, metrics):
    """The numbers of config.evals, and those of workdir/samples/samples.npz where there is one, into evaluation.json.

    Each number stands with its protocol card: what was measured on what, with which weights.
    """
    top = pathlib.Path(workdir)
    _, workdir = read_config(workdir)
    model = load(workdir, config)
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset")
    known = [*config.evals, "samples"]
    for name in metrics:
        if name not in known:
            raise InputError(f"there is no metric {name!r} in this workdir: {build.nearest(name, known)}")
    stage = build.module("", config.stage, "config.stage").make(config)
    found = {}
    for name, evaluator in train.evaluators(config, stage, dataset, mesh.make(devices=jax.devices()[:1])).items():
        if metrics and name not in metrics:
            continue
        card = protocol(model, dataset, evaluator=name, split=dataset.validation, **build.plain(config.evals[name]))
        for key, value in evaluator.run(model.state):
            if np.ndim(value) == 0:
                found[key] = {"value": value, "protocol": card}
    file = top / "samples" / "samples.npz"
    if file.is_file() and (not metrics or "samples" in metrics):
        found |= evaluate_samples(model, dataset, file)
    elif "samples" in metrics:
        raise InputError(f"there is no {file}: make samples first, with --mode=sample --num=1000")
    files.save_json((out or top) / "evaluation.json", found)
    for key, entry in found.items():
        if not isinstance(entry["value"], list):
            print(f"{key:32s} {entry['value']:.4g}")
    return found


def evaluate_samples(model, dataset, file):
    """What `evals.samples` says of a samples.npz beside the real images of the data set -> {name: value, protocol}."""
    with np.load(file, allow_pickle=False) as saved:
        images, labels = saved["images"], saved.get("labels")
        about = {"samples": len(images), "samples_step": int(saved["step"]), "samples_seed": int(saved["seed"])}
    train_images, train_labels = whole(dataset, dataset.train)
    held_images, held_labels = whole(dataset, dataset.validation)
    card = protocol(
        model, dataset, evaluator="samples", split=f"{dataset.train}, held out: {dataset.validation}", **about
    )
    numbers = sample_statistics.nearest(images, train_images, held_images)
    if labels is not None:
        held = (held_images, held_labels)
        numbers |= sample_statistics.classifier_agreement(train_images, train_labels, images, labels, *held)
        numbers |= sample_statistics.spread(images, labels, train_images, train_labels)
    return {name: {"value": value, "protocol": card} for name, value in numbers.items()}


def whole(dataset, split):
    """All images and labels of a split, as evaluation sees them -> uint8 [N,H,W,3], int32 [N]."""
    batches = [{k: v[b["valid"]] for k, v in b.items()} for b in pipeline.eval_batches(dataset, split, 64)]
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


def read_image(path):
    """A picture file -> uint8 [H,W,3]."""
    try:
        return transforms.decode(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error.strerror or error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
