"""Tables from the weight names of a public checkpoint to paths in our trees of weights; both ways, all or nothing."""

import re
from typing import NamedTuple

import jax
import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name

# What has to be done to an array of theirs (PyTorch) to become ours (flax), and back.
LAYOUTS = {
    "same": (lambda x: x, lambda x: x),
    "conv": (lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),  # OIHW <-> HWIO
    "dense": (lambda x: x.T, lambda x: x.T),  # [out,in] <-> [in,out]
}


class Row(NamedTuple):
    """One line of a table: names `theirs` go to the paths `ours`.

    "{i}" stands for a number, the same one on both sides: Row("blocks.{i}.weight", "params/block{i}/kernel", "conv").
    A path may end in an index, "params/blocks/kernel[{i}]" or "...[3]": that part of an array stacked along axis 0.
    """

    theirs: str
    ours: str
    layout: str = "same"


def to_ours(table, theirs, like, ignored=()):
    """{name: array} -> a tree of NumPy arrays with the paths, shapes and dtypes of `like` (arrays or shapes).

    ignored: regular expressions of names that may be left out. InputError names every weight that no row of `table`
    maps, two rows or names set at once, `like` has and nothing sets, or that has another shape.
    """
    wanted = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
    found, problems = {}, []
    for name, array in theirs.items():
        rows = [(row, match) for row in table if (match := _regex(row.theirs).fullmatch(name))]
        if len(rows) != 1:
            if rows or not any(re.search(pattern, name) for pattern in ignored):
                problems.append(f"{name} is mapped {len(rows)} times")
            continue
        ((row, match),) = rows
        path, index = _split(_fill(row.ours, match))
        if (path, index) in found:
            problems.append(f"{path}{'' if index is None else [index]} is set twice, the second time by {name}")
        found[path, index] = LAYOUTS[row.layout][0](np.asarray(array))
    filled = {}
    for path, leaf in wanted.items():
        parts = {index: array for (p, index), array in found.items() if p == path}
        shape = tuple(leaf.shape)
        if not parts:
            problems.append(f"{path} is missing")
        elif set(parts) != ({None} if None in parts else set(map(str, range(shape[0])))):
            problems.append(f"{path} has the parts {', '.join(map(str, parts))}, {shape[0]} were expected")
        else:
            array = parts[None] if None in parts else np.stack([parts[str(i)] for i in range(shape[0])])
            if array.shape != shape:
                problems.append(f"{path} is {list(array.shape)} there, {list(shape)} here")
            filled[path] = np.asarray(array, leaf.dtype, order="C")
    problems += [f"{path} is no weight of ours" for path, _ in found if path not in wanted]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"the weights do not fit: {'; '.join(dict.fromkeys(problems[:5]))}{more}")
    return jax.tree_util.tree_map_with_path(lambda path, _: filled[path_name(path)], like)


def to_theirs(table, tree):
    """A tree of ours -> {their name: array}: the inverse of `to_ours`. InputError for a path that no row maps."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path, leaf, before = path_name(path), np.asarray(leaf), len(found)
        for row in table:
            ours, index = _split(row.ours)
            match = _regex(ours).fullmatch(path)
            if not match:
                continue
            back = LAYOUTS[row.layout][1]
            if index is None:
                found[_fill(row.theirs, match)] = back(leaf)
            elif index.isdigit():
                found[_fill(row.theirs, match)] = back(leaf[int(index)])
            else:
                for i in range(len(leaf)):
                    found[_fill(row.theirs.replace(index, str(i)), match)] = back(leaf[i])
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
    """ "a/b[3]" -> "a/b", "3"; "a/b" -> "a/b", None."""
    match = re.fullmatch(r"(.*)\[(.*)\]", path)
    return (match[1], match[2]) if match else (path, None)
