"""Tokenizers side by side on the held-out images of one data set: numbers (paper, Table 1), and a picture."""

import pathlib

import jax

from evqgan.benchmark.locality import tokenizer
from evqgan.core import build, pictures
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.inference.evaluation import evaluate_model, whole


def arguments(parser):
    """The flags."""
    parser.add_argument("--workdir", action="append", required=True, help="a trained tokenizer; may come several times")
    parser.add_argument("--perceptual", default="lpips", help="a distance of evqgan/losses to measure, or nothing")
    parser.add_argument("--weights", default="", help='of its frozen networks: a folder, "" for the cache, or "random"')
    parser.add_argument("--images", type=int, default=8, help="how many held-out images the picture shows")
    parser.add_argument("--out", default="reconstructions.png", help="the picture")


def run(given, rest):
    """-> title, rows: one for each workdir."""
    if rest:
        raise InputError(f"there is no flag {rest[0]}; see --help")
    models = [tokenizer(workdir) for workdir in given.workdir]
    dataset = build.call(pipeline.Dataset, models[0].config.dataset, "config.dataset")
    images, _ = whole(dataset, dataset.validation, given.images)
    shown, rows = {"held-out images": images}, []
    for model, workdir in zip(models, given.workdir, strict=True):
        name = pathlib.Path(workdir).name
        if model.size != models[0].size:
            raise InputError(f"{name} is for images of {model.size}, {given.workdir[0]} for {models[0].size}")
        evals = {"reconstruction": {"perceptual": given.perceptual, "weights": given.weights}}
        ((numbers, _),) = evaluate_model(model, model.config, dataset, evals)
        parameters = sum(x.size for x in jax.tree.leaves(model.state["ema"]))
        rows.append({"workdir": name, "step": model.step, "parameters": parameters, **numbers})
        shown[name] = model.reconstruct(images)
    lines = [pictures.label(pictures.row(list(row)), text) for text, row in shown.items()]
    pictures.save_png(given.out, pictures.column(lines))
    print(f"held-out images and what each tokenizer makes of them: {given.out}")
    return "reconstruction of held-out images", rows
