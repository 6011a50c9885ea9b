"""The mode evaluate: a trained workdir, and the samples made from it, to numbers on disk."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evqgan import evals, models
from evqgan.core import (
    build,
    checkpoint,
    chosen_step,
    cluster,
    exported,
    files,
    processes,
    schema,
    stores,
)
from evqgan.core.errors import ContractError, InputError
from evqgan.core.progress import counted, heartbeat, say, warn
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.evals import finished, provenance
from evqgan.evals.against_real import AgainstReal, RealImages
from evqgan.evals.batches import errors_last
from evqgan.evals.image_set import Tally
from evqgan.evals.protocols import FOLDER
from evqgan.evals.provenance import Card, Evaluation, Measured, Subject
from evqgan.inference.evaluation_parts import Part, check_classes, check_metrics, parts_of
from evqgan.inference.evaluators import Evaluators, chosen, evaluators_of, on_every_device
from evqgan.inference.model import Model, load

# Begins the names of numbers of one class, of which there may be a thousand.
OF_CLASS = "sample_accuracy@"

Numbers = dict[str, Any]


@processes.together()
def evaluate(
    config: ConfigDict,
    workdir: pathlib.Path,
    out: pathlib.Path | None,
    metrics: Sequence[str],
    batch_size: int | None = None,
    tokenizer: ConfigDict | None = None,
    step: chosen_step.Step = None,
) -> Evaluation:
    """Run the evaluators of config.evals, and the statistics of samples; write evaluation.json.

    The samples are those of workdir/samples/samples.npz, where there is one; for an exported model
    see `exported.results`. For the form of the file see `evals.provenance`. Of a quickstart's
    workdir and an exported model both the tokenizer and the generator, which has `config`, are
    measured: see `evaluation_parts.parts_of`.

    metrics: names of evaluators, which alone run; the other numbers of an evaluation.json remain.
      If it names none, all run, and those remain that are not of other weights.
    batch_size: images a device at a time (default: as the config says).
    tokenizer: the config of a quickstart's tokenizer (default: the saved one, changed as `config`).
    step: as of `load`; of two parts it is the generator's.

    Several processes measure together; the first one writes, and it alone has the numbers of
    samples.
    """
    top, chief = stores.path(workdir), processes.this()[0] == 0
    place = exported.results(top)
    file, samples = (out or place) / "evaluation.json", place / "samples" / "samples.npz"
    parts = parts_of(config, top, tokenizer)
    for part in parts:
        schema.check(part.config)
    check_metrics(metrics, parts, samples)
    with processes.together():
        if chief:
            tried(file.parent)
    remaining(file)  # another file is refused
    tasks = tasks_of(parts, metrics, samples, batch_size, step)
    measured = [made for task in tasks for made in evaluate_part(task, metrics)]
    with processes.together():
        found = remaining(file)  # as another call may have written it meanwhile
    if not metrics:
        cards = [card for _, card in measured]
        of_samples = finished.are_of(samples, found["protocols"].get("samples", {}))
        kept = [*(card.evaluator for card in cards), *(["samples"] if of_samples else [])]
        models_now = [card.model for card in cards if card.evaluator != "samples"]  # of their file
        provenance.forget_others(found, models_now, kept)
    before = dict(found["numbers"])
    for numbers, card in measured:
        provenance.enter(found, numbers, card)
    found = provenance.finite(found)
    if chief:
        files.save_json(file, found)
        show(found, [card.evaluator for _, card in measured], before)
        print(f"these numbers, and how each was measured, are in {file}", flush=True)
    return found


def remaining(file: pathlib.Path) -> Evaluation:
    """Return what is in an evaluation.json, which need not be there, beside which new numbers come.

    Raises InputError if it is another file.
    """
    return read_evaluation(file) if file.exists() else {"numbers": {}, "protocols": {}}


def tried(folder: pathlib.Path) -> None:
    """Raise InputError for a folder that cannot be written; numbers may be written to another."""
    try:
        files.tried(folder)
    except InputError as error:
        raise InputError(f"{error} by --out") from error


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured of a part.

    dataset: the images it is evaluated on.
    samples: the file of samples to compare with them; None: no samples are compared.
    step: of the checkpoint; None: the last.
    """

    part: Part
    dataset: Dataset
    evaluators: Evaluators
    samples: pathlib.Path | None
    step: int | None


def tasks_of(
    parts: Sequence[Part],
    metrics: Sequence[str],
    samples: pathlib.Path,
    batch_size: int | None,
    step: chosen_step.Step = None,
) -> list[Task]:
    """Return the tasks of those parts of which anything is measured; no model is loaded yet.

    samples: the file of the last part's samples, which need not be there.

    Raises InputError for data, weights or checkpoints that are not there, and for a file of samples
    that is none.
    """
    datasets = [images_of(part.config) for part in parts]
    ready = [
        evaluators_of(part.config, dataset, chosen(part.config.evals, metrics), batch_size)
        for part, dataset in zip(parts, datasets, strict=True)
    ]
    for dataset in datasets:  # which may be prepared only now, when no weights are missing
        pipeline.open_split(dataset, dataset.validation)
    tasks = []
    for part, dataset, evaluators in zip(parts, datasets, ready, strict=True):
        compares = part is parts[-1] and samples.is_file() and (not metrics or "samples" in metrics)
        measures = [*evaluators.by_name, *(["samples"] if compares else [])]
        check_classes(part.config, dataset, measures)
        if measures:  # a generator that is not may have begun and saved nothing yet
            given = step if part is parts[-1] else None
            number = models.find_step(part.workdir, part.config, given)
            tasks.append(Task(part, dataset, evaluators, samples if compares else None, number))
        if compares:
            finished.read(samples)  # a damaged file is said before anything is measured
    if step is not None and all(task.part is not parts[-1] for task in tasks):
        place = parts[0].workdir
        raise InputError(
            f"the step is that of the generator, of which {', '.join(metrics)} measures nothing: "
            f"leave --step out, or give the tokenizer alone by --workdir={place}"
        )
    return tasks


def evaluate_part(task: Task, metrics: Sequence[str]) -> Iterator[tuple[Numbers, Card]]:
    """Load the model of a part, and yield the numbers of each of its evaluators, and their card.

    Those of its samples come first, so that of two numbers of one name that of the config remains;
    the first process alone yields them. Arguments as of `evaluate`.
    """
    chief = processes.this()[0] == 0
    if chief:
        at = "" if task.step is None else f", {checkpoint.trained(task.step)}"
        print(f"loading {task.part.workdir}{at}", flush=True)
    with processes.together():
        model = load(task.part.workdir, task.part.config, task.step)
    of_samples: list[tuple[Numbers, Card]] = []
    with processes.together():  # the others measure with the first one only once it has these
        if task.samples and chief:
            try:
                of_samples.append(evaluate_samples(model, task.dataset, task.samples))
            except InputError as error:
                if "samples" in metrics:
                    raise
                warn(f"no numbers of the samples in {task.samples}: {error}")
    yield from of_samples
    yield from evaluate_model(model, task.evaluators, metrics)


def images_of(config: ConfigDict) -> Dataset:
    """Return the images that a config is evaluated on, which need not be there.

    Stored ids may be gone, and do not change the numbers.
    """
    return build.call(Dataset, config.dataset, "config.dataset").of_images()


def data_of(config: ConfigDict) -> Dataset:
    """Return the images that a config is evaluated on; InputError if there are none."""
    dataset = images_of(config)
    pipeline.open_split(dataset, dataset.validation)
    return dataset


def show(found: Evaluation, measured: Sequence[str], before: Mapping[str, Any]) -> None:
    """Print what evaluators `measured`, but for single classes, and the warnings of their cards.

    before: the numbers that were there. It is said how many remain, and which do not.
    """
    protocols = [found["protocols"][name] for name in measured]
    new = {name: found["numbers"][name] for card in protocols for name in card["numbers"]}
    for name, value in new.items():
        if value is not None and not name.startswith(OF_CLASS):
            print(f"{name:32s} {value:.4g}")
    for card in protocols:
        for warning in card.get("warnings", []):
            warn(warning)
    if kept := len(found["numbers"]) - len(new):
        print(f"kept beside these, measured earlier: {counted(kept, 'number')}")
    if gone := [name for name in before if name not in found["numbers"]]:
        print(f"no longer there, as their evaluator measured others: {', '.join(gone)}")


def read_evaluation(file: pathlib.Path, advice: str = "move it away") -> Evaluation:
    """Return an evaluation.json as `evaluate` writes it.

    Raises InputError, which ends in `advice`, for another file.
    """
    found = files.read_json(file, "what evaluate writes", advice)
    if wrong := fault_of(found):
        raise InputError(f"{file} is not what evaluate writes: {wrong}; {advice}")
    return found


def fault_of(found: Mapping[str, Any]) -> str:
    """Return what a dict has to be an `Evaluation`, and has not; "" if it is one."""
    numbers, protocols = found.get("numbers"), found.get("protocols")
    if len(found) != 2 or not isinstance(numbers, dict) or not isinstance(protocols, dict):
        return "it has no numbers and protocols"
    named = dict(numbers)
    for card in protocols.values():
        if not isinstance(card, dict) or not isinstance(card.get("numbers"), list):
            return "it has no numbers and protocols"
        named = {**{str(name): "missing" for name in card["numbers"]}, **named}
    wrong = [name for name, value in named.items() if not isinstance(value, int | float | None)]
    return f"{wrong[0]} is {named[wrong[0]]!r}, no number" if wrong else ""


def evaluate_model(
    model: Model, evaluators: Evaluators, requested: Sequence[str] = ()
) -> Iterator[tuple[Numbers, Card]]:
    """Yield what each evaluator says of a loaded model, and its card.

    requested: evaluators asked for by name: InputError if one has no numbers of these data; of
      another one nothing comes but a line.

    Pictures are not kept: a line names those that an evaluator gives though it was asked for none.
    Raises ContractError for what is neither a number nor a picture.
    """
    state = on_every_device(model.state, evaluators.device_mesh)
    about, givers = subject_of(model), dict[str, str]()
    for name, evaluator in evaluators.by_name.items():
        log = say if processes.this()[0] == 0 else lambda line: None
        log(f"evaluating: {name}")
        try:
            with heartbeat(f"evaluating {name}", log), cluster.failing_together(), errors_last():
                numbers, shown, card = evals.measured(name, evaluator, state, givers)
        except ContractError:
            raise
        except InputError as error:
            # Of several processes one alone may have met it.
            if name in requested or processes.this()[1] > 1:
                raise
            print(f"no numbers of {name}: {error}", flush=True)
            continue
        if shown:
            log(f"pictures are kept in training alone; those of {name} are not: {', '.join(shown)}")
        yield numbers, about.card(name, card)


def subject_of(model: Model) -> Subject:
    """Return how cards call a loaded model."""
    return provenance.subject(model.config, model.workdir, model.step, model.state)


def evaluate_samples(model: Model, dataset: Dataset, file: pathlib.Path) -> tuple[Numbers, Card]:
    """Return what `AgainstReal` says of a samples.npz beside the images of the data set."""
    images, labels, made_by, produced = finished.read(file)
    splits = [(split, Tally()) for split in (dataset.train, dataset.validation)]
    train, heldout = (of_split(dataset, split, tally) for split, tally in splits)
    number = train.number + heldout.number
    print(f"comparing {produced.count:,} samples with {number:,} images", flush=True)
    with heartbeat("comparing"):
        against = AgainstReal(train, heldout, produced.size)
        numbers = against.numbers_of(images, labels, copies=True)
    warnings = against.warnings(produced.count, labels)
    if copies := numbers.get("heldout_nearest_copies", 0):
        warnings.append(
            f"{copies:.0%} of the held-out images are training images, too: numbers of held-out "
            "images, those of samples beside them, and val/ numbers are too good"
        )
    if "per_class" in numbers:
        names, by_class = model.class_names or range(model.classes), numbers.pop("per_class")
        numbers |= {f"{OF_CLASS}{n}": x for n, x in zip(names, by_class, strict=False)}
    real, held = (tally.image_set(dataset, split) for split, tally in splits)
    measured = Measured(
        FOLDER.name, produced, real, held, against.cards, against.settings, warnings, made_by
    )
    return numbers, subject_of(model).card("samples", measured)


def of_split(dataset: Dataset, split: str, tally: Tally | None = None) -> RealImages:
    """Return the images of a split, as evaluation sees them; `tally` counts those that are read."""
    number = len(pipeline.open_split(dataset.of_images(), split))
    return RealImages(number, lambda: read_split(dataset, split, tally=tally))


def read_split(
    dataset: Dataset, split: str, size: int = 64, tally: Tally | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images uint8 [n,H,W,3] and labels int32 [n] of a split, at most `size` at a time."""
    for batch in pipeline.eval_batches(dataset.of_images(), split, size):
        if tally:
            tally.add(batch["valid"], batch["digest"])
        yield batch["image"][batch["valid"]], batch["label"][batch["valid"]]


def load_split(
    dataset: Dataset, split: str, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images uint8 [N,H,W,3] and labels int32 [N] of a split, as evaluation sees them.

    limit: the first images alone; None: all.
    """
    read = read_split(dataset, split, limit or 64)
    batches = list(itertools.islice(read, 1 if limit else None))
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels
