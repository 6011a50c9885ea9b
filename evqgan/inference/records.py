"""Records of images: which model, seed and settings made one, kept in its PNG; and doing it again.

An image depends on its seed, number, label and settings, and in its last bits on how many images a
device made at a time: a record has all of these, and fingerprints of the weights.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from evqgan.core import kinds, stores
from evqgan.core.errors import InputError
from evqgan.evals.provenance import fingerprints, plain
from evqgan.inference.core import CoreModel
from evqgan.inference.planning import SEED

NUMBER = Annotated[int, kinds.Range(0, 2**32 - 1)]
# What a record of a sample holds beside the sampler's settings; other modes have further keys.
KINDS: dict[str, Any] = {
    "mode": str,
    "model": str,
    "step": NUMBER,
    "weights": str,
    "tokenizer": str,
    "seed": SEED,
    "number": NUMBER,
    "label": NUMBER,
    "batch": kinds.Positive,
}


def of_model(model: CoreModel) -> dict[str, Any]:
    """Return what the records of all images of a generator share: which model it is.

    The name of its folder is noted, not where it lies; of a run of both stages, that of the run.
    """
    weights, tokenizer = fingerprints(model.state)
    folder = stores.path(model.workdir)
    folder = folder if stores.is_remote(folder) else stores.real(folder)
    name = folder.parent.name if folder.name == "generator" else folder.name
    return {"model": name, "step": model.step, "weights": weights, "tokenizer": tokenizer}


def of_image(
    model: CoreModel,
    shared: Mapping[str, Any],
    *,
    seed: int,
    number: int,
    label: int,
    size: int,
    changes: Mapping[str, Any] | None = None,
    mode: str = "sample",
) -> dict[str, Any]:
    """Return the record of an image, as JSON has it.

    shared: what `of_model` returns.
    label: of its class, 0 if the model has none.
    size: how many images all devices made at a time.
    changes: to config.sample.
    """
    record = {**shared, "mode": mode, "seed": int(seed), "number": int(number)}
    record |= {"label": int(label), "batch": size // model.runner.mesh.size}
    if model.class_names:
        record["class"] = model.class_names[int(label)]
    record["sampler"] = {**model.sampler, **(changes or {})}
    return json.loads(json.dumps(record, default=plain))


def checked(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a PNG says of an image that was sampled; InputError if it cannot be repeated."""
    mode, sampler = found.get("mode"), found.get("sampler")
    if isinstance(mode, str) and mode != "sample":
        raise InputError(
            f"this PNG was made by {mode!r} from what it does not hold: only what --mode=sample or "
            "Generate has made can be repeated"
        )
    wrong = [name for name, kind in KINDS.items() if not kinds.fits(found.get(name), kind)]
    if not isinstance(sampler, dict):
        wrong.append("sampler")
    if wrong:
        raise InputError(
            f"what this PNG says of how it was made is damaged: see {', '.join(wrong)}"
        )
    settings = {name: tuple(x) if isinstance(x, list) else x for name, x in (sampler or {}).items()}
    return {**{name: found[name] for name in KINDS}, "sampler": settings}


def repeat(model: CoreModel, shared: Mapping[str, Any], record: Mapping[str, Any]) -> np.ndarray:
    """Make the image of a record again, uint8 [H,W,3]; InputError if another model has made it.

    shared: what `of_model` returns of the model; record: what `checked` returns.
    """
    for part in ("weights", "tokenizer"):
        if record[part] != shared[part]:
            raise InputError(
                f"this PNG was made by the model {record['model']!r} of step {record['step']:,}, "
                f"whose {part} are others than those of {shared['model']!r} of step "
                f"{shared['step']:,}: load that one, as by --workdir and --step"
            )
    model.check_settings(record["sampler"])
    if record["label"] >= max(model.classes, 1):
        raise InputError(f"this PNG's class is {record['label']}, which the model does not have")
    size = model.runner.mesh.size * min(record["batch"], model.runner.batch_size)
    labels = np.array([record["label"]], np.int32)
    numbers = np.array([record["number"]], np.uint32)
    return model.new(labels, numbers, record["seed"], record["sampler"], rows=size)[1][0]
