"""Tables from the weight names of a public checkpoint to paths in our trees of weights.

They are read both ways, all or nothing.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from evqgan.core import weights
from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name

Path = str | os.PathLike[str]
Weights = dict[str, np.ndarray]  # {name in their file: array}
Tree = Any  # a nested dict of arrays or shapes: variables of ours


class Layout(NamedTuple):
    """What has to be done to an array."""

    to_ours: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]  # (theirs, the shape of ours)
    to_theirs: Callable[[np.ndarray], np.ndarray]


LAYOUTS = {  # PyTorch: OIHW, [out,in]
    "same": Layout(lambda x, shape: x, lambda x: x),
    # OIHW <-> HWIO
    "conv": Layout(lambda x, shape: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    # [out,in] <-> [in,out]
    "dense": Layout(lambda x, shape: x.T, lambda x: x.T),
    # OI11 <-> [in,out]
    "conv1x1": Layout(lambda x, shape: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None]),
    # 11IO <-> [in,out]
    "dense1x1": Layout(lambda x, shape: x[0, 0], lambda x: x[None, None]),
    # [heads*d,in] <-> [in,heads,d]
    "to_heads": Layout(
        lambda x, shape: x.T.reshape(shape),
        lambda x: x.reshape(len(x), -1).T,
    ),
    # [out,heads*d] <-> [heads,d,out]
    "from_heads": Layout(
        lambda x, shape: x.T.reshape(shape),
        lambda x: x.reshape(-1, x.shape[-1]).T,
    ),
    # [heads*d] <-> [heads,d]
    "head_bias": Layout(lambda x, shape: x.reshape(shape), lambda x: x.reshape(-1)),
    # [1,...] <-> [...]
    "row": Layout(lambda x, shape: x[0], lambda x: x[None]),
    # [1,1,...] <-> [...]
    "token": Layout(lambda x, shape: x[0, 0], lambda x: x[None, None]),
}


class Row(NamedTuple):
    """One line of a table: names `theirs` go to the paths `ours`.

    "{i}" stands for a number, the same one on both sides:
    Row("blocks.{i}.weight", "params/block{i}/kernel", "conv").
    A path may end in an index, "params/blocks/kernel[{i}]", "...[3]" or "...[{i},:,0]": that part
    of an array.
    """

    theirs: str
    ours: str
    layout: str = "same"


Table = Iterable[Row]


def layer(theirs: str, ours: str, layout: str = "dense", index: str = "") -> tuple[Row, ...]:
    """Return the rows of a linear layer or a convolution. index: "[{i}]" of stacked layers."""
    return (
        Row(f"{theirs}.weight", f"{ours}/kernel{index}", layout),
        Row(f"{theirs}.bias", f"{ours}/bias{index}"),
    )


def norm(theirs: str, ours: str, index: str = "") -> tuple[Row, ...]:
    """Return the rows of a layer norm or a group norm. index: as of `layer`."""
    return (
        Row(f"{theirs}.weight", f"{ours}/scale{index}"),
        Row(f"{theirs}.bias", f"{ours}/bias{index}"),
    )


def to_ours(table: Table, theirs: Weights, like: Tree, ignored: Sequence[str] = ()) -> Tree:
    """Return the tree of NumPy arrays that a table makes of {name: array}.

    table: rows from their names to our paths.
    theirs: {name: array}.
    like: arrays or shapes, whose paths, shapes and dtypes the tree has.
    ignored: regular expressions of names that may be left out.

    Raises InputError that names every weight that no row of `table` maps, two rows or names set at
    once, `like` has and nothing sets, or that has another shape.
    """
    wanted = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
    found, problems = _sorted(table, theirs, ignored)
    filled = {}
    for path, leaf in wanted.items():
        filled[path], wrong = _assembled(path, leaf, found.get(path, {}), bool(problems))
        problems += wrong
    problems += [f"{path} is no weight of ours" for path in found if path not in wanted]
    if problems:
        told = weights.first_of([*dict.fromkeys(problems)])
        raise InputError(f"the weights do not fit: {told}")
    return jax.tree_util.tree_map_with_path(lambda path, _: filled[path_name(path)], like)


# The arrays of theirs that are parts of one of ours, by the index of the part: (layout, array).
Parts = dict[str, tuple[str, np.ndarray]]


def _sorted(
    table: Table, theirs: Weights, ignored: Sequence[str]
) -> tuple[dict[str, Parts], list[str]]:
    """Return the parts that each path of ours gets, and what is wrong with the names of theirs."""
    found: dict[str, Parts] = {}
    problems = []
    rows = [(row, _regex(row.theirs)) for row in table]
    for name, array in theirs.items():
        matches = [(row, match) for row, regex in rows if (match := regex.fullmatch(name))]
        if len(matches) != 1:
            if matches or not any(re.search(pattern, name) for pattern in ignored):
                times = f"mapped {len(matches)} times" if matches else "no name of a weight of it"
                problems.append(f"{name} is {times}")
            continue
        ((row, match),) = matches
        path, index = _split(_fill(row.ours, match))
        if index in found.setdefault(path, {}):
            place = f"{path}[{index}]" if index else path
            problems.append(f"{place} is set twice, the second time by {name}")
        found[path][index] = row.layout, np.asarray(array)
    return found, problems


def _assembled(path: str, like: Any, parts: Parts, troubled: bool) -> tuple[np.ndarray, list[str]]:
    """Return the array of ours at a path, of the shape and dtype of `like`, and what is wrong.

    troubled: whether there are problems already, which may be why numbers are missing here.
    """
    whole, count, problems = np.empty(like.shape, like.dtype), 0, []
    listed = f"{path} has the parts {', '.join(parts)}, {list(whole.shape)} was expected"
    for index, (layout, array) in parts.items():
        try:
            part = whole[_index(index)]
        except IndexError:
            problems.append(listed)
            continue
        # An array of a shape that cannot be laid out is told as it is.
        with contextlib.suppress(ValueError, IndexError):
            array = LAYOUTS[layout].to_ours(array, part.shape)
        if array.shape == part.shape:
            whole[_index(index)], count = array, count + part.size
        else:
            problems.append(f"{path} is {list(array.shape)} there, {list(part.shape)} here")
    if not parts:
        problems.append(f"{path} is missing")
    elif count != whole.size and not problems and not troubled:
        problems.append(listed)
    return whole, problems


def matching(table: Table, names: Iterable[str]) -> list[str]:
    """Return those of the names of theirs that a table maps."""
    rows = [_regex(row.theirs) for row in table]
    return [name for name in names if any(row.fullmatch(name) for row in rows)]


def numbers(names: Iterable[str], pattern: str) -> set[int]:
    """Return the different numbers that the group of `pattern` is in the names' beginnings."""
    return {int(match[1]) for match in map(re.compile(pattern).match, names) if match}


def counted(names: Iterable[str], pattern: str) -> int:
    """Return how many numbers, from 0 on without a gap, `numbers` finds.

    Raises InputError for a gap: the number of layers, say, is not to be taken from one name alone.
    """
    found = numbers(names, pattern)
    gaps = [n for n in range(len(found)) if n not in found]
    if gaps:
        plain = pattern.replace("\\", "").replace("(d+)", str(gaps[0]))
        raise InputError(f"weights called {plain}* are missing, those of higher numbers are there")
    return len(found)


def to_theirs(table: Table, tree: Tree) -> Weights:
    """Return {their name: array} of a tree of ours: the inverse of `to_ours`.

    Rows with an index count through the axis that their number is on.

    Raises InputError for a path that no row maps.
    """
    found: Weights = {}
    split = [(row, *_split(row.ours)) for row in table]
    rows = [(row, _regex(path), index) for row, path, index in split]
    for tree_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path, array, before = path_name(tree_path), np.asarray(leaf), len(found)
        for row, regex, index in rows:
            if match := regex.fullmatch(path):
                name, back = _fill(row.theirs, match), LAYOUTS[row.layout].to_theirs
                for part, of in _counted(index, name, array.shape):
                    found[of] = back(array[_index(part)])
        if len(found) == before:
            raise InputError(f"no name of theirs is known for {path}")
    return found


def _counted(index: str, name: str, shape: Sequence[int]) -> list[tuple[str, str]]:
    """Return (index, name) for each number that "{i}" in an index stands for."""
    for axis, part in enumerate(index.split(",")):
        if part.startswith("{"):
            numbers = map(str, range(shape[axis]))
            return [(index.replace(part, i), name.replace(part, i)) for i in numbers]
    return [(index, name)]


def _regex(template: str) -> re.Pattern[str]:
    """Return a template as a regular expression, its numbers as groups."""
    seen = set()

    def group(match: re.Match[str]) -> str:
        name = match[1]
        again = name in seen
        seen.add(name)
        return f"(?P={name})" if again else f"(?P<{name}>\\d+)"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(template)))


def _fill(template: str, match: re.Match[str]) -> str:
    """Return a template with the numbers that another one matched."""
    return re.sub(r"\{(\w+)\}", lambda m: match.groupdict().get(m[1], m[0]), template)


def _split(path: str) -> tuple[str, str]:
    """Return ("a/b", "3,:") for "a/b[3,:]", and ("a/b", "") for "a/b"."""
    match = re.fullmatch(r"(.*)\[(.*)\]", path)
    return (match[1], match[2]) if match else (path, "")


def _index(text: str) -> tuple[int | slice, ...]:
    """Return (3, slice(None)) for "3,:", and () for ""."""
    return tuple(slice(None) if part == ":" else int(part) for part in text.split(",") if part)
