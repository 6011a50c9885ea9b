"""What the workdirs of a table or figure are: its title says it; what cannot be is refused."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evqgan.benchmark.paper.published import Table
from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.evals.provenance import fingerprint
from evqgan.inference.model import Model

Named = Sequence[tuple[str, Model]]  # by their names in the table


def tokenizer_of(model: Model) -> Mapping[str, Any]:
    """Return the config of a tokenizer, or of a generator's."""
    config = model.config
    return config.tokenizer if config.stage == "stage1" else config.tokenizer.model


def source_of(model: Model) -> str:
    """Return the folder or the name of the images that a model is measured on."""
    dataset = model.config.dataset
    return dataset.get("folder", "") or dataset.get("name", "")


def x(sides: Sequence[int]) -> str:
    """Return two sides, (height, width), as "16x16"."""
    return "x".join(map(str, sides))


def latent(model: Model) -> str:
    """Return the sides of a model's token grid."""
    return x(model.grid)


def in_words(model: Model) -> str:
    """Return what a model is: its images, its tokens, and of a generator its classes."""
    parts = [f"{source_of(model)} {x(model.size)}"]
    parts.append(f"{latent(model)} tokens of {tokenizer_of(model)['encoder']['name']}")
    if model.config.stage == "stage2":
        parts.append(counted(model.classes, "class") if model.classes else "no classes")
    return ", ".join(parts)


def title(models: Named, table: Table | None = None) -> str:
    """Return what a title says of workdirs: what each is, and whether its images are the table's.

    table: of the paper, whose card says the size of its images; None: of a figure.
    """
    words = "; ".join(f"{name}: {in_words(model)}" for name, model in models)
    text = f"{len(models)} workdir{'s' if len(models) > 1 else ''} given ({words})"
    size = re.match(r"\d+x\d+", table.card.get("images", "")) if table else None
    others = [name for name, model in models if size and x(model.size) != size[0]]
    return text + (f", of other sizes than the paper's {size[0]}" if size and others else "")


def check_on_vqgan(models: Named) -> None:
    """Raise InputError unless all generators are on VQGAN's tokenizer, of a data set on one.

    VQGAN's is a CNN that halves by convolutions, with one code a token, unlike MaskGIT's and
    RQ-VAE's.
    """
    first: dict[str, tuple[str, str]] = {}  # of a data set: a generator, and its tokenizer
    for name, model in models:
        config = tokenizer_of(model)
        coder, quantizer = config["encoder"], config["quantizer"]
        if coder["name"] != "cnn" or "down" in coder or quantizer["name"] == "residual":
            kind = f"{coder['name']} with the quantizer {quantizer['name']}"
            raise InputError(
                f"table7 is of generators on VQGAN's tokenizer, {name} is on another ({kind}): "
                "give workdirs such as those of --config=configs/imagenet_stage2.py:vqgan and "
                "configs/baselines/vqgan_imagenet_stage2.py"
            )
        mark = fingerprint(model.state["tokenizer"])
        other, known = first.setdefault(source_of(model), (name, mark))
        if mark != known:
            raise InputError(
                f"table7 is of generators on one tokenizer, but those of {other} and {name} have "
                f"other weights ({known} and {mark}): train both on one workdir, by "
                "--config.tokenizer.weights"
            )


def check_alike(models: Named) -> None:
    """Raise InputError unless all models are of one data set, size and token grid."""
    for name, model in models[1:]:
        other, first = models[0]
        kinds = [(source_of(m), x(m.size), latent(m)) for m in (first, model)]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"the workdirs have to be of one data set, size and token grid: {other} is of "
                f"{in_words(first)}, {name} of {in_words(model)}"
            )
