"""The state a run begins with: its own checkpoint, the weights of another run, or a new one.

`start_of_leg` says where a finished run that gets a longer duration goes on.
"""

import dataclasses
import os
import pathlib
from collections.abc import Collection
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from evqgan.core import checkpoint, exported, files, public_names, stores
from evqgan.core.errors import InputError
from evqgan.core.exported_weights import Exported
from evqgan.core.mesh import path_name
from evqgan.training import optim, run_length
from evqgan.training.setup import Setup

# Of a stage's state, what `config.init` has to have.
WEIGHTS = ("params", "ema", "codebook")
# With its random projections, which are nowhere else.
CRITIC = ("critic/params", "critic/variables", "frozen/critic")


def start_of_leg(
    config: Any, workdir: str | os.PathLike, examples: int, last: int | None = None
) -> int:
    """Return the step at which the present leg of the run in `workdir` began (config.began).

    It is 0, or, if a longer duration continues a finished run, the step at which that was finished:
    from there the learning rate warms up and falls again; so it does from a checkpoint before the
    leg, where those of the leg are damaged. A leg of which nothing was trained may be taken back:
    the run is then as long as it was, and 0 is where it began. examples: of the training set. last:
    the step of the checkpoint that it goes on from, by default the latest.
    """
    last = checkpoint.latest(workdir) if last is None else last
    file = stores.path(workdir) / "config.json"
    if not file.exists() or not last:
        return 0
    theirs = files.read_json(file)
    if not {"duration", "batch_size"} <= theirs.keys():
        return 0  # it is no run of this config: `resume_rules.check_claim` refuses it
    data = theirs.get("data") or {"examples": examples}
    end = run_length.to_steps(theirs["duration"], data["examples"], theirs["batch_size"])
    asked = run_length.to_steps(config.duration, examples, config.batch_size)
    if last == end < asked:
        return end
    is_taken_back = is_untrained(theirs, last) and asked == last
    return 0 if is_taken_back else min(theirs.get("began", 0), last)


def is_untrained(config: Any, last: int) -> bool:
    """Return whether the run of `config` has a second leg of which nothing was trained.

    last: the step of the checkpoint that it goes on from, 0 if there is none.
    """
    return 0 < last <= config.get("began", 0)


def state(
    setup: Setup, checkpoints: checkpoint.Checkpoints, saved: Collection[str]
) -> tuple[dict, tuple[str, ...]]:
    """Return the state that a run begins or goes on with, and lines for the log.

    saved: the parts of the workdir's own checkpoint, () if there is none; one without "params" is
      of weights converted from a public checkpoint, with which a new run begins.
    """
    config, (like, init, _) = setup.config, setup.compiled
    lines: tuple[str, ...] = ()
    if "params" in saved:
        began = config.began
        if began and began == checkpoints.steps()[-1]:
            again = "from where its learning rate warms up again"
            lines = (f"goes on from step {began:,}, {again}",)
        return checkpoints.restore(like), lines
    # What comes from files goes where it belongs at once, or update would be compiled for other
    # shardings too.
    found = setup.stage.load(init(), saved)
    if saved:
        kept = optim.averaged(like)
        weights = checkpoints.restore({key: kept[key] for key in kept if key in saved})
        found = from_weights(found, weights)
    elif config.get("init"):
        found, lines = inherited(found, optim.averaged(like), config, setup.module)
    found = {key: found[key] for key in like}
    return jax.device_put(found, jax.tree.map(lambda x: x.sharding, like)), lines


def from_weights(state: dict, weights: dict) -> dict:
    """Return the `state` of a new run with weights alone, {"ema", ...}.

    Those converted from public checkpoints are of this kind.
    """
    return {**state, **weights, "params": jax.tree.map(jnp.copy, weights["ema"])}


def check_init(config: Any, workdir: str | os.PathLike) -> None:
    """Raise InputError for a config.init that is the run's own workdir, or none of its stage.

    A run that goes on does not read it: where it began with it, it may be gone, or the run may have
    been moved into its place.
    """
    goes_on, init = checkpoint.latest(workdir), config.get("init", "")
    if not goes_on and not init and config.get("init_optimizer"):
        raise InputError("config.init_optimizer is that of the run in config.init, which is empty")
    file = stores.path(workdir) / "config.json"
    if goes_on and file.exists() and files.read_json(file).get("init") == init:
        return
    if init and stores.same(init, workdir):
        raise InputError(
            f"config.init is the run's own workdir, {workdir}: "
            "a finished run grows by a longer duration"
        )
    if init and not goes_on:
        config_of(exported.find(init), config.stage)


@dataclasses.dataclass(frozen=True)
class Inheritance:
    """What a new run takes from the run in config.init, as `inheritance_of` found it."""

    folder: pathlib.Path
    step: int
    raw: bool  # whether the folder has raw weights; one converted from public weights has not
    taken: dict[str, Any]  # {path: shape with sharding} of the leaves that are restored
    tables: set[str]  # paths of tables with a row for each class, of another number of classes
    fresh_critic: bool  # whether the new run has a critic, and the old one another or none


def inherited(
    new: dict, like: dict, config: Any, module: ModuleType
) -> tuple[dict, tuple[str, ...]]:
    """Return the state `new` with the weights of the run in config.init, and lines for the log.

    Raw weights, averaged weights and codebook need the shapes of `like`, or InputError is raised.
    Two things begin untrained instead: tables with a row for each class, if the number of classes
    differs, and the critic, if the other run had another one.
    """
    folder = exported.find(config.init)
    theirs = config_of(folder, config.stage)
    checkpoints = weights_of(folder, config.stage)
    try:
        plan = inheritance_of(checkpoints, folder, like, config, module, theirs)
        restored = checkpoints.restore(traverse_util.unflatten_dict(plan.taken, sep="/"))
        other = "tokenizer" in new and checkpoints.differs({"tokenizer": new["tokenizer"]})
    finally:
        checkpoints.close()
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    found = {path_name(path): leaf for path, leaf in leaves}
    if not plan.raw:
        averaged = {name: x for name, x in found.items() if name.startswith("ema/")}
        found |= {name.replace("ema/", "params/", 1): jnp.copy(x) for name, x in averaged.items()}
    new = jax.tree_util.tree_map_with_path(lambda path, x: found.get(path_name(path), x), new)
    return new, _lines(plan, config, theirs, other)


def inheritance_of(
    checkpoints: checkpoint.Checkpoints | Exported,
    folder: pathlib.Path,
    like: dict,
    config: Any,
    module: ModuleType,
    theirs: dict,
) -> Inheritance:
    """Return what a new run takes from the latest of `checkpoints`, those of another run.

    like: the new run's abstract state; config, module: the new run's. folder, theirs: the workdir
    and the config of the other run. Raises InputError for weights that do not fit into `like`.
    """
    there, step = checkpoints.shapes(), checkpoints.steps()[-1]
    optimizer = ("opt",) if config.get("init_optimizer") else ()
    raw = any(name.startswith("params/") for name in there)
    if optimizer and not raw:
        raise InputError(
            f"{folder} holds weights alone, and no optimizer: drop --config.init_optimizer"
        )
    expected = named(like, (*(WEIGHTS if raw else WEIGHTS[1:]), *optimizer))
    tables = tables_of_classes(expected, there, config, module, theirs)
    for name, leaf in expected.items():
        if there.get(name) != leaf.shape and name not in tables:
            raise InputError(
                f"config.init = {folder}: {name} is {list(there.get(name, ())) or 'nothing'} "
                f"there, {list(leaf.shape)} was expected: a run can begin with the weights of the "
                "same model alone"
            )
    taken = {name: leaf for name, leaf in expected.items() if name not in tables}
    critic = named(like, (*CRITIC, *("critic/opt" for _ in optimizer)))
    same = bool(critic) and all(there.get(name) == leaf.shape for name, leaf in critic.items())
    taken |= critic if same else {}
    return Inheritance(folder, step, raw, taken, tables, bool(critic) and not same)


def _lines(plan: Inheritance, config: Any, theirs: dict, other_tokenizer: bool) -> tuple[str, ...]:
    """Return lines for the log: what was taken and what not."""
    folder, whose = plan.folder, "its" if config.get("init_optimizer") else "a fresh"
    lines = [f"begins with the weights of {folder}, step {plan.step:,}, and {whose} optimizer"]
    if plan.tables:
        names = ", ".join(sorted(name for name in plan.tables if name.startswith("ema/")))
        lines.append(
            f"there are not as many classes in {folder}: what has a row a class begins fresh, "
            f"{names}"
        )
    elif theirs.get("generator", {}).get("classes") and not config.generator.get("classes"):
        lines.append(
            f"{folder} has classes, and this run has none: what has a row a class is left out"
        )
    if plan.fresh_critic:
        lines.append(f"the critic begins fresh: that of {folder} is another one, or there is none")
    if other_tokenizer:
        lines.append(
            f"the tokenizer is not the one whose codes {folder} was trained on: "
            "they mean something else now"
        )
    return tuple(lines)


def config_of(folder: pathlib.Path, stage: str) -> dict:
    """Return the config of the workdir `folder`; raise InputError unless it is of `stage`.

    Of an exported model it is that of the stage's part.
    """
    file = folder / "config.json"
    if not file.is_file():
        parts = [folder / "tokenizer", folder / "generator"]
        runs = [str(path) for path in parts if (path / "config.json").is_file()]
        other = f"{exported.meant(folder)}give the workdir of a run"
        hint = public_names.advice(folder) or (f"give {' or '.join(runs)}" if runs else other)
        raise InputError(
            f"config.init = {folder}: there is no {file}{stores.beginning(folder)}; {hint}"
        )
    theirs = exported.read_config(folder)
    if exported.is_one(folder):
        found = exported.part_of(theirs, exported.PARTS[stage == "stage2"], folder)
        if found is None:
            raise InputError(
                f"config.init = {folder} is an exported tokenizer, without a generator"
            )
        return found
    if theirs.get("stage") != stage:
        raise InputError(
            f"config.init = {folder} is the workdir of {theirs.get('stage')}, "
            f"this run is of {stage}"
        )
    return theirs


def weights_of(folder: pathlib.Path, stage: str) -> checkpoint.Checkpoints | Exported:
    """Return the weights of a stage in a workdir or an exported model, which are only read."""
    if exported.is_one(folder):
        return Exported(folder, exported.PARTS[stage == "stage2"])
    return checkpoint.Checkpoints(folder, create=False)


def named(tree: Any, prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Return {path: leaf} of the leaves of a tree whose paths begin with one of `prefixes`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {path_name(path): leaf for path, leaf in leaves}
    begins = tuple(f"{prefix}/" for prefix in prefixes)
    return {name: leaf for name, leaf in found.items() if name.startswith(begins)}


def tables_of_classes(
    expected: dict[str, Any],
    there: dict[str, tuple[int, ...]],
    config: Any,
    module: ModuleType,
    theirs: dict,
) -> set[str]:
    """Return the names in `expected` whose shape differs only by the number of classes.

    there: {name: shape} in the other run, whose config is `theirs`.
    """
    number = theirs.get("generator", {}).get("classes", 0)
    if number == config.get("generator", {}).get("classes", 0):
        return set()
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.generator.classes = number
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(module.make(other).init))
    shapes = {path_name(path): leaf.shape for path, leaf in leaves}
    return {name for name, x in expected.items() if x.shape != there.get(name) == shapes.get(name)}
