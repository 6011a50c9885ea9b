"""What a run does before it has a state: read the config, open the data, build and trace a step."""

import pathlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np

from evqgan import evals
from evqgan.core import build, cluster, config_files, limits, mesh, progress
from evqgan.core.errors import InputError
from evqgan.core.leafwise_init import Drawing
from evqgan.core.processes import tell
from evqgan.data import Source, pipeline
from evqgan.data.dataset import Dataset
from evqgan.data.stored_split import StoredSplit
from evqgan.training import initial_state, optim, resume_rules, step_flops
from evqgan.training import stage as stages
from evqgan.training.run_length import RunLength
from evqgan.training.setup import Compiled, Setup


def prepare(config: Any, workdir: pathlib.Path, last: int | None = None) -> Setup:
    """Return the Setup of `config` in `workdir`, in which nothing is written yet.

    Errors that the config alone shows are raised before any data are read. Raises InputError for
    what a user can mend.

    last: the step of the checkpoint that the run goes on from, by default the latest.
    """
    module = stages.module(config)
    config_files.expand_paths(config)
    config = module.resolve(config)
    initial_state.check_init(config, workdir)
    module.make(config)
    resume_rules.check_before_data(workdir, config, last)
    dataset = build.call(Dataset, config.dataset, "config.dataset")
    source, data = open_data(config, dataset)
    config = note_data(config, module, workdir, source, last)
    if resume_rules.is_trained(workdir, last):
        resume_rules.check_claim(workdir, config, last)
    stage = module.make(config, len(source), len(source.class_names))
    length, every = run_length(config, len(source))
    device_mesh = build.call(mesh.make, config.get("mesh", {}), "config.mesh")
    rows = rows_of(config, device_mesh)
    cluster.check_shared(workdir)
    # Before the model, which takes longer: they may lack weights, or a file.
    evaluators = evals.build_all(config, stage.model, dataset, device_mesh)
    best = [config.best] if config.get("best") else []
    evals.check_names(evaluators, {"best": best, "alarm": config.get("alarm", {})})
    tell("building the model and what it begins with")
    wrong = "no training step can be built from this config"
    with progress.heartbeat("building the model", tell), build.one_line(wrong):
        compiled = jitted(stage, device_mesh)
        early_update = jitted_update(stage.early_update, compiled.abstract_state, device_mesh)
        updates = [early_update, compiled.update] if stage.early_steps else [compiled.update]
        batch = check_step(compiled.abstract_state, updates, dataset, source, config, device_mesh)
        stage.check(optim.averaged(compiled.abstract_state))
        flops = flops_of(config, module, source, updates, (compiled.abstract_state, batch))
    return Setup(
        config=config,
        workdir=workdir,
        module=module,
        stage=stage,
        dataset=dataset,
        data=data,
        length=length,
        every=every,
        device_mesh=device_mesh,
        rows=rows,
        compiled=compiled,
        early_update=early_update,
        evaluators=evaluators,
        flops=flops,
    )


def open_data(config: Any, dataset: Dataset) -> tuple[Source | StoredSplit, str]:
    """Return the source of the training images, prepared if need be, and a line about it."""
    limits.require_images(config.batch_size, dataset.shape, "config.batch_size = ")
    tell(f"reading {dataset.codes or dataset.folder or dataset.name}")
    pipeline.prepare(dataset)  # which may download, and then shows how far it is
    with progress.heartbeat("reading", tell):
        source = pipeline.open_split(dataset, dataset.train)
        summary = pipeline.summary(dataset, source)
        if config.batch_size > len(source):
            each = config.batch_size / len(source)
            summary += (
                f"; config.batch_size = {config.batch_size:,} is more than there are: a step sees "
                f"every image {progress.digits(each)} times"
            )
        return source, summary


def note_data(
    config: Any,
    module: ModuleType,
    workdir: pathlib.Path,
    source: Source | StoredSplit,
    last: int | None = None,
) -> Any:
    """Return the config with class_names, data and began, and completed by `resolve`.

    These keys say what the run is trained on, and where its present leg began. last: see `prepare`.
    """
    with config.unlocked():
        config.class_names = list(source.class_names)  # so that samples can be asked for by name
        config.data = pipeline.identity(source)
        config.began = initial_state.start_of_leg(config, workdir, len(source), last)
    config = module.resolve(config, len(source.class_names))
    images = [config.class_names, config.data]
    cluster.check_alike(list_of_training_images=images, place_in_the_run=config.began)
    return config


def rows_of(config: Any, device_mesh: jax.sharding.Mesh) -> np.ndarray:
    """Return which rows of a batch this process reads, see `mesh.rows`.

    Raises InputError unless the batch, and each part of it that is computed at a time, can be split
    over the mesh.
    """
    parts = config.optimizer.get("accumulate", 1)
    if parts > 1:
        key = "config.batch_size / config.optimizer.accumulate"
        mesh.rows(device_mesh, config.batch_size // parts, key)
    return mesh.rows(device_mesh, config.batch_size)


def run_length(config: Any, examples: int) -> tuple[RunLength, dict[str, int]]:
    """Return the length of a run, and {"log", "eval", "checkpoint": every how many steps}.

    examples: of the training set. Raises InputError for a run of no step.
    """
    length = RunLength.of(config, examples)
    if not length.total:
        raise InputError(
            f"config.duration = {config.duration!r} of {examples} images is less than a step of "
            f"config.batch_size = {config.batch_size}: train longer, or with smaller batches"
        )
    names = ("log", "eval", "checkpoint")
    return length, {name: max(1, length.steps(config[f"{name}_every"])) for name in names}


def jitted(stage: Any, device_mesh: jax.sharding.Mesh) -> Compiled:
    """Return the functions of a stage over a device mesh, to be compiled at their first call.

    stage: has `init` and `update`, see `stage.Stage`; update donates its state.
    """
    drawing = Drawing(stage.init)
    like = laid_out(drawing.shapes, device_mesh)
    update = jitted_update(stage.update, like, device_mesh)
    shardings = jax.tree.map(lambda x: x.sharding, like)
    return Compiled(like, partial(drawing, shardings), update)


def laid_out(shapes: dict, device_mesh: jax.sharding.Mesh) -> dict:
    """Return the abstract state of these shapes over a device mesh, with shardings."""

    def abstract(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(abstract, shapes, mesh.shardings(shapes, device_mesh))


def jitted_update(update: Callable, like: dict, device_mesh: jax.sharding.Mesh) -> Any:
    """Return an update of a stage over a device mesh; it donates its state.

    like: the abstract state, with shardings.
    """
    shardings = jax.tree.map(lambda x: x.sharding, like), mesh.replicated(device_mesh)
    update = mesh.over(update, device_mesh)
    return jax.jit(update, donate_argnums=0, out_shardings=shardings)


def check_step(
    like: dict,
    updates: list[Any],
    dataset: Dataset,
    source: Source | StoredSplit,
    config: Any,
    device_mesh: jax.sharding.Mesh,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Raise InputError for a step that cannot be built, or for which there is no memory.

    Returns the shapes of a batch.
    What the `updates`, which a run takes one after the other, are given is traced here as the first
    step will trace it, so that nothing is traced twice.
    """
    leaves = jax.tree.leaves(like)
    sizes = [np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves]
    what = "config.tokenizer, .generator and the like: the weights and the optimizer's state"
    limits.require_memory(sum(map(int, sizes)), what, limits.of_device())
    spread = mesh.batch_sharding(device_mesh)

    def abstract(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=spread)

    if isinstance(source, StoredSplit):
        batch = {"ids": abstract(source.load(0)["ids"].shape, np.int32)}
    else:
        batch = {"image": abstract((*dataset.shape, 3), np.uint8)}
    batch["label"] = abstract((), np.int32)
    for update in updates:
        update.eval_shape(like, batch)
    return batch


def flops_of(
    config: Any, module: ModuleType, source: Source | StoredSplit, updates: list[Any], given: tuple
) -> tuple[float, float]:
    """Return the FLOPs of the first and of the last of the `updates` that a run takes.

    given: the shapes of state and batch with which they are traced.
    """

    def again(name: str) -> Callable[[Any], Callable]:
        data = len(source), len(source.class_names)
        return lambda config: getattr(module.make(config, *data), name)

    complete = step_flops.of_step(config, updates[-1], given, again("update"))
    if len(updates) == 1:
        return complete, complete
    return step_flops.of_step(config, updates[0], given, again("early_update")), complete
