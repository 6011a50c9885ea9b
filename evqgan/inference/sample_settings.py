"""What decides which images are sampled: the settings of a task, and how two of them differ."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evqgan.core import build, stores
from evqgan.evals.finished import in_words
from evqgan.evals.provenance import plain

Settings = dict[str, Any]


def describe(
    workdir: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    sampler: Mapping[str, Any],
    seed: int,
    labels: np.ndarray,
    acceptance: float = 1.0,
) -> Settings:
    """Return the settings of a task that are known before its model is loaded, as JSON has them.

    workdir: of the model; noted relative to `folder`, so that both may move together.
    folder: where results go.
    sampler: all settings of the sampler by name.
    labels: int32 [num].
    """
    settings = {
        "workdir": _from(folder, workdir),
        "sampler": dict(sampler),
        "seed": seed,
        "acceptance": acceptance,
        "labels": np.asarray(labels).tolist(),
    }
    return json.loads(json.dumps(settings, default=plain))


def _from(folder: str | os.PathLike[str], workdir: str | os.PathLike[str]) -> str:
    """Return the path of a workdir as seen from `folder`; of a bucket's from elsewhere, its URL.

    Symbolic links are followed: by another way it is the same workdir.
    """
    if stores.is_remote(workdir) == stores.is_remote(folder):
        if stores.is_remote(workdir):
            return os.path.relpath(workdir, folder)
        return os.path.relpath(os.path.realpath(workdir), os.path.realpath(folder))
    return os.fspath(workdir) if stores.is_remote(workdir) else os.path.abspath(workdir)


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return "A = x and B = y, not A = z and B = w" of what differs, "" if nothing does.

    there, here: Settings; what one of them does not say of a sampler is None.
    """
    pairs: dict[str, tuple[str, str]] = {}
    for name, value in here.items():
        saved = there.get(name)
        if name == "labels" and isinstance(saved, list):
            pairs |= _labels(saved, value)
        elif isinstance(value, dict) and isinstance(saved, dict):
            found = build.differences(saved, value, "config.sample.")
            pairs |= {key: (str(a), str(b)) for key, (a, b) in found.items()}
        elif saved != value:
            pairs[name] = str(saved), str(value)
    made, asked = (
        " and ".join(f"{name} = {pair[i]}" for name, pair in pairs.items()) for i in range(2)
    )
    return f"{made}, not {asked}" if pairs else ""


def _labels(there: Sequence[int], here: Sequence[int]) -> dict[str, tuple[str, str]]:
    """Return {"num" and "labels": in words} of those two in which lists of labels differ."""
    pairs: dict[str, tuple[str, str]] = {}
    if len(there) != len(here):
        pairs["num"] = str(len(there)), str(len(here))
    both = min(len(there), len(here))
    if (differ := np.flatnonzero(np.array(there[:both]) != np.array(here[:both]))).size:
        first, texts = differ[0], (in_words(there), in_words(here))
        if texts[0] == texts[1]:  # too long to show
            texts = f"{there[first]} of image {first}", f"{here[first]} of image {first}"
        pairs["labels"] = texts
    return pairs
