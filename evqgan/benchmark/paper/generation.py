"""What the paper's tables of generated images share: the systems, sampled and measured alike."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evqgan.benchmark import runs
from evqgan.benchmark.paper import beside, choosing, quality, small, workdirs
from evqgan.benchmark.paper.published import Table
from evqgan.benchmark.paper.small import Small
from evqgan.benchmark.real_images import names_of
from evqgan.core import files, npz, pictures, progress, signals
from evqgan.core.cli import Flag
from evqgan.core.config_files import read_file
from evqgan.data import pipeline, stored_ids
from evqgan.evals.provenance import fingerprints, plain
from evqgan.features import extractor
from evqgan.inference import evaluation, unfinished_samples
from evqgan.inference.mode_inputs import load_model
from evqgan.inference.model import Model

FLAGS: tuple[Flag, ...] = (
    quality.WORKDIR,
    quality.FEATURES,
    quality.WEIGHTS,
    quality.SAMPLES,
    small.OUT,
    small.DATA,
)


class Case(NamedTuple):
    """A generator that is sampled: its name in the table, its model, and the real images' views."""

    name: str
    model: Model
    views: int = 1
    colour: bool = False


def run(
    given: Any,
    table: Table,
    systems: Sequence[Small],
    acceptances: dict[str, float] | None = None,
    check: Callable[[workdirs.Named], None] | None = None,
) -> tuple[str, list[beside.Row]]:
    """Return the title and the rows of a table: the paper's, those measured, and real images.

    systems: small ones that are trained where no --workdir is given.
    acceptances: {name: share kept} of those that are sampled a second time, with rejection; of
      workdirs with classes all are, if there are any.
    check: raises InputError for workdirs that the table cannot be of.
    """
    cases, scale = chosen(given, systems, table)
    if check and given.workdir:
        check([(case.name, case.model) for case in cases])
    rows, shown = [], {}
    for case in cases:
        accepted = [1.0]
        if acceptances and case.model.classes:
            share = acceptances.get(case.name) if not given.workdir else min(acceptances.values())
            accepted += [share] if share else []
        for acceptance in accepted:
            numbers, card, images = measured(given, case, acceptance)
            row: dict[str, Any] = {"system": case.name, "data": card["real"]["source"]}
            row |= {"acceptance": acceptance, "size": case.model.size[0]}
            rows.append({**row, **numbers, "card": card})
            shown[f"{case.name}, {row['data']}{kept_text(acceptance)}"] = images
    rows += real_rows(cases)
    name = table.name.replace(" ", "").lower()
    file = pathlib.Path(given.out) / f"{name}.png"
    lines = [pictures.label(pictures.row(list(x)), text) for text, x in shown.items()]
    pictures.save_png(file, pictures.column(lines), {"mode": name})
    print(f"samples of each: {file}")
    return f"{table.name}, {table.title}; measured here: {scale}", beside.beside(table, rows)


def kept_text(acceptance: float) -> str:
    """Return what is said of the share of samples that are kept, "" of all."""
    return f", {acceptance:g} kept" if acceptance < 1 else ""


def measured(
    given: Any, case: Case, acceptance: float = 1.0, **sampler: Any
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Return the columns of `quality.of_generator`, their card, and the first few samples.

    They are kept in OUT/measured: what was measured alike before is not measured again.
    """
    names, chooser = quality.networks(given), None
    if acceptance < 1:
        chooser = choosing.name_of(case.model, case.colour)
    made: dict[str, Any] = {
        "workdir": str(case.model.workdir),
        "step": case.model.step,
        "model": [*fingerprints(case.model.state)],
        "samples": given.samples,
        "features": [extractor.card_of(name, given.weights, "--features") for name in names],
        **real_images_of(case.model),
        "acceptance": acceptance,
        "chooser": chooser,
        "views": case.views,
        "colour": case.colour,
        "sampler": sampler,
    }
    made = json.loads(json.dumps(made, default=plain))  # as a file has it
    name = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    file = pathlib.Path(given.out) / "measured" / f"{name}.json"
    kept, images = runs.known(file, **made), file.with_suffix(".npz")
    if kept is None or not images.is_file():
        changes = "".join(f", {key} {value}" for key, value in sampler.items())
        what = f"{case.name}{changes}{kept_text(acceptance)}"
        progress.say(f"{what}: {given.samples:,} samples")
        candidates = file.with_suffix("")
        numbers, card, samples = quality.of_generator(
            case.model, given, candidates, acceptance, case.views, case.colour, **sampler
        )
        npz.save(images, images=samples)
        kept = {**made, "numbers": numbers, "card": card}
        files.save_json(file, kept)
        unfinished_samples.remove(candidates)
    tables = len(list(file.parent.glob("*.json")))
    signals.note_done(
        f"all trainings, and {progress.counted(tables, 'measurement')} in {file.parent}"
    )
    with npz.readable(images), npz.opened(images) as saved:
        return kept["numbers"], kept["card"], saved["images"]


def real_images_of(model: Model) -> dict[str, Any]:
    """Return which real images a model is measured beside. None is read."""
    dataset = evaluation.images_of(model.config)
    splits = {split: pipeline.open_split(dataset, split) for split in names_of(dataset)}
    images = {split: pipeline.identity(source) for split, source in splits.items()}
    return {"dataset": stored_ids.data_keys(dataset), "images": images}


def chosen(
    given: Any, systems: Sequence[Small], table: Table | None = None
) -> tuple[list[Case], str]:
    """Return the generators to sample, and in words how large they are beside those of a table.

    table: where each workdir is a row of its own; None: those of one name are runs of one system.
    """
    small.check_unused(given)
    if table:
        quality.check_names(given.workdir or ())
    quality.check(given, "stage2")
    if given.workdir:
        opened = [quality.opened(text, "stage2") for text in given.workdir]
        return [Case(*pair) for pair in opened], workdirs.title(opened, table)
    cases = []
    for system, workdir in zip(systems, small.generators(given.out, systems), strict=True):
        keys = read_file(f"{small.CONFIGS}:{system.data}").real
        name = small.GENERATORS[system.system]
        cases.append(Case(name, load_model(None, workdir), keys.views, keys.colour))
    return cases, small.scale(systems)


def real_rows(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return a row of real images for each data set, size, and whether there are classes."""
    rows, seen = [], set()
    for case in cases:
        key = (case.model.config.dataset.to_json(), bool(case.model.classes))
        if key not in seen:
            seen.add(key)
            if row := quality.real_row(case.model, case.views, case.colour):
                about = {"data": row["card"]["real"]["source"], "size": case.model.size[0]}
                rows.append({**about, **row})
    return rows
