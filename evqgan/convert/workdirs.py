"""Public checkpoints of whole models into workdirs; the way back: `way_back`."""

import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from evqgan import models
from evqgan.convert.mapping import Path, Tree, Weights
from evqgan.convert.systems import SIZE, SYSTEMS, Given, System
from evqgan.core import build, files
from evqgan.core.checkpoint import Checkpoints
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError, first_line
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.tokenizers.quantizers import old_form

# A workdir's config beside its model, where no --config is given: enough to be read, evaluated, and
# trained further.
COMMON = {
    "seed": 0,
    "dtype": "float32",
    "batch_size": 16,
    "duration": "10 epochs",
    "log_every": "100 steps",
    "eval_every": "1 epoch",
    "checkpoint_every": "5000 steps",
    "dataset": {"name": "imagenet2012"},
    "optimizer": {"learning_rate": 5e-5},
}
STAGE1 = {
    **COMMON,
    "stage": "stage1",
    "loss": {},
    "evals": {"reconstruction": {}},
    "best": "val/mse",
}
STAGE2 = {
    **COMMON,
    "stage": "stage2",
    "loss": {},
    "sample": {},
    "evals": {"generation": {}},
    "best": "val/cross_entropy",
}
USUAL = {"stage1": STAGE1, "stage2": STAGE2}
# The keys of a quantizer that decide which ids it gives, and their values for one without that key.
DECIDES = {
    "codes": 0,
    "width": 0,
    "depth": 1,
    "shared": True,
    "l2_normalize": False,
    "logits": "",
    "levels": (),
    "bits": 0,
}
COUNTERS = ("steps",)  # variables of ours that say how far a training is, and start again


def convert(
    name: str,
    source: Path,
    dest: Path,
    given: Given,
    tokenizer: str = "",
    config: Any = None,
    only_tokenizer: bool = False,
) -> str:
    """Make a new workdir of a public checkpoint, and return one line on it.

    name: the system.
    source: the checkpoint.
    dest: the workdir.
    given: what the command line says of the file.
    tokenizer: the workdir of the tokenizer, for files that hold a generator alone.
    config: a ConfigDict whose model, data and training it is to be.
    only_tokenizer: whether the generator is left out, in a file that holds both.

    Raises InputError if the file is not what it should be, or `dest` holds anything; nothing is
    left there then.
    """
    system, dest = SYSTEMS[name], pathlib.Path(dest)
    files.check_elsewhere(dest)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        what = f"{dest} is there already: give another DEST"
        raise InputError(f"expected a new folder for the workdir, {what}")
    files.tried(dest)
    first, second = system.split(system.read(source, given.weights))
    second = None if only_tokenizer and first is not None else second
    is_given = config is not None
    config = config_of(config, source, "stage1" if second is None else "stage2")
    wanted = config if is_given else None
    try:
        if second is None:
            size, state = stage1_of(system, first or {}, given, config, wanted)
        else:
            size, state = stage2_of(system, first, second, given, config, wanted, tokenizer)
    except InputError as error:
        what = f"{source} is no file of {name}, or not of this --config"
        raise InputError(f"{what}: {error}") from error
    if not is_given:
        config.dataset.size = size
    write(dest, config, {"step": np.zeros((), np.int32), **state})
    number = sum(x.size for x in jax.tree.leaves(state["ema"]))
    return f"wrote {dest}: {config.stage}, {number:,} parameters from {pathlib.Path(source).name}"


def config_of(given: Any, source: Path, stage: str) -> Any:
    """Return the config of a new workdir, unlocked: a copy of a given one, or the usual one.

    Raises InputError for one of another stage than what the file `source` holds.
    """
    if given is None:
        config = ml_collections.ConfigDict(USUAL[stage])
    elif given.stage == stage:
        config = given.copy_and_resolve_references()
    else:
        part = "generator" if stage == "stage2" else "tokenizer"
        raise InputError(f"{source} holds a {part}, --config is of {given.stage}")
    config.unlock()
    return config


def stage1_of(
    system: System, theirs: Weights, given: Given, config: Any, wanted: Any
) -> tuple[Any, Tree]:
    """Return the size of the images and the state of a tokenizer, and put its keys into `config`.

    wanted: a config that it has to fit, or None.
    """
    keys = wanted.tokenizer if wanted is not None else None
    config.tokenizer, weights = tokenizer_of(system, theirs, given, keys)
    size = config.tokenizer.encoder.get("size", given.size or SIZE)
    return size, {"ema": weights["params"], "codebook": weights["codebook"]}


def stage2_of(
    system: System,
    first: Weights | None,
    second: Weights,
    given: Given,
    config: Any,
    wanted: Any,
    tokenizer: str,
) -> tuple[Any, Tree]:
    """Return the size of the images and the state of a generator, and put its keys into `config`.

    first: the weights of its tokenizer, None where the file holds none: `tokenizer` is its workdir.
    second: the generator's own. wanted: a config that it has to fit, or None.
    """
    weights = None
    if first is None:
        config.tokenizer = tokenizer_config(tokenizer)
    else:
        keys, weights = tokenizer_of(system, first, given, None)
        config.tokenizer = {"weights": "", "model": keys, "dtype": "float32"}  # as theirs
    size, config.generator, params = generator_of(system, second, config, given, wanted)
    if weights is None:
        weights, _ = image_tokenizer(config.tokenizer.model, size).restored(tokenizer)
    return size, {"ema": params, "tokenizer": weights}


@contextlib.contextmanager
def of_other_weights() -> Iterator[None]:
    """Raise InputError for what the body finds no sense in: weights of other names or shapes."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"these are other weights: {error.args[0]} is missing") from error
    except (IndexError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        what = "these are other weights, of names or shapes that make no sense here"
        raise InputError(f"{what} ({first_line(error)})") from error


def tokenizer_config(workdir: Path) -> dict[str, Any]:
    """Return config.tokenizer of a generator on a tokenizer's workdir."""
    if not workdir:
        hint = "convert its tokenizer first, and give --tokenizer=WORKDIR"
        raise InputError(f"it holds a generator alone: {hint}")
    config, folder = of_workdir(workdir)
    if config.stage != "stage1":
        what = f"the workdir of {config.stage}, not of a tokenizer"
        raise InputError(f"--tokenizer={folder} is {what}")
    return {"weights": "", "model": config.tokenizer, "dtype": config.dtype}


def tokenizer_of(system: System, theirs: Weights, given: Given, wanted: Any) -> tuple[Any, Tree]:
    """Return config.tokenizer and {"params", "codebook"} of NumPy arrays.

    theirs: {name: array}.
    wanted: a config.tokenizer that they have to fit, or None.

    Raises InputError if they do not.
    """
    if wanted is not None:
        given = given._replace(keys=complete(wanted))
    with of_other_weights():
        found = system.tokenizer(theirs, given)
    keys = ml_collections.ConfigDict(found) if wanted is None else wanted
    require_same(found, keys)
    blank = blank_tokenizer(keys)
    tree = system.tokenizer_to_ours(theirs, without_counters(blank), found)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), blank["codebook"])
    return keys, {**tree, "codebook": merged(zeros, tree["codebook"])}


def blank_tokenizer(keys: Any) -> Tree:
    """Return the shapes of {"params", "codebook"} of a config.tokenizer."""
    model = tokenizers.make(keys)
    size = side(keys.encoder.get("size", model.factor))
    return jax.eval_shape(lambda: models.ImageTokenizer(model, size).init(jax.random.key(0)))


def image_tokenizer(keys: Any, size: Any) -> models.ImageTokenizer:
    """Return the ImageTokenizer of a config.tokenizer, in float32 as the originals'.

    size: of the images, one number or (height, width).
    """
    return models.ImageTokenizer(tokenizers.make(keys), side(size))


def without_counters(tree: Tree) -> Tree:
    """Return {"params", "codebook"} without COUNTERS."""
    flat = flatten_dict(tree["codebook"])
    kept = {path: x for path, x in flat.items() if path[-1] not in COUNTERS}
    return {**tree, "codebook": unflatten_dict(kept)}


def merged(tree: Tree, other: Tree) -> Tree:
    """Return the nested dict `tree`, with the leaves of `other` in the place of its own."""
    return unflatten_dict({**flatten_dict(tree), **flatten_dict(other)})


def complete(keys: Any) -> dict[str, Any]:
    """Return a config.tokenizer with all keys, the constructors' defaults included."""
    model = tokenizers.make(keys)
    name = old_form.renamed(build.plain(keys["quantizer"]))["name"]
    traits = {key: getattr(model.quantizer, key) for key in ("codes", "width", "depth")}
    quantizer = {"name": name, **traits, **fields(model.quantizer)}
    coders = {
        name: {"name": keys[name]["name"], **fields(getattr(model, name))}
        for name in ("encoder", "decoder")
    }
    return {**coders, "quantizer": quantizer, "patch": model.patch, "pixels": model.pixels}


def fields(module: Any) -> dict[str, Any]:
    """Return {key: value} of a linen module's fields that a config sets and that change numbers."""
    names = [field.name for field in dataclasses.fields(module)]
    apart = ("parent", "name", "dtype", "remat")
    return {name: getattr(module, name) for name in names if name not in apart}


def require_same(found: Any, keys: Any) -> None:
    """Raise InputError unless two config.tokenizer make the same of the same weights."""
    a, b = complete(found), complete(keys)
    for part in (a, b):
        keys_there = part["quantizer"]
        part["quantizer"] = {key: keys_there.get(key, usual) for key, usual in DECIDES.items()}
    for key, (ours, wanted) in build.differences(a, b).items():
        raise InputError(f"its weights are of a tokenizer with {key} = {ours}, not {wanted}")


def generator_of(
    system: System, theirs: Weights, config: Any, given: Given, wanted: Any
) -> tuple[Any, Any, Tree]:
    """Return the size of the images, config.generator, and params of NumPy arrays.

    theirs: {name: array}.
    config: with config.tokenizer.model.
    wanted: a config whose generator they have to fit, or None.

    Raises InputError if they do not.
    """
    tokenizer = tokenizers.make(config.tokenizer.model)
    with of_other_weights():
        keys, tokens = system.generator(theirs, tokenizer, given)
    size = config.tokenizer.model.encoder.get("size", given.size)
    if not size:
        size = math.isqrt(tokens) * tokenizer.factor if tokens else SIZE
    if wanted is not None:
        keys, size = wanted.generator, wanted.dataset.size
    encoder = image_tokenizer(config.tokenizer.model, size)
    generator = models.token_generator(keys, encoder, "float32")
    like = jax.eval_shape(lambda: {"params": generator.init(jax.random.key(0))})
    return size, keys, system.generator_to_ours(theirs, like, generator.network)["params"]


def write(dest: pathlib.Path, config: Any, state: Tree) -> None:
    """Write a workdir of a config and a checkpoint of step 0, whole or not at all."""
    part = dest.with_name(f".{dest.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        checkpoints = Checkpoints(part)
        checkpoints.save(0, state)
        checkpoints.close()
        files.save_json(part / "config.json", json.loads(config.to_json()))
        with files.writable(dest):
            part.replace(dest)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def side(size: Any) -> tuple[int, int]:
    """Return (height, width) of a size, which is one number for both or a pair."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
