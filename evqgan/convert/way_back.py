"""Workdirs back into files of other systems, under the original names."""

import pathlib
from typing import Any

import jax
import numpy as np

from evqgan import models
from evqgan.convert.mapping import Path, Tree, Weights
from evqgan.convert.systems import SYSTEMS, Given, System
from evqgan.convert.workdirs import complete, require_same, without_counters
from evqgan.core import build, files
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError


def back(name: str, workdir: Path, dest: Path) -> str:
    """Write the averaged weights of a workdir under the names of a system; return a line on them.

    name: the system.
    dest: the file to write.

    Raises InputError if it is another system's model: what is written is read again as theirs, and
    has to be the same.
    """
    system = SYSTEMS[name]
    if pathlib.Path(dest).exists():
        raise InputError(f"{dest} is there already: give another DEST")
    files.tried(pathlib.Path(dest).absolute().parent)
    config, folder = of_workdir(workdir)
    with build.config_of(folder):
        shapes = models.of(config).shapes()
    like = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)
    state, step = models.restored(folder, like)
    try:
        if config.stage == "stage1":
            tree = {"params": state["ema"], "codebook": state["codebook"]}
            theirs = tokenizer_back(system, config.tokenizer, tree)
        else:
            tokenizer, generator = config.tokenizer.model, config.generator.name
            if generator != system.generators:
                raise InputError(f"its generator is {generator}, expected {system.generators}")
            model = models.of(config).network
            params = {"params": state["ema"]}
            second = system.generator_to_theirs(params, model)
            again = system.generator_to_ours(second, params, model)
            require_equal(again["params"], state["ema"])
            first = tokenizer_back(system, tokenizer, state["tokenizer"]) if system.whole else None
            theirs = system.join(first, second)
    except InputError as error:
        raise InputError(f"{folder} holds no model of {name}: {error}") from error
    system.write(dest, theirs)
    return f"wrote {dest}: {len(theirs):,} arrays of step {step:,} under the names of {name}"


def tokenizer_back(system: System, keys: Any, tree: Tree) -> Weights:
    """Return {name: array} of theirs.

    keys: config.tokenizer.
    tree: {"params", "codebook"} of it.

    Raises InputError if what comes back from theirs is another config or another number.
    """
    tree = without_counters(tree)
    whole = complete(keys)
    theirs = system.tokenizer_to_theirs(tree, whole)
    found = system.tokenizer(theirs, Given(keys=whole))
    require_same(found, keys)
    require_equal(system.tokenizer_to_ours(theirs, tree, found), tree)
    return theirs


def require_equal(a: Any, b: Any) -> None:
    """Raise InputError unless two trees of arrays are equal, bit for bit."""
    equal = jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b)
    if not all(jax.tree.leaves(equal)):
        raise InputError("its weights change on the way there and back")
