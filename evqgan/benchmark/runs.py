"""What benchmarks of many runs share.

Flags, which of the runs this process does (--part=I/N), the numbers that are kept of them, and rows
of a table. Several processes share the work by files below --out; nothing is locked.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evqgan.core import files, pictures, progress, signals
from evqgan.core.cli import PATH, TEXT, Flag, whole
from evqgan.core.config_files import override, read_file
from evqgan.core.errors import InputError
from evqgan.evals.against_real import Colours, Features
from evqgan.features.extractor import Extractor
from evqgan.inference.model import Model

# {number of samples: the same number of real images}, where that is not "heldout_" and its name.
REAL = {"sample_accuracy": "heldout_accuracy"}
SECONDS = 10.0  # ours: between two lines of progress
SHOWN = 10  # ours: samples in the picture's rows

OUT = Flag("out", PATH, (), "where the workdirs and the picture go", required=True)
SEEDS = Flag("seeds", whole(1), (), "runs of each: seeds 0, 1, ... (3)", 3)
ONLY = Flag("only", TEXT, (), "the name of one; several times (default: all)", repeated=True)
SAMPLES = Flag("samples", whole(2), (), "how many samples each run is measured on (500)", 500)
FEATURES = Flag(
    "features",
    TEXT,
    (),
    "whose features the Frechet distance compares: efficientnet, digits or another network of "
    "evqgan/features, or colours at 8x8 (pixels)",
    "pixels",
)
WEIGHTS = Flag("weights", PATH, (), 'its weights: a folder, "" for the cache, or "random"', "")
PART = Flag("part", TEXT, (), "I/N: do the I-th of N parts; the table has what any has done", "1/1")


def part_of(text: str) -> tuple[int, int]:
    """Return the numbers of "2/3"; InputError unless the first one is from 1 to the second."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"expected --part=I/N with I from 1 to N, such as 1/2, got {text!r}")
    return int(part), int(parts)


def known(file: pathlib.Path, **made: Any) -> dict[str, Any] | None:
    """Return the numbers that are kept in a file.

    None: there is none, it has no card, or one of these settings is another. Raises InputError for
    a damaged file.
    """
    numbers = read(file)
    alike = made == {key: numbers.get(key) for key in made}
    return numbers if alike and numbers.get("card") else None


def each(
    names: Sequence[str],
    given: Any,
    do: Callable[[str, int], dict[str, Any]],
    done: Callable[[str, int], dict[str, Any] | None],
    owners: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, list[dict[str, Any]]]:
    """Return {name: the numbers of its runs}, of all --seeds; names without a run are left out.

    Runs of this --part are made by `do`; of the others `done` returns what another process has
    kept, or None. Runs that share an owner and a seed are in one part.

    given: the flags OUT, SEEDS and PART.
    do, done: functions of a name and a seed.
    owners: {name: the name whose tokenizer it uses}; all others use their own.
    """
    part, parts = part_of(given.part)
    trials = [(name, seed) for seed in range(given.seeds) for name in names]
    groups = list(dict.fromkeys((owners.get(name, name), seed) for name, seed in trials))
    in_all = progress.counted(len(trials), "run")
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (name, seed) in enumerate(trials):
        signals.note_done(f"{number} of {in_all} in {given.out}")
        is_ours = groups.index((owners.get(name, name), seed)) % parts == part - 1
        numbers = (do if is_ours else done)(name, seed)
        if numbers:
            found.setdefault(name, []).append(numbers)
    if not found:
        nothing = "is none, and no other part has ended one"
        raise InputError(f"--part={given.part} of {in_all} {nothing}")
    signals.note_done(f"all of {in_all} in {given.out}")
    return {name: found[name] for name in names if name in found}


def config_with_data(file: str, overrides: Sequence[str]) -> ConfigDict:
    """Return the config of FILE[:variant], of which the images are wanted, with --config.KEY set.

    Raises InputError for one that has no config.dataset, such as a quickstart's.
    """
    config = read_file(file)
    override(config, [*overrides])
    if "dataset" not in config:
        what = f"{file} is of {config.stage} and has no config.dataset"
        raise InputError(f"{what}: give the config of one stage")
    return config


def read(file: pathlib.Path) -> dict[str, Any]:
    """Return what a benchmark has kept in a file, {} where there is none yet."""
    if not file.is_file():
        return {}
    return files.read_json(file, "what a benchmark keeps of a run", "remove it to measure anew")


def together(of_runs: Sequence[Any]) -> Any:
    """Return the card of a mean over several runs: what differs between theirs is a list."""
    first = of_runs[0]
    if all(card == first for card in of_runs):
        return first
    if all(isinstance(card, Mapping) for card in of_runs):
        names = dict.fromkeys(name for card in of_runs for name in card)
        return {name: together([card.get(name) for card in of_runs]) for name in names}
    return list(of_runs)


def of_real(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of the numbers of held-out images, from that of samples beside them."""
    kept = ("protocol", "real", "heldout", "features", "settings", "run")
    return {name: card[name] for name in kept}


def mean_and_sd(name: str, values: Iterable[float | None]) -> dict[str, float | None]:
    """Return {name: mean, name_sd: standard deviation} of the values that are not None."""
    present = [value for value in values if value is not None]
    deviation = float(np.std(present, ddof=1)) if len(present) > 1 else None
    return {name: float(np.mean(present)) if present else None, f"{name}_sd": deviation}


def real_row(like: Mapping[str, Any], numbers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the row of real images held out from training: what samples as good as they have.

    like: a row of runs, for its keys.
    numbers: of one run, among them those of real images.
    more: other values of the row, among them its card.
    """
    row = {key: numbers.get(REAL.get(key, f"heldout_{key}")) for key in like}
    return {**row, **more}


def save_picture(file: pathlib.Path, lines: Mapping[str, Iterable[np.ndarray]]) -> None:
    """Write a picture of rows of images under their names."""
    rows = [pictures.label(pictures.row(list(images)), text) for text, images in lines.items()]
    pictures.save_png(file, pictures.column(rows), {"mode": file.stem})
    print(f"a row of samples of each: {file}")


def sampling(model: Model) -> progress.Progress:
    """Return what prints how the sampling of a model goes on."""
    return progress.Progress("sample", every=SECONDS, compiling=lambda: model.runner.compiling)


def features_of(given: Any) -> Features:
    """Return the features that --features and --weights name: colours for pixels, or a network."""
    if given.features == "pixels":
        return Colours()
    return Extractor(given.features, given.weights, "--features")
