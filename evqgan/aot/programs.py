"""The programs of a config: training step, sampler, prediction; with shapes for arguments.

Nothing is read but configs, that of a tokenizer's workdir among them: not the data, not the weights
of any network.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from evqgan import models
from evqgan.core import build, config_files, mesh, schema
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.inference import core
from evqgan.inference.batched import at_once
from evqgan.training.prepare import jitted, rows_of
from evqgan.training.step_flops import remat_sections, without_remat

EXAMPLES = 10**6  # images of a training set, where only the length of a run depends on them
CLASSES = {"imagenet2012": 1000}  # of data sets by name, where a config takes those of the data


class Program(NamedTuple):
    """A function that is to be compiled, and the shapes that it is given."""

    name: str
    function: Any  # jitted
    given: tuple  # trees of jax.ShapeDtypeStruct
    images: int  # of a call
    device_mesh: Mesh
    plain: Callable[[], tuple[Callable, tuple]] | None = None  # without what is computed twice


def check_stage(config: Any) -> None:
    """Raise InputError for a config of both stages."""
    if config.stage == "quickstart":
        raise InputError(
            "compiling takes the config of one stage, such as folder_stage1, not of both"
        )


def completed(config: Any) -> Any:
    """Return a copy of a config, completed as training completes it, but from configs alone.

    A generator's tokenizer is that of the workdir config.tokenizer.weights if there is one, and
    else that of the config which comes with the code and trains in a workdir of this name.
    """
    config = config.copy_and_resolve_references()
    check_stage(config)
    schema.check(config)
    if config.stage == "stage1":
        return config
    with config.unlocked():
        if not config.tokenizer.get("model"):
            theirs = tokenizer_of(config.tokenizer.weights)
            config.tokenizer.model = theirs.tokenizer
            config.tokenizer.dtype = config.tokenizer.get("dtype") or theirs.dtype
        if "classes" in config.generator and config.generator.classes is None:
            config.generator.classes = CLASSES.get(config.dataset.get("name"), 1)
    return config


def tokenizer_of(weights: str) -> Any:
    """Return the config of a tokenizer by its workdir, see `completed`."""
    if (pathlib.Path(weights or ".") / "config.json").is_file():
        return config_files.of_tokenizer(weights)[0]
    name = pathlib.Path(weights).name
    folder = config_files.SHIPPED / "configs"
    for path in sorted((*folder.glob("*_stage1.py"), *(folder / "baselines").glob("*_stage1.py"))):
        rest = name.removeprefix(path.stem)
        if name == path.stem or (rest != name and rest.startswith("_")):
            return config_files.read_file(f"{path}:{rest[1:]}")
    raise InputError(
        f"config.tokenizer.weights = {weights!r} is neither a workdir nor the name of one that a "
        "config of configs/ trains in: its tokenizer is not known"
    )


def training(config: Any, devices: Any) -> list[Program]:
    """Return the training step of a completed config over `devices`."""
    stage = stage_of(config)
    device_mesh = build.call(mesh.make, config.get("mesh", {}), "config.mesh", devices=devices)
    rows_of(config, device_mesh)
    compiled = jitted(stage, device_mesh)
    given = compiled.abstract_state, batch_of(config, device_mesh)

    def plain() -> tuple[Callable, tuple]:
        return mesh.over(stage_of(without_remat(config)).update, device_mesh), given

    counted = plain if remat_sections(config) else None
    return [Program("step", compiled.update, given, config.batch_size, device_mesh, counted)]


def stage_of(config: Any) -> Any:
    """Return the stage of a completed config."""
    return build.module("training", config.stage, "config.stage").make(config, EXAMPLES)


def batch_of(config: Any, device_mesh: Mesh, size: int | None = None) -> dict:
    """Return the shapes of a batch: images, or with config.dataset.codes ids."""
    size, dataset = size or config.batch_size, build.call(Dataset, config.dataset, "config.dataset")
    spread = mesh.batch_sharding(device_mesh)

    def shape(rest: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *rest), dtype, sharding=spread)

    if dataset.codes:
        tokenizer = models.of_stage2(config).tokenizer
        ids = (*tokenizer.grid, tokenizer.network.quantizer.depth)
        return {"ids": shape(ids, np.int32), "label": shape((), np.int32)}
    return {"image": shape((*dataset.shape, 3), np.uint8), "label": shape((), np.int32)}


def sampling(config: Any, devices: Any, batch_size: int | None) -> list[Program]:
    """Return the sampler of a generator and its decoder, for so many images a device.

    batch_size: None is `batched.at_once`.
    """
    if config.stage != "stage2":
        raise InputError(f"--mode=sample needs a generator, the config is of {config.stage}")
    model = models.of_stage2(config)
    settings = model.settings(config.get("sample", {}))
    model.check_settings(settings)
    device_mesh = mesh.make(devices=devices)
    size = (batch_size or at_once(model.tokenizer.shape)) * device_mesh.size
    grid = (size, *model.tokenizer.grid)
    ids = ((*grid, model.tokenizer.network.quantizer.depth), np.int32)
    labels, seeds, numbers = ((size,), np.int32), ((size,), np.uint32), ((size,), np.uint32)
    request = ids, (grid, bool), labels, seeds, numbers
    sampler, (_, decode) = core.sampler_of(model, settings), core.coders(model.tokenizer)
    state = model.shapes()
    return [
        alone("sampler", sampler, state, request, device_mesh),
        alone("decoder", decode, state["tokenizer"], [ids], device_mesh),
    ]


def alone(
    name: str, function: Any, weights: Any, batch: Sequence[tuple], device_mesh: Mesh
) -> Program:
    """Return the program of a function of a batch, each device on its own, as in `BatchRunner`.

    batch: (shape, dtype) of each array beside the weights; all begin with the number of images.
    """
    whole, split = mesh.replicated(device_mesh), mesh.batch_sharding(device_mesh)
    mapped = jax.shard_map(
        function,
        mesh=device_mesh,
        in_specs=(PartitionSpec(), *(split.spec for _ in batch)),
        out_specs=split.spec,
        check_vma=False,
    )
    arrays = [jax.ShapeDtypeStruct(*array, sharding=split) for array in batch]
    given = held(weights, whole), *arrays
    return Program(name, jax.jit(mapped), given, arrays[0].shape[0], device_mesh)


def held(tree: Any, sharding: Any) -> Any:
    """Return the shapes of a tree with a sharding."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
    )


def evaluation(config: Any, devices: Any, batch_size: int | None) -> list[Program]:
    """Return what evaluators call of a config's model: a tokenizer's reconstruction is in it.

    batch_size: images a device; None: a batch of the config, as `--mode=evaluate` takes it.
    """
    model, number = models.of(config), len(devices)
    size = config.get("eval_batch_size") or config.batch_size
    size = batch_size * number if batch_size else size
    device_mesh = mesh.make(data=math.gcd(size, number), tensor=-1, devices=devices)
    weights = held(model.shapes(), mesh.replicated(device_mesh))
    key = jax.eval_shape(lambda: jax.random.key(0))
    given = weights, batch_of(config, device_mesh, size), held(key, mesh.replicated(device_mesh))
    predict = jax.jit(mesh.over(model.predict, device_mesh))
    return [Program("prediction", predict, given, size, device_mesh)]


MAKERS = {
    "train": lambda config, devices, _: training(config, devices),
    "sample": sampling,
    "evaluate": evaluation,
}
