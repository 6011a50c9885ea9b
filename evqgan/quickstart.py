"""The main job, from one config: both stages, samples, reconstructions, edits, their numbers."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evqgan import evals
from evqgan.core import build, exported, files, mesh, pictures, processes, quickstart_record
from evqgan.core.errors import InputError, cut
from evqgan.core.kinds import Positive
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.evals import finished
from evqgan.inference import evaluation, grids, mode_sample
from evqgan.inference.editing import GREY
from evqgan.inference.mode_inputs import load_model
from evqgan.inference.model import Model
from evqgan.training import resume_rules, stage1, stage2, workdir_check
from evqgan.training.loop import train
from evqgan.training.run_length import normalized

SHOWN = 16  # ours: images of reconstructions.png
EDITED = 10  # ours: images of edits.png
WAYS = 2  # ours: results of each edit in edits.png


def run(
    config: ConfigDict, workdir: pathlib.Path, command: quickstart_record.Command | None = None
) -> None:
    """Train config.tokenizer and config.generator in `workdir`, then show what they do.

    What is done already is not done again: training resumes from its checkpoints, and the results
    are made again only if the generator was trained further since.

    command: how the config was given; the workdir keeps it, and goes on without it.
    """
    workdir_check.check(workdir, both=True)
    chief = processes.this()[0] == 0
    if chief:
        files.tried(workdir)  # before data are made
    check_all(config, workdir)
    protocols_in(workdir)  # what is no evaluation is refused before anything is trained
    if chief and command and goes_on(config, workdir):
        quickstart_record.save(workdir, command)
    train(config.tokenizer, workdir / "tokenizer")
    second = config.generator
    with second.unlocked():
        second.tokenizer.weights = str(workdir / "tokenizer")
    step = int(train(second, workdir / "generator")["step"])
    second = resume_rules.settings(second, workdir / "generator")  # with the classes of the data
    advice = f"move {workdir / 'samples'} away, and the same command goes on"
    request = mode_sample.SampleRequest(config.samples, pngs=False, advice=advice)
    is_made = has_made(second, workdir, step, request)
    if chief and command:  # again, now that what is in there has turned out to be of it
        quickstart_record.save(workdir, command)
    if is_made:
        what = f"evaluation.json and the pictures of step {step:,} are in {workdir}"
        print(f"everything is made already: {what}; --mode=evaluate measures anew")
    else:
        make(second, workdir, request)


def has_made(
    config: ConfigDict, workdir: pathlib.Path, step: int, request: mode_sample.SampleRequest
) -> bool:
    """Return whether all results of a generator's step are there; if some are lost, say so.

    Raises InputError for samples that were made with other settings than are asked for.
    """
    chief = processes.this()[0] == 0
    is_made = protocols_in(workdir).get("generation", {}).get("model", {}).get("step") == step
    lost = lost_in(workdir) if is_made and chief else []
    for file in lost:
        print(f"{file} is missing or damaged: all results are made again")
        file.unlink(missing_ok=True)
    is_made = processes.agreed(is_made and not lost)
    with processes.together():
        if is_made and chief:
            out = workdir / "samples"
            settings = mode_sample.requested_settings(config, workdir, out, request)
            there = mode_sample.finished_settings(out, settings, request)
            made_at = there["step"] if there else step
            if made_at != step:
                is_made = False
                print(f"{out} is of step {made_at:,} now: all results are made again")
    return processes.agreed(is_made)


def make(config: ConfigDict, workdir: pathlib.Path, request: mode_sample.SampleRequest) -> None:
    """Make all results: samples, reconstructions, edits, and numbers.

    config: of the generator.
    """
    mode_sample.sample(config, workdir, None, request)
    dataset = build.call(Dataset, config.dataset, "config.generator.dataset")
    images, labels = evaluation.load_split(dataset, dataset.validation)
    tokenizer, generator = (load_model(None, workdir / part) for part in ("tokenizer", "generator"))
    if processes.this()[0] == 0:
        print("drawing reconstructions.png and edits.png", flush=True)
        again = reconstructions(tokenizer, images[:SHOWN])
        pictures.save_png(workdir / "reconstructions.png", again)
        pictures.save_png(workdir / "edits.png", edits(generator, images, labels))
    evaluation.evaluate(config, workdir, None, [])
    made = "evaluation.json, samples/grid.png, reconstructions.png and edits.png"
    print(f"done: {made} are in {workdir}")


def protocols_in(workdir: pathlib.Path) -> dict[str, Any]:
    """Return how the numbers in a workdir were measured, {} where there are none yet."""
    file = workdir / "evaluation.json"
    return evaluation.read_evaluation(file)["protocols"] if file.is_file() else {}


def lost_in(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Return which results, beside the numbers, are missing or damaged."""
    samples = workdir / "samples"
    shown = (workdir / "reconstructions.png", workdir / "edits.png", samples / "grid.png")
    lost = [file for file in shown if not pictures.is_whole(file)]
    try:
        finished.read(samples / "samples.npz")
    except InputError:
        lost.append(samples / "samples.npz")
    return lost


def goes_on(config: ConfigDict, workdir: pathlib.Path) -> bool:
    """Return whether it can be noted how a run is begun before it trains.

    It is then new, or its generator has not begun and its tokenizer goes on by this config: if it
    is stopped, the workdir alone says how it goes on. Later on it is noted once both have trained,
    as what the generator is asked may still be refused.
    """
    if any((workdir / "generator" / name).exists() for name in exported.RUN):
        return False
    try:
        resume_rules.check_before_data(workdir / "tokenizer", config.tokenizer)
    except InputError:  # `train` says it, and with resume="last_good" maybe not
        return False
    return True


def keys(stage: str, tokenizer: dict, generator: dict, samples: Positive) -> None:
    """Name the keys of a quickstart's config: both stages, and how many samples are made."""


def check_all(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raise InputError for what is wrong with either stage, or with what has begun already."""
    stages = stages_of(config)
    check_tokenizer_stays(config, workdir)
    for part, (of_stage, model) in stages.items():
        with said_of(part):
            check_evaluators(of_stage, model)


def stages_of(config: ConfigDict) -> dict[str, tuple[ConfigDict, Any]]:
    """Return {part: its config and its model}; InputError for a wrong key. No data are read."""
    build.check(keys, build.plain(config), "config")
    second = config.generator.copy_and_resolve_references()
    for key in ("weights", "model"):
        if second.tokenizer.get(key):
            raise InputError(
                f"config.generator.tokenizer.{key} is what config.tokenizer trains: leave it out; "
                "the config of a stage 2 trains a generator on a tokenizer that is there"
            )
    with second.unlocked():
        second.tokenizer.model = config.tokenizer.tokenizer
    with said_of("tokenizer"):
        first_stage = stage1.make(config.tokenizer)
    with said_of("generator"):
        second_stage = stage2.make(second)
    return {
        "tokenizer": (config.tokenizer, first_stage.model),
        "generator": (second, second_stage.model),
    }


@contextlib.contextmanager
def said_of(part: str) -> Iterator[None]:
    """Say in an InputError of the body which part of config it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"config.{part}: {error}") from error


def check_evaluators(config: ConfigDict, model: Any) -> None:
    """Raise InputError for an evaluator of a stage's config that cannot measure its model."""
    dataset = build.call(Dataset, config.dataset, "config.dataset")
    pipeline.prepare(dataset)
    evals.build_all(
        config, model, dataset, build.call(mesh.make, config.get("mesh", {}), "config.mesh")
    )


def check_tokenizer_stays(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Raise InputError for a tokenizer that is lost, or of another duration, below a generator.

    The generator would keep the older weights.
    """
    file = workdir / "tokenizer" / "config.json"
    has_begun = (workdir / "generator" / "config.json").is_file()
    if has_begun and not file.is_file():
        raise InputError(
            f"{workdir / 'generator'} was trained on a tokenizer that is not in {file.parent} any "
            "more: put it back, or give another --workdir"
        )
    if has_begun:
        there = files.read_json(file).get("duration")
        if normalized(there) != normalized(config.tokenizer.duration):
            now = f"now it is {config.tokenizer.duration}"
            raise InputError(
                f"{workdir / 'generator'} was trained on the tokenizer of "
                f"config.tokenizer.duration = {there}, {now}: give another --workdir; the "
                "generator's duration may grow"
            )


def reconstructions(model: Model, images: np.ndarray) -> np.ndarray:
    """Return a picture of images, what the tokenizer makes of them, and where the two differ.

    images: uint8 [N,H,W,3].
    """
    again = model.reconstruct(images)
    rows = {"held-out images": images, "reconstructions": again}
    rows["4 x error"] = pictures.error_map(images, again)
    lines = [pictures.label(pictures.row(list(row)), text) for text, row in rows.items()]
    return pictures.column(lines)


def edits(model: Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a picture of inpainting, outpainting and class editing.

    It is of one image of each class, of EDITED classes at most; without classes, of a few images.
    images: held-out ones, uint8 [N,H,W,3].
    labels: theirs, int32 [N].
    """
    height, width = model.size
    unit = model.factor
    first = [int(np.argmax(labels == k)) for k in range(model.classes) if (labels == k).any()]
    first = first[:EDITED] if model.classes else list(range(len(images)))[: EDITED // 2]
    images = images[first]
    own: list[Any] = list(labels[first]) if model.classes else [None] * len(first)
    following = [(k + 1) % model.classes for k in own] if model.classes else own

    called = model.class_names or [str(k) for k in range(model.classes)]
    names = [cut(called[k], grids.LETTERS) for k in following if model.classes]
    as_classes = f" as {', '.join(names)}" if names else ""
    centre, box, lower = (np.zeros(model.size, bool) for _ in range(3))
    centre[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = True
    box[:, unit : width - unit] = True
    lower[height // 2 // unit * unit :] = True

    def hide(mask: np.ndarray) -> list[np.ndarray]:
        return [np.where(mask[..., None], GREY, image) for image in images]

    def edit(mask: np.ndarray, wanted: Any) -> list[np.ndarray]:
        pairs = zip(images, wanted, strict=True)
        return [pictures.column(list(model.edit(image, mask, k, num=WAYS))) for image, k in pairs]

    def outpaint(cut: int) -> list[np.ndarray]:
        pairs = zip(images, own, strict=True)
        ways = (model.outpaint(x[:cut], 0, 0, 0, height - cut, k, num=WAYS) for x, k in pairs)
        return [pictures.column(list(made)) for made in ways]

    rows = {
        "held-out images": list(images),
        "the centre hidden": hide(centre),
        "inpainted, in two ways": edit(centre, own),
        "the lower half cut off": hide(lower),
        "outpainted, in two ways": outpaint(int(np.argmax(lower[:, 0]))),
        "hidden but for the margins": hide(box),
        f"made anew{as_classes}": edit(box, following),
    }
    return pictures.column([pictures.label(pictures.row(row), text) for text, row in rows.items()])
