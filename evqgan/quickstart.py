"""The main job: a tokenizer, a generator, samples, reconstructions, edits and their numbers, from one config."""

import json

import numpy as np

from evqgan import commands
from evqgan.core import build, pictures
from evqgan.data import pipeline
from evqgan.sample import load
from evqgan.train import train

EDITED = 6  # ours: rows of edits.png, held-out images


def run(config, workdir):
    """Trains config.tokenizer in workdir/tokenizer and config.generator in workdir/generator, then shows what they do.

    What is done already is not done again: training goes on from its checkpoints, and the results are made anew only
    when the generator has moved on.
    """
    first, second = config.tokenizer, config.generator
    train(first, workdir / "tokenizer")
    with second.unlocked():
        second.tokenizer.weights = str(workdir / "tokenizer")
    train(second, workdir / "generator")
    step = latest(workdir / "generator")
    done = workdir / "evaluation.json"
    if done.is_file() and json.loads(done.read_text())["cross_entropy"]["protocol"]["step"] == step:
        print(f"everything is made already: {done}, samples/grid.png, reconstructions.png, edits.png")
        return
    commands.sample(second, workdir, None, config.samples, [], 0, one_by_one=False)
    dataset = build.call(pipeline.Dataset, second.dataset, "config.generator.dataset")
    images, labels = commands.whole(dataset, dataset.validation)
    tokenizer, generator = load(workdir / "tokenizer"), load(workdir / "generator")
    shown = images[:16]
    again = tokenizer.reconstruct(shown)
    named = {"held-out images": shown, "reconstructions": again, "4 x error": pictures.error_map(shown, again)}
    rows = [pictures.label(pictures.row(x), text) for text, x in named.items()]
    pictures.save_png(workdir / "reconstructions.png", pictures.column(rows))
    pictures.save_png(workdir / "edits.png", edits(generator, images, labels))

    commands.evaluate(second, workdir, None, [])
    print(f"done: {done}, samples/grid.png, reconstructions.png, edits.png are in {workdir}")


def edits(model, images, labels):
    """A picture of inpainting, outpainting and class editing of held-out images [N,H,W,3]."""
    height, width = model.size
    unit = model.factor
    centre = np.zeros(model.size, bool)
    centre[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = True
    half = np.zeros(model.size, bool)
    half[height // 2 // unit * unit :] = True
    box = np.zeros(model.size, bool)
    box[:, unit : width - unit] = True
    columns = []
    for image, label in zip(images[:EDITED], labels[:EDITED], strict=True):
        other = (int(label) + 1) % max(model.classes, 1)
        same = int(label) if model.classes else None
        changed = other if model.classes else None
        cells = [pictures.label(image, f"{label}")]
        for mask in (centre, half):
            cells.append(np.where(mask[..., None], np.uint8(128), image))
            cells += list(model.edit(image, mask, same, num=3))
        grown = model.outpaint(image[: height // 2], 0, 0, 0, height - height // 2, same, num=1)
        cells += [pictures.label(x, f"{other}") for x in model.edit(image, box, changed, num=2)]
        columns.append(pictures.column([*cells, *grown]))
    return pictures.row(columns, gap=6)


def latest(workdir):
    """The step of a workdir's latest checkpoint."""
    return load(workdir).step
