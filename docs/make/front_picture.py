"""Draw the picture at the head of the README: what a generator of drawings does, in its true size.

python -m docs.make.front_picture WORKDIR docs/drawings.png

WORKDIR: of a generator that knows classes, such as that of configs/drawings_stage2.py; of its data
the images that were held out are edited. One seed, nothing chosen by hand.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterable

import numpy as np

import evqgan
from evqgan.core import cli, pictures
from evqgan.data.dataset import Dataset
from evqgan.inference import evaluation, filmstrip
from evqgan.inference.editing import GREY
from evqgan.inference.model import Model

COLUMNS = 12
SEED = 1
WAYS = 2  # results of an edit


def main(argv: list[str]) -> None:
    """Write the picture that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workdir")
    parser.add_argument("out", type=pathlib.Path)
    given = parser.parse_args(argv)
    model = evqgan.load(given.workdir)
    dataset = Dataset(**model.config.dataset)
    images, labels = evaluation.load_split(dataset, dataset.validation)
    order = np.random.default_rng(SEED).permutation(len(images))
    pictures.save_png(given.out, picture(model, images[order], labels[order]))


def picture(model: Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the picture; images: uint8 [N,H,W,3] to edit; labels: their classes, int32 [N]."""
    first = [int(np.argmax(labels == label)) for label in np.unique(labels)]
    chosen = [*first, *(n for n in range(len(images)) if n not in first)][:COLUMNS]
    parts = [filled(model), samples(model)]
    parts += [inpainted(model, images[chosen], labels[chosen]), wider(model, images, labels)]
    return pictures.column([*parts, made_anew(model, images[chosen], labels[chosen])], gap=8)


def filled(model: Model) -> np.ndarray:
    """Return an image being filled block by block."""
    labels, numbers = np.array([0], np.int32), np.array([0], np.uint32)
    history = model.history(labels, numbers, SEED)
    frames = filmstrip.frames(history[0], model.decode(history[:, -1])[0], model.codes)
    shown = np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)
    return titled("an image, filled block by block", frames[shown])


def samples(model: Model) -> np.ndarray:
    """Return a column of samples of each class."""
    made = model.generate(4 * model.classes, seed=SEED).reshape(4, model.classes, *model.size, 3)
    names = model.class_names or [str(n) for n in range(model.classes)]
    columns = [pictures.column(list(made[:, n])) for n in range(model.classes)]
    named = [pictures.label(column, name) for column, name in zip(columns, names, strict=True)]
    return pictures.label(pictures.row(named), "samples, a column a class")


def inpainted(model: Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return held-out images with their centre hidden, and generated anew."""
    mask = np.zeros(model.size, bool)
    height, width = model.size
    mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = True
    rows = [list(images), hidden(images, mask), *edited(model, images, mask, labels)]
    return titled("held-out images; their centre hidden; inpainted, in two ways", *rows)


def wider(model: Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a held-out image of the last class, extended on both sides to a strip."""
    image = images[int(np.argmax(labels == model.classes - 1))]
    margin = (COLUMNS - 1) * model.size[1] // 2 + pictures.GAP * (COLUMNS - 1) // 2
    margin -= margin % model.factor
    strip = model.outpaint(image, margin, 0, margin, 0, label=model.classes - 1, seed=SEED)
    return titled("a held-out image, outpainted to both sides", strip)


def made_anew(model: Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return held-out images of which the lower half becomes another class."""
    mask = np.zeros(model.size, bool)
    mask[model.size[0] // 2 :] = True
    other = (labels + 1) % model.classes
    rows = [list(images), *edited(model, images, mask, other)]
    return titled("held-out images; the lower half made anew as the next class", *rows)


def hidden(images: Iterable[np.ndarray], mask: np.ndarray) -> list[np.ndarray]:
    """Return images [H,W,3], grey where the mask [H,W] hides them."""
    return [np.where(mask[..., None], GREY, image) for image in images]


def edited(
    model: Model, images: np.ndarray, mask: np.ndarray, labels: np.ndarray
) -> list[list[np.ndarray]]:
    """Return WAYS rows of images edited where the mask [H,W] hides them, as these classes."""
    pairs = zip(images, labels, strict=True)
    made = [model.edit(image, mask, label, num=WAYS, seed=SEED) for image, label in pairs]
    return [list(row) for row in zip(*made, strict=True)]


def titled(text: str, *rows: Iterable[np.ndarray]) -> np.ndarray:
    """Return rows of images one below the other, with a line of text above them."""
    return pictures.label(pictures.column([pictures.row(row) for row in rows]), text)


if __name__ == "__main__":
    sys.exit(cli.run_to_code(sys.argv[1:], main))
