"""Tokenizers side by side on the held-out images of one data set (paper, Table 1)."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from evqgan.core import build, pictures
from evqgan.core.cli import PATH, TEXT, Flag, whole
from evqgan.core.config_files import of_tokenizer
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.inference.evaluation import evaluate_model, load_split
from evqgan.inference.evaluators import evaluators_of
from evqgan.inference.mode_inputs import load_model

FLAGS = (
    Flag(
        "workdir",
        PATH,
        (),
        "a trained tokenizer, or a model of both stages; several times",
        repeated=True,
        required=True,
    ),
    Flag("perceptual", TEXT, (), "a distance of evqgan/losses, or nothing (lpips)", "lpips"),
    Flag(
        "features",
        TEXT,
        (),
        "a network of evqgan/features, whose Frechet distance is measured; several times (none)",
        repeated=True,
    ),
    Flag("weights", PATH, (), 'of the networks: a folder, "" for the cache, or "random"', ""),
    Flag("images", whole(1), (), "how many held-out images the picture shows (8)", 8),
    Flag("out", PATH, (), "the picture (reconstructions.png)", "reconstructions.png"),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each workdir."""
    found = [of_tokenizer(workdir) for workdir in given.workdir]
    configs = [config for config, _ in found]
    dataset = build.call(Dataset, configs[0].dataset, "config.dataset")
    keys = {"perceptual": given.perceptual, "features": tuple(given.features or ())}
    evals = {"reconstruction": {**keys, "weights": given.weights}}
    evaluators = [evaluators_of(config, dataset, evals) for config in configs]
    models = [load_model(*of_one) for of_one in found]
    names = names_of(given.workdir)
    for model, name in zip(models, names, strict=True):
        if model.size != models[0].size:
            sizes = [f"{width}x{height}" for height, width in (model.size, models[0].size)]
            raise InputError(f"{name} is for images of {sizes[0]}, {names[0]} for {sizes[1]}")
    images, _ = load_split(dataset, dataset.validation, given.images)
    shown, rows = {"held-out images": images}, []
    for model, ready, name in zip(models, evaluators, names, strict=True):
        ((numbers, card),) = evaluate_model(model, ready)
        parameters = sum(x.size for x in jax.tree.leaves(model.state["ema"]))
        about = {"workdir": name, "step": model.step, "parameters": parameters}
        rows.append({**about, **numbers, "card": card.as_json()})
        shown[name] = model.reconstruct(images)
    lines = [pictures.label(pictures.row(list(row)), text) for text, row in shown.items()]
    pictures.save_png(given.out, pictures.column(lines), {"mode": "reconstruction"})
    print(f"held-out images and what each tokenizer makes of them: {given.out}")
    return "reconstruction of held-out images", rows


def names_of(workdirs: Sequence[str]) -> list[str]:
    """Return what the rows of workdirs are called: by their folders, or where these are alike all
    of their paths.
    """
    names = [pathlib.Path(workdir).name for workdir in workdirs]
    return names if len(set(names)) == len(names) else list(workdirs)
