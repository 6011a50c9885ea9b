"""Tables from the weight names of a public checkpoint to paths in our trees of weights.

They are read both ways, all or nothing.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name

Path = str | os.PathLike[str]
Weights = dict[str, np.ndarray]  # {name in their file: array}
Tree = Any  # a nested dict of arrays or shapes: variables of ours

# What has to be done to an array of theirs to become ours, which has `shape`, and back. PyTorch: OIHW, [out,in].
LAYOUTS = {
    "same": (lambda x, shape: x, lambda x: x),
    "conv": (
        lambda x, shape: x.transpose(2, 3, 1, 0),
        lambda x: x.transpose(3, 2, 0, 1),
    ),  # OIHW <-> HWIO
    "dense": (lambda x, shape: x.T, lambda x: x.T),  # [out,in] <-> [in,out]
    "conv1x1": (
        lambda x, shape: x[:, :, 0, 0].T,
        lambda x: x.T[:, :, None, None],
    ),  # OI11 <-> [in,out]
    "dense1x1": (lambda x, shape: x[0, 0], lambda x: x[None, None]),  # 11IO <-> [in,out]
    # of attention heads: [heads*d,in] <-> [in,heads,d]; [out,heads*d] <-> [heads,d,out]; [heads*d] <-> [heads,d]
    "to_heads": (lambda x, shape: x.T.reshape(shape), lambda x: x.reshape(len(x), -1).T),
    "from_heads": (lambda x, shape: x.T.reshape(shape), lambda x: x.reshape(-1, x.shape[-1]).T),
    "head_bias": (lambda x, shape: x.reshape(shape), lambda x: x.reshape(-1)),
    "row": (lambda x, shape: x[0], lambda x: x[None]),  # [1,...] <-> [...]
}


class Row(NamedTuple):
    """One line of a table: names `theirs` go to the paths `ours`.

    "{i}" stands for a number, the same one on both sides: Row("blocks.{i}.weight", "params/block{i}/kernel", "conv").
    A path may end in an index, "params/blocks/kernel[{i}]", "...[3]" or "...[{i},:,0]": that part of an array.
    """

    theirs: str
    ours: str
    layout: str = "same"


Table = Iterable[Row]


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
    found, problems = {}, []
    rows = [(row, _regex(row.theirs)) for row in table]
    for name, array in theirs.items():
        matches = [(row, match) for row, regex in rows if (match := regex.fullmatch(name))]
        if len(matches) != 1:
            if matches or not any(re.search(pattern, name) for pattern in ignored):
                problems.append(f"{name} is mapped {len(matches)} times")
            continue
        ((row, match),) = matches
        path, index = _split(_fill(row.ours, match))
        if index in found.setdefault(path, {}):
            problems.append(
                f"{path}{index and f'[{index}]'} is set twice, the second time by {name}"
            )
        found[path][index] = row.layout, np.asarray(array)

    def parts(path, whole):
        return f"{path} has the parts {', '.join(found[path])}, {list(whole.shape)} was expected"

    filled = {}
    for path, leaf in wanted.items():
        whole, count = np.empty(leaf.shape, leaf.dtype), 0
        for index, (layout, array) in found.get(path, {}).items():
            try:
                part = whole[_index(index)]
            except IndexError:
                problems.append(parts(path, whole))
                continue
            with contextlib.suppress(
                ValueError, IndexError
            ):  # a shape that cannot be laid out is told as it is
                array = LAYOUTS[layout][0](array, part.shape)
            if array.shape == part.shape:
                whole[_index(index)], count = array, count + part.size
            else:
                problems.append(f"{path} is {list(array.shape)} there, {list(part.shape)} here")
        if path not in found:
            problems.append(f"{path} is missing")
        elif count != whole.size and not problems:
            problems.append(parts(path, whole))
        filled[path] = whole
    problems += [f"{path} is no weight of ours" for path in found if path not in wanted]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"the weights do not fit: {'; '.join(dict.fromkeys(problems[:5]))}{more}")
    return jax.tree_util.tree_map_with_path(lambda path, _: filled[path_name(path)], like)


def to_theirs(table: Table, tree: Tree) -> Weights:
    """A tree of ours -> {their name: array}: the inverse of `to_ours`. InputError for a path that no row maps.

    Rows with an index count through the axis that their number is on.
    """
    found = {}
    rows = [(row, *_split(row.ours)) for row in table]
    rows = [(row, _regex(path), index) for row, path, index in rows]
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path, leaf, before = path_name(path), np.asarray(leaf), len(found)
        for row, regex, index in rows:
            match = regex.fullmatch(path)
            if not match:
                continue
            back, name = LAYOUTS[row.layout][1], _fill(row.theirs, match)
            counted = [
                (axis, part) for axis, part in enumerate(index.split(",")) if part.startswith("{")
            ]
            for i in range(leaf.shape[counted[0][0]]) if counted else [0]:
                at, of = (
                    text.replace(counted[0][1], str(i)) if counted else text
                    for text in (index, name)
                )
                found[of] = back(leaf[_index(at)])
        if len(found) == before:
            raise InputError(f"no name of theirs is known for {path}")
    return found


def _regex(template):
    """A template as a regular expression, its numbers as groups."""
    seen = set()

    def group(match):
        name = match[1]
        again = name in seen
        seen.add(name)
        return f"(?P={name})" if again else f"(?P<{name}>\\d+)"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(template)))


def _fill(template, match):
    return re.sub(r"\{(\w+)\}", lambda m: match.groupdict().get(m[1], m[0]), template)


def _split(path):
    """ "a/b[3,:]" -> "a/b", "3,:"; "a/b" -> "a/b", ""."""
    match = re.fullmatch(r"(.*)\[(.*)\]", path)
    return (match[1], match[2]) if match else (path, "")


def _index(text):
    """ "3,:" -> (3, slice(None)); "" -> ()."""
    return tuple(slice(None) if part == ":" else int(part) for part in text.split(",") if part)
