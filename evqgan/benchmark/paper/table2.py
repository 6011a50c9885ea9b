"""Speed of reconstruction, and how good it is (paper, Table 2), beside the paper's rows.

--workdir=[NAME=]PATH ...: trained tokenizers, each on its own data set. Without them VQGAN's,
ViT-VQGAN's and ours are trained small on bundled digits, some two minutes; and the full-size models
of the paper's rows are timed, untrained, for speed does not depend on the weights: some five
minutes on two CPU cores (--nofull leaves them out). All of one kind are timed in turn.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from evqgan import models
from evqgan.benchmark import device, timing
from evqgan.benchmark.paper import beside, quality, reconstructed
from evqgan.benchmark.paper.published import TABLE2
from evqgan.core.cli import SWITCH, Flag, whole
from evqgan.data import generated
from evqgan.inference.model import Model

# Factor, name in the table, config: the paper's rows, in its order.
FULL = (
    (16, "VQGAN", "baselines/vqgan_imagenet_stage1"),
    (16, "ours", "imagenet_stage1"),
    (8, "VQGAN", "baselines/vqgan_imagenet_stage1:gumbel"),
    (8, "ViT-VQGAN", "baselines/vitvqgan_imagenet_stage1"),
    (8, "ours", "imagenet_stage1:f8"),
)
IMAGES = {"cpu": 1}  # at a time
IMAGES_FULL = 64

FLAGS = (
    *reconstructed.FLAGS,
    Flag("batch", whole(1), (), "images at a time (64; on a CPU 1)"),
    Flag("rounds", whole(1), (), "timed calls of a program (5)", 5),
    Flag("full", SWITCH, (), "time the full-size models, too (yes, where no --workdir is)", True),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows."""
    images = given.batch or IMAGES.get(jax.default_backend(), IMAGES_FULL)
    chosen, scale = reconstructed.chosen(given, TABLE2)
    found = []
    for name, model in chosen:
        numbers, card = quality.of_tokenizer(model, given)
        found.append(({"system": name, "data": card["real"]["source"]}, model, numbers, card))
    programs = [reconstructing(model, images) for _, model, *_ in found]
    speeds = timing.rows_of(programs, given.rounds, float("inf"))
    rows = []
    for (about, model, numbers, card), speed in zip(found, speeds, strict=True):
        row = row_of(about, model.factor, model.size, speed)
        how = timed_how(images, given.rounds)
        rows.append({**row, **numbers, "card": {**card, **how}})
    if given.full and not given.workdir:
        rows += full_size(images, given.rounds)
        scale += ", and full size, untrained"
    return f"{TABLE2.name}, {TABLE2.title}; measured here: {scale}", beside.beside(TABLE2, rows)


def row_of(
    about: dict[str, Any], factor: int, size: tuple[int, int], speed: dict[str, Any]
) -> dict[str, Any]:
    """Return a row. about: its system; speed: what `timing.rows_of` says."""
    latent = "x".join(str(side // factor) for side in size)
    row = {**about, "factor": factor, "latent": latent, "size": size[0]}
    return {**row, "images_per_second": speed["images_per_second"]}


def timed_how(images: int, rounds: int) -> dict[str, Any]:
    """Return what a card says of a speed."""
    return {"batch": images, "timed": f"median of {rounds} calls, in turn"}


def full_size(images: int, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of the full-size models, untrained."""
    programs = []
    for _, name, config in FULL:
        print(f"compiling {name}, {config}", flush=True)
        programs.append(device.reconstructing(config, images, small=False))
    rows, size = [], (256, 256)
    for (factor, name, config), speed in zip(
        FULL, timing.rows_of(programs, rounds, float("inf")), strict=True
    ):
        how = timed_how(images, rounds)
        card = beside.card_of(
            device.dtype_here(), config=config, weights="untrained", images="generated", **how
        )
        rows.append({**row_of({"system": name, "data": None}, factor, size, speed), "card": card})
    return rows


def reconstructing(model: Model, images: int) -> timing.Program:
    """Return the program of a trained tokenizer that encodes and decodes images."""
    tokenizer = models.of_stage1(model.config)
    drawn = np.stack([generated.draw(i, 0, model.size) for i in range(images)])
    given = model.state, jax.device_put(drawn)

    def reconstruct(state: dict, image: jax.Array) -> jax.Array:
        return tokenizer.predict(state, {"image": image}, jax.random.key(0))["reconstruction"]

    compiled: Callable
    compiled, seconds = timing.compile_timed(jax.jit(reconstruct).lower(*given))
    return timing.Program(model.workdir.name, lambda: compiled(*given), images, 0.0, seconds)
