"""The mode sample: new images of a trained generator, as samples.npz, grid.png and PNG files."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import (
    checkpoint,
    chosen_step,
    exported,
    files,
    npz,
    pictures,
    processes,
    signals,
    stores,
)
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.core.progress import Progress, counted, duration
from evqgan.data.folder import check_apart
from evqgan.inference import (
    filmstrip,
    finished_samples,
    grids,
    planning,
    records,
    rejection,
    resumable,
    unfinished_samples,
)
from evqgan.inference.batched import BatchRunner
from evqgan.inference.mode_inputs import load_model
from evqgan.inference.model import Model
from evqgan.inference.resumable import SamplingTask
from evqgan.inference.sample_settings import Settings, describe
from evqgan.metrics.references import IMAGES

WRITTEN = 10.0  # ours: seconds between two lines on how far writing is
RATES = "resnet101"  # rates candidates, as in the paper


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """What is to be sampled; a field is the flag of its name, if there is one.

    num: how many images.
    labels: classes by number or name, gone through in turn; None: all.
    seed: image n of a seed is the same, whatever `num` is.
    acceptance: below 1, the best of num / acceptance candidates are kept.
    classifier: what rates them (`rejection.find`); None: resnet101.
    classifier_weights: where its weights lie.
    steps_strip: also draw steps.png, images being filled (`filmstrip.picture`).
    force: more than `limits.IMAGES`, too, and in the place of samples of other settings.
    batch_size, step: as of `load`. Samples of another step than one that is given stay, too.
    pngs: whether images/ gets a PNG for each image.
    advice: what an error says to do about samples of other settings.
    """

    num: int = 64
    labels: Sequence[int | str] | None = None
    seed: int = 0
    acceptance: float = 1.0
    classifier: str | None = None
    classifier_weights: str = ""
    steps_strip: bool = False
    force: bool = False
    batch_size: int | None = None
    step: chosen_step.Step = None
    pngs: bool = True
    advice: str = finished_samples.ADVICE


@processes.together()
def sample(
    config: ConfigDict, workdir: pathlib.Path, out: pathlib.Path | None, request: SampleRequest
) -> None:
    """Write samples of the generator in `workdir` into `out`, by default workdir/samples.

    Stopped, the same call goes on: what is made is kept as ids in out/candidates until all is
    written. Finished, it does nothing. No more than a batch of images is ever in memory. Several
    processes share the work; `out` has to be one folder for all, and the first process writes.
    """
    began = time.monotonic()
    out = out or exported.results(workdir) / "samples"
    check_apart(out, config.dataset.get("folder", ""), "--out", "--out")
    settings = requested_settings(config, workdir, out, request)
    chief, there = processes.this()[0] == 0, None
    with contextlib.ExitStack() as stack:
        with processes.together():
            if chief:
                files.tried(out)
                stack.enter_context(files.owned(out, "another --out"))
                there = finished_settings(out, settings, request)
        make_classifier = classifier_of(request, config, workdir)
        model = load_model(config, workdir, request.batch_size, settings.get("step"))
        classifier = make_classifier(model.runner)
        with processes.together():
            is_done = chief and is_finished(out, there, model, classifier, request)
        if not processes.agreed(is_done):
            make(out, request, model, classifier, settings, began)
        elif chief:
            complete(out, request, model, classifier, settings)


def requested_settings(
    config: ConfigDict, workdir: pathlib.Path, out: pathlib.Path, request: SampleRequest
) -> Settings:
    """Return the settings of what is asked for; InputError if it cannot be. Nothing is loaded."""
    folder = of_workdir(workdir)[1]
    labels = planning.checked_labels(
        planning.classes_of(config, folder, "--mode=sample"),
        request.num,
        request.labels,
        request.seed,
        request.acceptance,
        request.force,
    )
    if request.acceptance == 1 and (request.classifier or request.classifier_weights):
        raise InputError(
            "a classifier chooses among candidates: give an --acceptance below 1 too, such as 0.5"
        )
    sampler = planning.sampler_of(config)
    known = describe(folder, out, sampler, request.seed, labels, request.acceptance)
    step = models.find_step(folder, config, request.step)
    return known if step is None else {**known, "step": step}


def finished_settings(
    out: pathlib.Path, settings: Settings, request: SampleRequest
) -> Settings | None:
    """Return the settings of the finished samples in `out`, if there are any that count.

    Raises InputError for those that will not be replaced.
    """
    finished_samples.check_only_samples(out / "images")
    finished_samples.check_no_images(out)
    if request.force:
        return None
    finished_samples.check_no_strangers(out)
    there = finished_samples.read(out)
    finished_samples.check(out, there, settings, request.advice)
    return there


def is_finished(
    out: pathlib.Path,
    there: Settings | None,
    model: Model,
    classifier: Any,
    request: SampleRequest,
) -> bool:
    """Return whether the samples asked for are in `out`; if they are to be made again, say why.

    there: what `finished_settings` returned.
    """
    if there is None:
        return False
    known: Settings = {"classifier": rejection.name_of(classifier)} if classifier else {}
    if request.step is not None:  # which step is the last one is known only now
        known["step"] = model.step
    finished_samples.check(out, there, known, request.advice)
    why = finished_samples.outdated(out, there, resumable.made_by(model), model.weights_path)
    if why:
        print(why, flush=True)
    return not why


def complete(
    out: pathlib.Path, request: SampleRequest, model: Model, classifier: Any, settings: Settings
) -> None:
    """Write the pictures of finished samples that are not there, and say that the samples are."""
    pngs = request.num if request.pngs else 0
    if lacking := finished_samples.lacking(out, pngs, request.steps_strip):
        print(f"{lacking}: the ids in samples.npz are decoded again", flush=True)
        made, candidates = finished_samples.made(out)
        labels = made["labels"]
        if classifier:
            labels = rejection.plan(labels, request.acceptance)
        size = SamplingTask(labels, part=processes.this()).batch_size(model)
        card = card_of(request, model, classifier, candidates)
        card["workdir"] = settings["workdir"]
        both = dataclasses.replace(request, pngs=bool(pngs) or (out / "images").is_dir())
        write(out, both, model, made, size, card, Progress("write", every=WRITTEN))
    done = (
        f"{counted(request.num, 'sample')} of {checkpoint.trained(model.step)} with these settings"
    )
    print(f"they are made already: {done}, in {out}", flush=True)


def make(
    out: pathlib.Path,
    request: SampleRequest,
    model: Model,
    classifier: Any,
    settings: Settings,
    began: float,
) -> None:
    """Make the samples, in all processes, and write them, in the first one.

    began: when the call did, by `time.monotonic`.
    """
    chief = processes.this()[0] == 0
    unit = "candidates" if classifier else "images"
    progress = Progress("sample", unit, compiling=lambda: model.runner.compiling)
    writing = Progress("write", every=WRITTEN)
    task = SamplingTask(
        np.array(settings["labels"], np.int32),
        request.seed,
        folder=out / "candidates",
        report=progress if chief else None,
        part=processes.this(),
        force=request.force,
    )
    with processes.together():
        if classifier is None:
            made, size = resumable.generate(model, task)
        else:
            made, size = rejection.choose(model, task, request.acceptance, classifier)
    if chief:
        card = card_of(request, model, classifier, progress.total)
        card["workdir"] = settings["workdir"]
        write(out, request, model, made, size, card, writing)
        signals.note_saved(f"{counted(request.num, 'sample')} in {out}")
        best = f", the best of {progress.total:,}," if classifier else ""
        are = f"of {checkpoint.trained(model.step)} {'is' if request.num == 1 else 'are'} in {out}"
        rates = {"generated": progress.rate, "written": writing.rate}
        parts = [f"{what} at {rate}" for what, rate in rates.items() if rate]
        took = ", ".join([*parts, f"{duration(time.monotonic() - began)} in all"])
        print(f"{counted(request.num, 'sample')}{best} {are}: {took}")


def classifier_of(
    request: SampleRequest, config: ConfigDict, workdir: pathlib.Path
) -> Callable[[BatchRunner], Any]:
    """Return what makes the classifier that rates candidates; None where all are kept."""
    if request.acceptance == 1:
        return lambda runner: None
    classes = planning.classes_of(config, of_workdir(workdir)[1], "--mode=sample")
    return rejection.find(request.classifier or RATES, classes, request.classifier_weights)


def card_of(
    request: SampleRequest, model: Model, classifier: Any, candidates: int
) -> dict[str, Any]:
    """Return what samples.npz says of how its images were made."""
    card: dict[str, Any] = {**resumable.made_by(model)._asdict(), "seed": request.seed}
    card["sampler"] = json.dumps(dict(model.sampler))
    if classifier:
        card |= {"acceptance": request.acceptance, "classifier": rejection.name_of(classifier)}
        card["candidates"] = candidates
    if model.classes and model.class_names:
        card["class_names"] = model.class_names
    return card


def write(
    out: pathlib.Path,
    request: SampleRequest,
    model: Model,
    made: dict[str, np.ndarray],
    size: int,
    card: dict[str, Any],
    report: processes.Report,
) -> None:
    """Write all files of the samples into `out`, and remove out/candidates.

    made: ids, labels, numbers, and scores if a classifier chose; see `resumable.generate`.
    size: how many are decoded at a time.
    card: what samples.npz says of how they were made.
    report: as in `decoded`.
    """
    classes = grids.by_class(made["labels"], card.get("class_names"), model.size[1])
    numbers = (
        itertools.chain(*classes.values()) if classes else range(min(request.num, grids.SHOWN))
    )
    shown: dict[int, Any] = dict.fromkeys(numbers)
    arrays = {name: x for name, x in made.items() if name != "labels" or model.classes}
    print(f"writing {counted(request.num, 'image')} to {out}", flush=True)
    if not request.pngs and (out / "images").is_dir():
        print(f"{out / 'images'} is removed: it is of the samples that these replace", flush=True)
    with files.swapped(out / "images") as folder:
        save = saver(folder, request.seed, model, made, size) if request.pngs else None
        images = decoded(model, made["ids"], size, save, shown, report)
        pieces = npz.Pieces((request.num, *model.size, 3), np.uint8, images)
        npz.save(out / "samples.npz", **{IMAGES: pieces}, **arrays, **card)
    if not request.pngs and not stores.is_remote(out):
        (out / "images").rmdir()
    pictures.save_png(out / "grid.png", grids.picture(shown, classes))
    if request.steps_strip:
        strip = filmstrip.picture(model, made["labels"], made["numbers"], request.seed)
        pictures.save_png(out / "steps.png", strip)
    unfinished_samples.remove(out / "candidates")


def saver(
    folder: pathlib.Path, seed: int, model: Model, made: dict[str, np.ndarray], size: int
) -> Callable[[int, np.ndarray], None]:
    """Return a function that writes image i as a PNG that says how it was made, see `records`.

    made, size: as in `write`.
    """
    shared = records.of_model(model)

    def save(i: int, image: np.ndarray) -> None:
        number, label = made["numbers"][i], made["labels"][i]
        given = {"seed": seed, "number": number, "label": label, "size": size}
        pictures.save_png(folder / f"{i:05d}.png", image, records.of_image(model, shared, **given))

    return save


def decoded(
    model: Model,
    ids: np.ndarray,
    size: int,
    save: Callable[[int, np.ndarray], None] | None,
    shown: dict[int, Any],
    report: processes.Report,
) -> Iterator[np.ndarray]:
    """Yield the images of ids [N,h,w,D], uint8 [size,H,W,3] at a time.

    save: is called with the number and the pixels of each image.
    shown: {number of an image: None}; the values become these images.
    report: report(done, total, seconds) is called when a batch was written; compiling takes none.
    """
    began = model.runner.clock()
    for start in range(0, len(ids), size):
        images = model.to_images(ids[start : start + size], size)
        for i, image in enumerate(images, start):
            if i in shown:
                shown[i] = image
            if save:
                save(i, image)
        yield images
        report(min(start + size, len(ids)), len(ids), model.runner.clock() - began)
