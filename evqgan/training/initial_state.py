"""What a run begins with: its own checkpoint, another run's weights, or none; and where a longer duration goes on."""

import pathlib

import jax
import jax.numpy as jnp
from flax import traverse_util

from evqgan.core import checkpoint, files
from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name
from evqgan.training import optim

WEIGHTS = ("params", "ema", "codebook")  # of a stage's state, what `config.init` has to have
CRITIC = ("critic/params", "critic/variables", "frozen/critic")  # with its random projections, which are nowhere else


def of_this_leg(config, workdir, examples):
    """The step at which the leg of a run began that `config` asks for: 0, or where a longer duration found it finished.

    From there on the rate warms up and falls again, to the new end. examples: of the training set.
    """
    file, last = pathlib.Path(workdir) / "config.json", checkpoint.latest(workdir)
    if not file.exists() or not last:
        return 0
    theirs = files.read_json(file)
    if not {"duration", "batch_size"} <= theirs.keys():
        return 0  # it is no run of this config, which is said when the workdir is claimed
    data = theirs.get("data") or {"examples": examples}
    end = optim.to_steps(theirs["duration"], data["examples"], theirs["batch_size"])
    longer = optim.to_steps(config.duration, examples, config.batch_size) > end
    return end if longer and last == end else theirs.get("began", 0)


def state(config, module, stage, like, init, checkpoints, saved):
    """The state that a run begins or goes on with, laid out as `like`, and lines for the log.

    saved: the parts of the workdir's own checkpoint, () if there is none; one without "params" is of weights converted
    from a public checkpoint, with which a new run begins.
    """
    if "params" in saved:
        began = config.began
        again = f"finished at step {began:,}: goes on from there, and its learning rate warms up again"
        return checkpoints.restore(like), (again,) if began == checkpoints.steps()[-1] and began else ()
    # What comes from files goes where it belongs at once, or update would be compiled for other shardings too.
    found, notes = stage.load(init(), saved), ()
    if saved:
        found = optim.restarted(found, checkpoints.restore({key: like[key] for key in like if key in saved}))
    elif config.get("init"):
        found, notes = inherited(found, like, config, module)
    return jax.device_put(found, jax.tree.map(lambda x: x.sharding, like)), notes


def check_init(config, workdir):
    """InputError if config.init is the run's own workdir."""
    if config.get("init") and pathlib.Path(config.init).expanduser().resolve() == pathlib.Path(workdir).resolve():
        raise InputError(f"config.init is the run's own workdir, {workdir}: a finished run grows by a longer duration")


def inherited(new, like, config, module):
    """The state `new` with the weights of the run in config.init, and lines that say what was taken and what not.

    Its raw and averaged weights and its codebook have to have the shapes of `like`; tables of classes that are not as
    many begin fresh, and so does a critic that is another one. InputError for what does not fit.
    """
    folder = pathlib.Path(config.init).expanduser()
    theirs = config_of(folder, config.stage)
    checkpoints = checkpoint.Checkpoints(folder, create=False)
    try:
        there, step = checkpoints.shapes(), checkpoints.steps()[-1]
        kept = ("opt",) if config.get("init_optimizer") else ()
        raw = any(name.startswith("params/") for name in there)  # not in what was converted from public weights
        if kept and not raw:
            raise InputError(f"{folder} holds weights alone, and no optimizer: drop --config.init_optimizer")
        wanted = named(like, (*(WEIGHTS if raw else WEIGHTS[1:]), *kept))
        tables = tables_of_classes(wanted, there, config, module, theirs)
        for name, leaf in wanted.items():
            if there.get(name) != leaf.shape and name not in tables:
                raise InputError(
                    f"config.init = {folder}: {name} is {list(there.get(name, ())) or 'nothing'} there, "
                    f"{list(leaf.shape)} was expected: a run can begin with the weights of the same model alone"
                )
        critic = named(like, (*CRITIC, *("critic/opt" for _ in kept)))
        same_critic = bool(critic) and all(there.get(name) == leaf.shape for name, leaf in critic.items())
        taken = {name: leaf for name, leaf in wanted.items() if name not in tables} | (critic if same_critic else {})
        restored = checkpoints.restore(traverse_util.unflatten_dict(taken, sep="/"))
        other = checkpoints.differs({"tokenizer": new["tokenizer"]}) if "tokenizer" in new else False
    finally:
        checkpoints.close()
    found = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(restored)}
    if not raw:
        found |= {name.replace("ema/", "params/", 1): jnp.copy(x) for name, x in found.items() if name[:4] == "ema/"}
    new = jax.tree_util.tree_map_with_path(lambda path, x: found.get(path_name(path), x), new)
    notes = [f"begins with the weights of {folder}, step {step:,}, and {'its' if kept else 'a fresh'} optimizer"]
    if tables:
        names = ", ".join(sorted(name for name in tables if name.startswith("ema/")))
        notes.append(f"there are not as many classes in {folder}: what has a row a class begins fresh, {names}")
    elif theirs.get("generator", {}).get("classes") and not config.generator.get("classes"):
        notes.append(f"{folder} has classes, and this run has none: what has a row a class is left out")
    if critic and not same_critic:
        notes.append(f"the critic begins fresh: that of {folder} is another one, or there is none")
    if other:
        notes.append(f"the tokenizer is not the one whose codes {folder} was trained on: they mean something else now")
    return new, tuple(notes)


def config_of(folder, stage):
    """The config.json of the workdir `folder`; InputError unless it is one of `stage`."""
    file = folder / "config.json"
    if not file.is_file():
        parts = [str(path) for path in (folder / "tokenizer", folder / "generator") if (path / "config.json").is_file()]
        hint = f"give {' or '.join(parts)}" if parts else "expected the workdir of a run"
        raise InputError(f"config.init = {folder}: there is no {file}; {hint}")
    theirs = files.read_json(file)
    if theirs.get("stage") != stage:
        raise InputError(f"config.init = {folder} is the workdir of {theirs.get('stage')}, this run is of {stage}")
    return theirs


def named(tree, prefixes):
    """{path: leaf} of all leaves of a tree whose paths begin with one of `prefixes`."""
    named = ((path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree))
    return {name: leaf for name, leaf in named if name.startswith(tuple(f"{prefix}/" for prefix in prefixes))}


def tables_of_classes(wanted, there, config, module, theirs):
    """The names in `wanted` whose shapes are others `there` because the run of config `theirs` has other classes."""
    number = theirs.get("generator", {}).get("classes", 0)
    if number == config.get("generator", {}).get("classes", 0):
        return set()
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.generator.classes = number
    shapes = jax.eval_shape(module.make(other).init)
    shapes = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    return {name for name, leaf in wanted.items() if leaf.shape != there.get(name) == shapes.get(name)}
