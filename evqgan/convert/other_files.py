"""What a file holds that is not the one of a frozen network which it was taken for."""

import re
from collections.abc import Collection, Iterable

import jax

from evqgan.convert import frozen
from evqgan.convert.frozen import Source
from evqgan.convert.mapping import Row, Weights, matching
from evqgan.core.mesh import path_name

SHOWN = 3  # ours: names in a message
MOST = 0.9  # ours: share of a network's rows, and of a file's names, by which it is that network's


def described(system: str, theirs: Weights) -> str:
    """Return what a file lacks of a network, and which one it seems to be of.

    "" where most of the network's weights are there, so that what is wrong can be listed.

    theirs: {name: array} of the file.
    """
    source = frozen.NETWORKS[system]
    tables = [rows for rows in (source.table, [*source.also]) if rows]
    table = max(tables, key=lambda rows: found(rows, theirs))
    if found(table, theirs) >= MOST / 2:
        return ""
    lacking = [re.sub(r"\{\w+\}", "*", row.theirs) for row in table if not matching([row], theirs)]
    kind = seems(theirs)
    guess = f"; it seems to be {kind}" if kind else ""
    return f"it lacks {listed(lacking)}, and has {listed(theirs)}{guess}"


def seems(theirs: Weights) -> str:
    """Return which networks' file has these names, in words; "" if it is none's."""
    known = [name for name, source in frozen.NETWORKS.items() if is_of(source, theirs)]
    if known:
        return f"of {' or '.join(known)}"
    if not any(name.startswith("params/") for name in theirs):
        return ""
    for name, source in frozen.NETWORKS.items():
        paths = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(source.like())}
        if paths == set(theirs):
            return f"of {name}, converted already: put it into EVQGAN_WEIGHTS as {name}.safetensors"
    return ""


def is_of(source: Source, theirs: Weights) -> bool:
    """Return whether a file has most rows of a network's table, and hardly any other names."""
    names = [name for name in theirs if not any(re.search(x, name) for x in source.ignored)]
    for rows in (source.table, [*source.also]):
        if rows and found(rows, theirs) >= MOST:
            return len(matching(rows, names)) >= MOST * len(names)
    return False


def found(rows: Collection[Row], theirs: Iterable[str]) -> float:
    """Return the share of rows that map one of these names or more."""
    return sum(bool(matching([row], theirs)) for row in rows) / len(rows)


def listed(names: Iterable[str]) -> str:
    """Return the first of several names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"
