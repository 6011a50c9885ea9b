"""How far a change of tokens reaches in the decoded image (paper, Sec. 3.1, Fig. 1).

A square block of tokens in the middle is replaced by one token, as in the figure, and decoded
again; this is done for several tokens and held-out images, and the squared change of each pixel is
averaged over them. --workdir=[NAME=]PATH ...: trained tokenizers; without them VQGAN's, ViT-VQGAN's
and ours are trained small on bundled digits, some two minutes. The picture is OUT/fig1.png.
"""

import pathlib
from typing import Any

import numpy as np

from evqgan.benchmark.paper import beside, locality, quality, reconstructed, small
from evqgan.benchmark.paper.published import FIGURES
from evqgan.core import pictures
from evqgan.core.cli import Flag, whole
from evqgan.evals.image_set import Tally
from evqgan.evals.protocols import RECONSTRUCTION
from evqgan.evals.provenance import Measured, Produced
from evqgan.inference import evaluation

SIDE = 96  # ours: pixels that a small image is shown with, at least

FLAGS = (
    quality.WORKDIR,
    Flag("block", whole(1), (), "side of the replaced block, in tokens (2)", 2),
    Flag("images", whole(1), (), "how many held-out images (16)", 16),
    Flag("tokens", whole(1), (), "how many tokens are tried, one after the other (4)", 4),
    small.OUT,
    small.DATA,
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each tokenizer."""
    models, scale = reconstructed.chosen(given)
    rows, shown = [], []
    for name, model in models:
        dataset, tally = evaluation.images_of(model.config), Tally()
        read = evaluation.read_split(dataset, dataset.validation, given.images, tally)
        images, _ = next(read)
        before, after, box = locality.replaced(model, images, given.block, given.tokens)
        change = np.square(after.astype(np.float64) - before).mean(axis=(0, 1, 4))
        measured = Measured(
            RECONSTRUCTION.name,
            Produced("reconstructions", len(images), model.size),
            real=tally.image_set(dataset, dataset.validation),
            settings={"block": given.block, "tokens": given.tokens},
        )
        card = evaluation.subject_of(model).card("locality", measured).as_json()
        row = {"system": name, "data": card["real"]["source"], **locality.reach(change, box)}
        rows.append({"from": beside.OURS, **row, "card": card})
        of_model = locality.picture(images, before, after[0], change, times(model.size[0]))
        shown.append(pictures.label(of_model, name))
    file = pathlib.Path(given.out) / "fig1.png"
    rows_from_above = "from above: image, reconstruction, with the block replaced, 4 x change"
    drawn = pictures.label(pictures.column(shown, gap=8), f"{rows_from_above}; right: mean change")
    pictures.save_png(file, drawn, {"mode": "fig1"})
    print(f"{rows_from_above}; right: where the change is on average: {file}")
    what = f"Fig. 1: a block of {given.block}x{given.block} tokens replaced; {scale}"
    return f"{what} ({FIGURES['fig1']})", beside.aligned(rows)


def times(side: int) -> int:
    """Return how many pixels of the picture a pixel of an image of this side has."""
    return max(1, -(-SIDE // side))
