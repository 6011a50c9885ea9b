"""A config: whether its model can be built, its data read, and its workdir written and resumed.

Nothing is trained, downloaded or prepared.
"""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from evqgan import evals, quickstart
from evqgan.aot import programs
from evqgan.aot.report import a_device
from evqgan.core import (
    build,
    checkpoint,
    config_files,
    exported,
    files,
    integrity,
    limits,
    mesh,
    quickstart_record,
    schema,
    stores,
    weights,
)
from evqgan.core.progress import counted
from evqgan.core.space import gib
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.doctor import datasets, machine
from evqgan.doctor.report import NotYet, Report, Wrong
from evqgan.inference.model import load
from evqgan.own_images import config as own_images
from evqgan.own_images import plans
from evqgan.training import disk as disks
from evqgan.training import prepare, resume_rules, workdir_check
from evqgan.training import stage as stages


@dataclasses.dataclass
class Part:
    """One stage of an experiment; of a quickstart there are two."""

    name: str  # what a line of it begins with, "" where there is one
    config: Any
    workdir: str
    classes: int | None = None  # that the data have, once they were looked at
    stage: Any = None
    shapes: Any = None  # of the state of the stage
    claim: Any = None  # the config that a workdir has to be of: without a guess at the classes


def read(file: str | None, workdir: str | None, overrides: list[str]) -> ConfigDict:
    """Return the config of --config, or else that of --workdir, with --config.KEY set.

    Of a run of both stages it is that of both, as in evqgan.main.
    """
    if file:
        config = config_files.read_file(file)
    else:
        folder = exported.find(workdir or "")
        is_one = (folder / exported.CONFIG).is_file()
        both = None if is_one else quickstart_record.going_on(folder)
        config = both or config_files.of_workdir(workdir or "")[0]
    config_files.override(config, overrides)
    return config


def is_model(workdir: str) -> bool:
    """Return whether --workdir names an exported model, which can be used and is not trained."""
    return exported.is_one(exported.find(workdir))


def loaded(config: ConfigDict, workdir: str) -> str:
    """Load an exported model, as sampling from it does, and say what it is."""
    load(workdir, config)
    return f"{workdir} is an exported model, which is whole: it can be used, but not trained on"


def parts(config: ConfigDict, workdir: str) -> list[Part]:
    """Return the stages of a config, whose keys are checked; of own images, if they are planned.

    Of a run of both stages also what `quickstart.run` refuses before it trains.
    """
    if own_images.is_one(config):
        own_images.dataset_of(config)
        if plans.read(stores.path(workdir)) is None:
            return []  # sizes are proposed when the training begins
        config = own_images.saved(config, stores.path(workdir))
    if config.stage != "quickstart":
        schema.check(config)
        return [Part("", config, workdir)]
    build.check(quickstart.keys, build.plain(config), "config")
    quickstart.check_tokenizer_stays(config, stores.path(workdir))
    quickstart.protocols_in(stores.path(workdir))
    second = config.generator.copy_and_resolve_references()
    with second.unlocked():
        second.tokenizer.model = config.tokenizer.tokenizer
    found = {"tokenizer": config.tokenizer, "generator": second}
    return [Part(name, part, os.path.join(workdir, name)) for name, part in found.items()]


def check(report: Report, config: ConfigDict, workdir: str, every: bool = False) -> None:
    """Run all checks of a config, each as a line; every: decode each image of its data."""
    found: list[Part] = []
    stages_fit = report.run("config", lambda: described(config, workdir, found))
    if own_images.is_one(config) and not found:  # no part says it

        def data() -> str:
            return datasets.check(own_images.dataset_of(config), every)[0]

        report.run("data", data, stages_fit)
        report.run("workdir", lambda: workdir_check.check(workdir, both=True), stages_fit)
    looked: dict[str, tuple[bool, int | None]] = {}  # of both stages the data are mostly the same
    for part in found:
        check_part(report, part, looked, every)


def check_part(
    report: Report, part: Part, looked: dict[str, tuple[bool, int | None]], every: bool
) -> None:
    """Run the checks of one stage.

    looked: {data set: whether it can be read, its classes}. every: see `check`.
    """

    def run(name: str, check: Callable[[Part], str | None], needs: bool = True) -> bool:
        return report.run(f"{part.name} {name}".strip(), lambda: check(part), needs)

    key = str(build.plain(part.config.dataset))
    if key not in looked:
        looked[key] = run("data", functools.partial(data_of, every=every)), part.classes
    is_readable, part.classes = looked[key]
    is_built = run("model", model)
    run("metrics", metrics, is_built and is_readable)
    run("memory", memory, is_built)
    run("disk", disk, is_built)
    run("workdir", place)


def described(config: ConfigDict, workdir: str, found: list[Part]) -> str:
    """Check the keys of a config, fill in its parts, and say what it is."""
    found += parts(config, workdir)
    if not found:
        return "own images: model and durations are proposed when training begins"
    return f"{' and '.join(part.config.stage for part in found)}, workdir {workdir}"


def dataset_of(part: Part) -> Dataset:
    """Return the data set of a part."""
    return build.call(Dataset, part.config.dataset, "config.dataset")


def model(part: Part) -> str:
    """Build the stage as training does: keys, the tokenizer's workdir, weights that it needs."""
    module, name = stages.module(part.config), part.config.dataset.get("name")
    config = module.resolve(part.config.copy_and_resolve_references())
    guess = programs.CLASSES.get(name, 1) if part.classes is None else part.classes
    part.claim, config = module.resolve(config, part.classes), module.resolve(config, guess)
    part.stage, part.config = module.make(config, programs.EXAMPLES, part.classes), config
    part.shapes = jax.eval_shape(part.stage.init)
    number = sum(math.prod(x.shape) for x in jax.tree.leaves(part.shapes["params"]))
    return f"{number / 1e6:,.1f} M trained parameters, all weights that it needs are there"


def data_of(part: Part, every: bool) -> str:
    """Check the data of a part, and note how many classes they have; every: see `check`."""
    found, part.classes = datasets.check(dataset_of(part), every)
    return found


def metrics(part: Part) -> str:
    """Check that what measures the model while it trains has its weights and references."""
    dataset = dataset_of(part)
    if datasets.is_named(dataset) and not datasets.builder_of(dataset)[1].data_path.exists():
        raise NotYet("not checked: the data are made when they are first used")
    found = evals.build_all(part.config, part.stage.model, dataset, mesh_of(part))
    return f"{', '.join(found) or 'none'}: all they need is there"


def mesh_of(part: Part) -> jax.sharding.Mesh:
    """Return the device mesh of a part."""
    return build.call(mesh.make, part.config.get("mesh", {}), "config.mesh")


def memory(part: Part) -> str:
    """Check memory: of a device against weights and optimizer, of the machine against batches."""
    config, device_mesh = part.config, mesh_of(part)
    rows = prepare.rows_of(config, device_mesh)
    state = a_device(prepare.laid_out(part.shapes, device_mesh))
    there = limits.of_device()
    if state > there:
        raise Wrong(
            f"weights and optimizer take {gib(state)} of a device, and there are {gib(there)}: "
            "give --config.mesh.fsdp=N, see --compile_only (docs/accelerators.md)"
        )
    height, width = dataset_of(part).shape
    batch = len(rows) * height * width * 3 * pipeline.buffered()
    total, free = machine.memory()
    text = f"batches take {gib(batch)} of {gib(free)} free ({gib(total)} in all)"
    if batch > free:
        raise Wrong(
            f"{text}: take more processes, or for a new run take a smaller config.batch_size"
        )
    return f"weights and optimizer take {gib(state)} of {gib(there)} a device; {text}"


def disk(part: Part) -> str | None:
    """Check the free disk in the workdir against the checkpoints that a run keeps."""
    if stores.is_remote(part.workdir):
        return None  # a bucket grows
    need = disks.need(part.shapes, part.config, pathlib.Path(part.workdir))
    if need.needed > need.free:
        raise Wrong(f"{need.in_words()}: {need.lacking()}")
    return need.in_words()


def place(part: Part) -> str:
    """Check that a workdir can be written, is of this config, and that its checkpoint is whole."""
    folder = stores.path(part.workdir)
    with files.writable(folder):  # what a bucket refuses is an error in a line
        stores.require_bucket(folder)
        workdir_check.check(exported.find(folder.parent if part.name else folder), bool(part.name))
        files.tried(folder)
        resume_rules.check_before_data(folder, part.claim or part.config)
        return state_of(folder)


def state_of(folder: pathlib.Path) -> str:
    """Say with what a run in a workdir begins; raise Wrong if its checkpoint is damaged."""
    step = checkpoint.latest(folder)
    if not step:
        return f"{folder} is new, and can be written"
    kept = checkpoint.parts_of(folder)
    if wrong := integrity.damage(folder / "checkpoints" / str(step), "state", kept):
        hint = "move this folder elsewhere to go on from an earlier one"
        raise Wrong(f"checkpoint {folder / 'checkpoints' / str(step)} is damaged: {wrong}; {hint}")
    return f"{folder} goes on from step {step:,}, whose files are whole"


def weights_there() -> str:
    """Say which weights of frozen networks are there, each of whose files can be read."""
    where = weights.folder()
    names = sorted(path.stem for path in where.glob("*.safetensors"))
    for name in names:
        weights.source(where, name)
    return f"{counted(len(names), 'network')} in {where}{': ' if names else ''}{', '.join(names)}"
