"""What runs wrote while they trained: the numbers of metrics.jsonl, as curves."""

import fnmatch
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from evqgan.core import cards, exported, files, metric_lines, stores
from evqgan.core.build import suggestion
from evqgan.core.errors import InputError
from evqgan.core.progress import counted

FILE = "metrics.jsonl"
# What is drawn only if it is asked for: speed, counts of a run's upkeep, values at each share of
# masked tokens, of which the mean is drawn; and what never changes.
LEFT_OUT = ("perf/*", "*/skipped*", "*/revived", "*/masked", "*@*")
Axis = Literal["steps", "images", "hours"]
AXES = get_args(Axis)
SMOOTHED = 0.04  # ours: the share of a curve's points, on either side, of which a point is the mean
SOME = 3  # ours: damaged lines that are named
FEW = 12  # ours: a curve of fewer points is not smoothed


class Run(NamedTuple):
    """What a run wrote.

    name: to tell it from the others; folder: its workdir.
    stage: "stage1", "stage2", or "" where no config.json says so.
    batch_size: images a step, None where no config.json says so.
    values: {key: {step: number}}, in the order of the steps.
    breaks: {key: the steps from which on it was measured otherwise than before}.
    damage: which lines of its file were left out as damaged, in words; "" for none.
    """

    name: str
    folder: pathlib.Path
    stage: str
    batch_size: int | None
    values: dict[str, dict[int, float]]
    damage: str = ""
    breaks: Mapping[str, Sequence[int]] = {}


def read(workdirs: Sequence[str]) -> list[Run]:
    """Return the runs of workdirs, one after the other; a quickstart's are two.

    Raises InputError for a workdir that has no file of numbers.
    """
    folders = [folder for workdir in workdirs for folder in parts_of(workdir)]
    folders = list({stores.real(folder): folder for folder in folders}.values())
    return [run(folder, name) for folder, name in zip(folders, names(folders), strict=True)]


def parts_of(workdir: str) -> list[pathlib.Path]:
    """Return the folders of a workdir in which there are numbers: itself, or both its parts."""
    place = stores.path(workdir).expanduser()
    for folders in ([place], [place / part for part in exported.PARTS]):
        if found := [folder for folder in folders if (folder / FILE).is_file()]:
            return found
    if place.name == FILE and place.is_file():
        raise InputError(f"{place} is a file: give the folder that it is in")
    raise InputError(f"{place} has no {FILE}: expected the workdir of a run that has begun")


def names(folders: Sequence[pathlib.Path]) -> list[str]:
    """Return the shortest ends of paths that tell all of them apart.

    A part of a quickstart's has the name of the workdir, too.
    """
    paths = [stores.real(folder).parts for folder in folders]
    for length in range(1, max(map(len, paths), default=0) + 1):
        ends = ["/".join(p[-length - (p[-1] in exported.PARTS) :]) for p in paths]
        if len({*ends}) == len(ends):
            return ends
    return [str(folder) for folder in folders]


def run(folder: pathlib.Path, name: str) -> Run:
    """Return what the run in a folder wrote."""
    file = folder / "config.json"
    config: Mapping[str, Any] = files.read_json(file) if file.is_file() else {}
    size, stage = config.get("batch_size"), config.get("stage", "")
    values, damage = numbers(folder / FILE)
    size = size if isinstance(size, int) else None
    return Run(name, folder, stage, size, values, damage, breaks(folder, values))


def breaks(folder: pathlib.Path, values: Mapping[str, Mapping[int, float]]) -> dict[str, list[int]]:
    """Return the steps from which on numbers were measured otherwise, by the cards in training/.

    values: as of `Run`. A number without a card was measured as the one before, as far as is known.
    """
    found: dict[str, list[int]] = {}
    last: dict[str, str] = {}
    evaluated = {key: steps for key, steps in values.items() if key.startswith("val/")}
    for step in sorted({step for steps in evaluated.values() for step in steps}):
        how = cards.measurements(cards.of_step(folder, step))
        for key in [key for key in how if step in evaluated.get(key, ())]:
            if last.setdefault(key, how[key]) != how[key]:
                found.setdefault(key, []).append(step)
            last[key] = how[key]
    return found


def numbers(path: pathlib.Path) -> tuple[dict[str, dict[int, float]], str]:
    """Return {key: {step: number}} of a metrics.jsonl, and in words which lines are damaged.

    Where a run went on from an earlier step, what it wrote from there on takes the place of what
    stood there. What was not finite is left out, and so are a last line without an end, which a run
    may be writing, and damaged lines: those that are no JSON object of numbers with a step.
    """
    found: dict[int, dict[str, float]] = {}
    last, damaged, lines = 0, list[int](), metric_lines.texts(path)
    for number, line in enumerate(lines, 1):
        values = metric_lines.parsed(line)
        if values is None or not is_of_numbers(values):
            damaged.append(number)
            continue
        step = values.pop("step")
        if step < last:
            found = {at: kept for at, kept in found.items() if at <= step}
        last = step
        found.setdefault(step, {}).update(values)
    curves: dict[str, dict[int, float]] = {}
    for step, values in sorted(found.items()):
        for key, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(key, {})[step] = value
    return curves, in_words(path, damaged, len(lines))


def is_of_numbers(values: Mapping[str, Any]) -> bool:
    """Return whether a line holds nothing but numbers, and which of them were not finite."""
    given = [value for name, value in values.items() if name != "errors"]
    return all(value is None or isinstance(value, int | float) for value in given)


def in_words(path: pathlib.Path, damaged: Sequence[int], number: int) -> str:
    """Return which of a file's lines are damaged, "" for none; number: of all its lines."""
    if not damaged:
        return ""
    which = ", ".join(map(str, damaged[:SOME])) + (", ..." if len(damaged) > SOME else "")
    are = "is" if len(damaged) == 1 else "are"
    return (
        f"{len(damaged):,} of {counted(number, 'line')} of {path} {are} damaged (number {which}): "
        "no JSON object of numbers with a step"
    )


def chosen(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Return the keys to draw, in the order that is asked for.

    keys: as "train/loss"; "loss" is that of train and of val, and of val at each share of masked
      tokens ("val/accuracy@0.50"); "val/*" is a pattern. None: the loss, what is held out, and the
      rest but LEFT_OUT, in the order in which runs have them.

    Raises InputError for one that no run has.
    """
    known = list(dict.fromkeys(key for run in runs for key in run.values))
    if not keys:
        changing = {key for run in runs for key, x in run.values.items() if len({*x.values()}) > 1}
        some = [key for key in known if not any(fnmatch.fnmatch(key, x) for x in LEFT_OUT)]
        some = [key for key in some if key in changing or key.startswith("val/")]
        return sorted(some, key=lambda key: (key != "train/loss", not key.startswith("val/")))
    found: list[str] = []
    for wish in keys:
        patterns = [wish] if "/" in wish else [f"*/{wish}", f"*/{wish}@*"]
        matches = [key for key in known if any(fnmatch.fnmatchcase(key, x) for x in patterns)]
        if not matches:
            near = known if "/" in wish else {key.split("/")[-1] for key in known}
            raise InputError(f"--keys: no run has {wish!r}: {suggestion(wish, near)}")
        found += [key for key in matches if key not in found]
    return found


def positions(run: Run, steps: Iterable[int], axis: Axis) -> np.ndarray:
    """Return where steps are on an axis, float64: as they are, in images, or in hours.

    Hours are those of training steps, by perf/step_seconds: evaluation and compilation are not in
    them.

    Raises InputError where a run does not say what is needed.
    """
    at = np.array(list(steps), np.float64)
    if axis == "images":
        if not run.batch_size:
            raise InputError(f"--x=images: {run.folder} has no config.json with a batch_size")
        return at * run.batch_size
    if axis == "hours":
        seconds = run.values.get("perf/step_seconds", {})
        if not seconds:
            raise InputError(f"--x=hours: {run.folder} has no perf/step_seconds")
        known = np.array([0, *seconds], np.float64)
        taken = np.cumsum(np.diff(known) * list(seconds.values())) / 3600
        each = taken[-1] / known[-1]
        later = np.maximum(at - known[-1], 0) * each
        return np.interp(at, known, [0, *taken]) + later
    return at


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return values [N] as means of their neighbours, fewer of them towards both ends."""
    number = len(values)
    if number < FEW:
        return values
    reach = np.minimum(max(1, round(SMOOTHED * number)), np.arange(number))
    reach = np.minimum(reach, reach[::-1])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(number)
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)
