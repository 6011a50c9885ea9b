"""Whether a folder may be the workdir of a run: it is new, or holds a run of the same kind."""

import os
import pathlib

from evqgan.core import exported, hub, stores
from evqgan.core.errors import InputError, leads_nowhere

# What a run of both stages makes only after it has trained its tokenizer: folders, and files.
LATER = (
    ("generator", "samples"),
    (
        "evaluation.json",
        "reconstructions.png",
        "edits.png",
        "samples/samples.npz",
        "samples/grid.png",
    ),
)
# What other commands write: a name or pattern each, and what a folder that has it holds.
OTHERS = {
    "samples.npz": "samples",
    "candidates": "samples",
    f"{'[0-9]' * 8}.npz": "samples that are not finished",
    "*-of-*.npy": "encoded ids",
    "dataset_info.json": "a data set",
}


def check(workdir: str | os.PathLike[str], both: bool) -> None:
    """Raise InputError where a run that begins or goes on in `workdir` would hide what is there.

    That is a run of the other kind, an exported model, samples, encoded ids, or a data set. So it
    does for a folder where a run of both stages comes to write a file, or the other way round, and
    for a run whose checkpoints are gone: it would begin anew, and drop the numbers of before.
    Every command that trains calls this before it writes anything.

    both: whether the run is one of both stages, with a folder for each, or of one stage.
    """
    folder = stores.path(workdir)
    if holds := _holds(folder, both):
        raise InputError(f"{workdir} {holds}: give another --workdir")
    for run in [folder / part for part in exported.PARTS] if both else [folder]:
        _check_whole(run)
    if both and not stores.is_remote(folder) and (found := _in_the_way(folder)):
        raise InputError(f"{found}: move it away, or give another --workdir")


def _holds(folder: pathlib.Path, both: bool) -> str:
    """Return what a folder holds that a run may not join, in words; "" for nothing."""
    if exported.is_one(folder) or hub.is_named(folder):
        return "is an exported model, which nothing is written into"
    parts = [folder / part for part in exported.PARTS if _is_run(folder / part)]
    is_pair = bool(parts) or any((folder / name).is_file() for name in exported.BOTH)
    if both and _is_run(folder):
        return "holds a run of one stage, and this one is of both"
    if is_pair and not _is_run(folder) and not both:
        where = f" (its parts are {', '.join(map(str, parts))})" if parts else ""
        return f"holds a run of both stages{where}, and this one is of one stage"
    if is_pair or _is_run(folder):
        return ""
    found = (what for name, what in OTHERS.items() if any(folder.glob(name)))
    what = next(found, "")
    return f"holds {what}, and no run" if what else ""


def _in_the_way(workdir: pathlib.Path) -> str:
    """Return what is in the way of what a run of both stages makes, in words; "" for nothing."""
    folders, files = LATER
    for folder in (workdir / name for name in folders):
        if link := leads_nowhere(folder):
            return link
        if os.path.lexists(folder) and not folder.is_dir():
            return f"{folder} is a file, and this run makes a folder of that name"
    for file in (workdir / name for name in files):
        if file.is_dir():
            return f"{file} is a folder, and this run writes a file of that name"
    return ""


def _check_whole(run: pathlib.Path) -> None:
    """Raise InputError where a run has logged numbers, and the folder of its checkpoints is gone.

    A run makes that folder before its first step. A bucket has no empty folders: nothing is said.
    """
    metrics, checkpoints = run / "metrics.jsonl", run / "checkpoints"
    if stores.is_remote(run) or not metrics.is_file() or checkpoints.exists():
        return
    raise InputError(
        f"{checkpoints} is gone, and {metrics} is of a run that had it: put it back to go on; to "
        f"begin anew, move {metrics.name} away, or give another --workdir"
    )


def _is_run(folder: pathlib.Path) -> bool:
    """Return whether a folder holds what the training of a stage writes."""
    return any((folder / name).exists() for name in exported.RUN)
