"""The weights of an exported model: model.safetensors, which holds nothing that could run.

Its arrays are named tokenizer/params/..., tokenizer/codebook/... and generator/params/...; all are
averaged weights. Its metadata has a CRC-32 of all of them.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from evqgan.core import exported, stores, weights
from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name

DTYPES = ("float16", "float32")
# Beginnings of names of arrays that stay as they are. Ours: they are few, and of 143,616 tokens of
# the drawings 1.2 % get another id in float16 with them, 1.6 % if they are rounded, too.
EXACT = ("tokenizer/codebook/", "tokenizer/params/quantizer/")


def tree_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's state, see its `shapes`, as it is named in the file."""
    if "tokenizer" in state:
        return {"tokenizer": state["tokenizer"], "generator": {"params": state["ema"]}}
    return {"tokenizer": {"params": state["ema"], "codebook": state["codebook"]}}


def state_of(tree: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the parts in `like`, a model's `shapes`: the inverse of `tree_of`."""
    tokenizer = tree["tokenizer"]
    if "tokenizer" in like:
        return {"ema": tree["generator"]["params"], "tokenizer": tokenizer}
    return {"ema": tokenizer["params"], "codebook": tokenizer["codebook"]}


def save(folder: str | os.PathLike[str], state: Mapping[str, Any], dtype: str) -> int:
    """Write the weights of a state; return the size of the file in bytes.

    dtype: one of DTYPES, of all arrays of floats but EXACT ones.

    Raises InputError for a weight that float16 cannot hold, and if the file cannot be written.
    """

    def rounded(path: tuple, leaf: Any) -> np.ndarray:
        name, array = path_name(path), np.asarray(leaf)
        if array.dtype.kind != "f" or name.startswith(EXACT):
            return array
        with np.errstate(over="ignore"):
            small = array.astype(dtype)
        if not (np.isfinite(small) | ~np.isfinite(array)).all():
            raise InputError(f"{name} has numbers beyond {dtype}: give --dtype=float32")
        return small

    file = stores.path(folder) / exported.WEIGHTS
    weights.save(file, jax.tree_util.tree_map_with_path(rounded, tree_of(state)), {"dtype": dtype})
    return stores.stamp(file).size


def restore(
    folder: str | os.PathLike[str], like: Mapping[str, Any], step: int | None = None
) -> tuple[dict[str, Any], int]:
    """Return the state of an exported model and its step, with dtypes and shardings of `like`.

    like: the `shapes` of a tokenizer or a generator, as arrays or jax.ShapeDtypeStructs.
    step: the one that is expected; None: any.

    Raises InputError for a file that is missing, damaged, or of another model, and another step.
    """
    folder = stores.path(folder)
    found = exported.check_step(folder, "generator" if "tokenizer" in like else "tokenizer", step)
    wanted = tree_of(like)
    arrays = read(folder)
    if problems := differences(arrays, wanted):
        what = f"is not the model of {exported.CONFIG} beside it: {weights.first_of(problems)}"
        raise InputError(f"{folder / exported.WEIGHTS} {what}; {exported.again(folder)}")

    def placed(array: Any, leaf: Any) -> Any:
        sharding = getattr(leaf, "sharding", None)
        return array if sharding is None else jax.device_put(array, sharding)

    return jax.tree.map(placed, arranged(arrays, like), like), found


def arranged(arrays: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by their names in the file, traced or not, as a state with dtypes of `like`."""

    def named(path: tuple, leaf: Any) -> Any:
        return arrays[path_name(path)].astype(leaf.dtype)

    return state_of(jax.tree_util.tree_map_with_path(named, tree_of(like)), like)


class Exported:
    """The weights of an exported model, read as `checkpoint.Checkpoints` reads a run's."""

    def __init__(self, folder: str | os.PathLike[str], part: str) -> None:
        """Read those of a part, one of `exported.PARTS`; InputError if they are damaged."""
        self.step, arrays = exported.step_of(folder, part), read(stores.path(folder))
        own = f"{part}/params/"
        beside = "tokenizer/" if part == "tokenizer" else ""  # a generator's state has "tokenizer"
        self.arrays = {
            name.replace(own, "ema/", 1) if name.startswith(own) else name.removeprefix(beside): x
            for name, x in arrays.items()
            if name.startswith((own, "tokenizer/"))
        }

    def steps(self) -> list[int]:
        """Return the step of the checkpoint that was exported, in a list."""
        return [self.step]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {path: shape} of every array of the state."""
        return {name: array.shape for name, array in self.arrays.items()}

    def restore(self, like: Any) -> Any:
        """Return the arrays of the tree `like`, which have its shapes, with its dtypes and places.

        like: jax.ShapeDtypeStructs with shardings.
        """

        def placed(path: tuple, leaf: Any) -> jax.Array:
            return jax.device_put(self.arrays[path_name(path)].astype(leaf.dtype), leaf.sharding)

        return jax.tree_util.tree_map_with_path(placed, like)

    def differs(self, tree: Any) -> bool:
        """Return whether an array differs from the one of its name here."""
        leaves = [(path_name(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]
        return any(
            name not in self.arrays or not np.array_equal(self.arrays[name], np.asarray(x))
            for name, x in leaves
        )

    def close(self) -> None:
        """Do nothing: all is read."""


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Return {name: array} of a folder's file, as `save` writes it; InputError if it is damaged."""
    with weights.opened(folder / exported.WEIGHTS, exported.again(folder)) as stored:
        return weights.arrays(stored)


def differences(arrays: Mapping[str, np.ndarray], wanted: Any) -> list[str]:
    """Return a phrase for every array of the tree `wanted` that is missing or of another shape."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        name, here = path_name(path), list(leaf.shape)
        there = list(arrays[name].shape) if name in arrays else None
        if there is None:
            found.append(f"{name} is missing")
        elif there != here or arrays[name].dtype.kind != np.dtype(leaf.dtype).kind:
            found.append(f"{name} is {arrays[name].dtype} {there} there, {leaf.dtype} {here} here")
    return sorted(found)
