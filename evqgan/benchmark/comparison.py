"""The compared systems side by side on real images: both stages of each trained on equal terms.

Each (system, seed) is a folder OUT/system_seed with the workdirs tokenizer and generator: the same
command goes on where it stopped, and does nothing again that is done. All see as many images in as
many steps, have about as many parameters, learn from the same loss of pixels, and are measured
alike. Several processes may share the work, each with its --part. A system may be given a tokenizer
that is trained already, by the path of its workdir or the name of a model that ships: then its
generator alone is trained.

With --scan=N each run is sampled with the best of N settings of its own sampler (`samplers`), those
that are usual for its generator. Other seeds choose it than those of the samples that are measured.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan.benchmark import comparison_tokenizers, real_images, runs, samplers
from evqgan.benchmark.sampler_measuring import Measurements, in_words
from evqgan.core import build, compilation_cache, files, mesh, progress, versions
from evqgan.core.cli import TEXT, Flag, whole
from evqgan.core.config_files import read_file
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.evals import provenance
from evqgan.evals.against_real import Features
from evqgan.evals.finished import read as read_finished
from evqgan.inference import evaluation, mode_sample
from evqgan.inference.mode_inputs import load_model
from evqgan.training.loop import train
from evqgan.training.prepare import jitted
from evqgan.training.run_length import to_steps

NUMBERS = ("psnr", "codebook_usage", "sample_accuracy")  # and the Frechet distance
TIMES = ("training_seconds", "seconds_per_image")
TIMED = 64  # ours: images of one batch, whose sampling is timed
STEPS = 10  # ours: training steps that are timed
# ours: how many seeds choose a sampler, and the first; those of training and samples are from 0
SCAN_SEEDS, SCAN_FIRST = 3, 1_000

DEFAULT = "configs/comparison.py:digits"
FLAGS = (
    Flag("config", TEXT, (), "FILE:VARIANT, see configs/comparison.py", DEFAULT),
    runs.OUT,
    runs.SEEDS,
    runs.ONLY,
    runs.SAMPLES,
    runs.FEATURES,
    runs.WEIGHTS,
    runs.PART,
    Flag("scan", whole(0), (), "how many sampler settings to choose from (0: the config's)", 0),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each system, and one of real images."""
    config, names = chosen(given)
    runs.part_of(given.part)  # a wrong one is refused before anything is read
    features = runs.features_of(given)
    compilation_cache.enable()  # they are the same for every seed
    out = pathlib.Path(given.out)
    # How a run has to be measured for its numbers to be taken.
    how = {"samples": given.samples, "real": config.real.to_dict()}
    how |= {"features": features.card(), "scan": given.scan or None}
    # A tokenizer that several systems share is trained by whoever comes first: they are one part.
    owners = {name: config.systems[name].get("tokenizer_of", name) for name in names}

    def do(name: str, seed: int) -> dict[str, Any]:
        return finished(config.systems[name], out, name, seed, how, features)

    def done(name: str, seed: int) -> dict[str, Any] | None:
        return runs.known(out / f"{name}_{seed}" / "numbers.json", **how)

    found = runs.each(names, given, do, done, owners)
    picture(config, out, list(found))
    complete = all(len(of_seeds) == given.seeds for of_seeds in found.values())
    times: dict[str, dict[str, float]] = {name: {} for name in found}
    if complete:
        for name, of_seeds in found.items():
            times[name] = timing(config.systems[name], out, name, of_seeds[0].get("sampler"))
    title = f"{given.config}: mean and standard deviation (_sd) over seeds, {given.samples} samples"
    frechet = features.name_of("frechet")
    rows = [row(name, of_seeds, times[name], frechet) for name, of_seeds in found.items()]
    rows.append(real(found, frechet))
    columns = max(rows, key=len)  # a tokenizer may be given to some alone
    return title, [{name: row.get(name) for name in columns} for row in rows]


def chosen(given: Any) -> tuple[ConfigDict, list[str]]:
    """Return the config of the comparison and the names of the systems to compare."""
    config = read_file(given.config)
    if config.stage != "comparison":
        raise InputError(
            f"comparison takes configs/comparison.py, {given.config} is of {config.stage}"
        )
    names = list(dict.fromkeys(given.only or config.systems))
    for name in names:
        if name not in config.systems:
            hint = build.suggestion(name, config.systems)
            raise InputError(f"there is no system {name!r}: {hint}")
        comparison_tokenizers.check(name, config.systems[name])
    check_classes(config, names)
    return config, names


def check_classes(config: ConfigDict, names: Sequence[str]) -> None:
    """Raise InputError for data without two classes, by which samples are judged."""
    datasets = {name: config.systems[name].generator.dataset for name in names}
    for text in dict.fromkeys(keys.to_json() for keys in datasets.values()):
        dataset = build.call(Dataset, json.loads(text), "config.dataset").of_images()
        pipeline.prepare(dataset)
        classes = pipeline.open_split(dataset, dataset.train).class_names
        if len(classes) < 2:
            where = dataset.folder or dataset.name
            raise InputError(
                f"comparison judges samples by their classes, of which {where} has "
                f"{len(classes) or 'none'}: give data of two classes or more"
            )


def finished(
    system: ConfigDict,
    out: pathlib.Path,
    name: str,
    seed: int,
    how: Mapping[str, Any],
    features: Features,
) -> dict[str, Any]:
    """Train, sample and measure one run, or what of it is not done yet; return its numbers.

    how: the number of "samples", the keys "real" of `real_images.against`, "features", the card of
      `features`, and "scan", how many settings the sampler is chosen from; None: the config's.
    """
    folder = out / f"{name}_{seed}"
    owner = out / f"{system.get('tokenizer_of', name)}_{seed}"
    tokenizer = comparison_tokenizers.of_system(system, owner / "tokenizer", seed)
    second = ConfigDict(json.loads(system.generator.to_json()))
    second.seed, second.evals, second.best = seed, ConfigDict(), ""  # measured once, at the end
    second.tokenizer.weights = tokenizer.weights
    state = train(second, folder / "generator")
    file = folder / "numbers.json"
    made = {"step": int(state["step"]), **how}
    if numbers := runs.known(file, **made):
        return numbers
    about: dict[str, Any] = {}
    if isinstance(system.tokenizer, str):
        about["tokenizer"] = system.tokenizer
    if how["scan"]:
        about["sampler"], about["sampler_in_words"] = best_sampler(folder, second, how, features)
        second.sample = ConfigDict(about["sampler"])
    request = mode_sample.SampleRequest(how["samples"], seed=seed, pngs=False, force=True)
    mode_sample.sample(second, folder, None, request)
    found = tokenizer.measured()
    images, labels, made_by, produced = read_finished(folder / "samples" / "samples.npz")
    assert labels is not None  # every compared system is conditional on the class
    with progress.announced(f"{folder.name}: measuring {len(labels):,} samples beside real images"):
        beside = real_images.against(second.dataset, **how["real"], features=features)
        values = {**found["numbers"], **beside.against.numbers_of(images, labels)}
    subject = provenance.subject(second, folder / "generator", made_by.step, state)
    card = {**found["protocols"], "samples": beside.card(subject, produced, labels)}
    number = comparison_tokenizers.number_of(state["params"])
    parameters = {"tokenizer": tokenizer.parameters, "generator": number}
    numbers = {**made, **about, "parameters": parameters, **values, "card": card}
    files.save_json(file, numbers)
    return numbers


def best_sampler(
    folder: pathlib.Path, config: ConfigDict, how: Mapping[str, Any], features: Features
) -> tuple[dict[str, Any], str]:
    """Return the best of how["scan"] settings of the sampler of a run, and it in words.

    It is that of `samplers.best_of`.

    What is measured is kept in the run's folder, in scan.json, which is begun anew where it was
    measured otherwise; real images are those of `real_images.against`.

    config: of the generator. how, features: see `finished`.
    """
    model = load_model(None, folder)
    with progress.announced("measuring real images"):
        real = real_images.against(config.dataset, **how["real"], features=features)
    distance = features.name_of("frechet")
    most, file = how["scan"] + samplers.AGAIN, folder / "scan.json"
    given = model, real, distance, how["samples"], SCAN_SEEDS, most, file
    measurements = Measurements(*given, anew=True)
    values = samplers.values_of(model, [])
    *_, taken = samplers.best_of(measurements, values, how["scan"], SCAN_FIRST)
    words = in_words(taken.setting, model.sampler)
    print(f"{folder.name}: sampled with {words}", flush=True)
    return {key: value for key, value in taken.setting.items() if value is not None}, words


def timing(
    system: ConfigDict, out: pathlib.Path, name: str, sampler: Mapping[str, Any] | None
) -> dict[str, float]:
    """Return {"training_seconds", "seconds_per_image": of sampling and decoding}.

    Compiling does not count. It is done for all systems one after the other, when all are trained,
    so that no other work of this command is beside it: the median of STEPS steps, times their
    number; TIMED images at once, the better of two times. It is kept in timing.json, and counts for
    the same training by the same code on the same device.

    sampler: the settings of sampling; None: the config's.
    """
    folder, changes = out / f"{name}_0", dict(sampler or {})
    file = folder / "timing.json"
    trained = [x for x in (system.tokenizer, system.generator) if not isinstance(x, str)]
    made = {
        "duration": [config.duration for config in trained],
        "batch_size": [config.batch_size for config in trained],
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "code": versions.code(),
    }
    there = runs.read(file)
    if made != {key: there.get(key) for key in made}:
        there = {}
    if there and there.get("sampler") == sampler:
        return {key: there[key] for key in TIMES}
    total = there.get("training_seconds")
    if total is None:
        with progress.announced(f"{name}: timing {STEPS} training steps of each stage"):
            total = step_seconds(system.generator, comparison_tokenizers.network_of(system))
            if not isinstance(system.tokenizer, str):
                total += step_seconds(system.tokenizer)
    model, best = load_model(None, folder, TIMED), float("inf")
    with progress.announced(f"{name}: timing the sampling of {TIMED} images"):
        model.sample(TIMED, **changes)
        for _ in range(2):
            began = time.perf_counter()
            model.sample(TIMED, **changes)
            best = min(best, time.perf_counter() - began)
    found: dict[str, Any] = {"training_seconds": total, "seconds_per_image": best / TIMED}
    line = f"{total:.0f} s of training, {found['seconds_per_image']:.3g} s an image"
    print(f"{name}: {line}", flush=True)
    files.save_json(file, {**made, **found, **({"sampler": changes} if sampler else {})})
    return found


def step_seconds(config: ConfigDict, tokenizer: ConfigDict | None = None) -> float:
    """Return the seconds that training takes, from STEPS steps of an untrained model on its data.

    config: of a stage.
    tokenizer: config.tokenizer.model of a generator, untrained too: what the ids are does not
        change what they cost.
    """
    config = ConfigDict(json.loads(config.to_json()))
    if tokenizer:
        config.tokenizer = {"weights": "random", "model": tokenizer}
    dataset = build.call(Dataset, config.dataset, "config.dataset")
    pipeline.prepare(dataset)
    examples = len(pipeline.open_split(dataset, dataset.train))
    stage = build.module("training", config.stage, "config.stage").make(config, examples)
    device_mesh = mesh.make()
    _, init, update = jitted(stage, device_mesh)
    state, taken = init(), []
    with contextlib.closing(pipeline.train_batches(dataset, config.batch_size, seed=0)) as batches:
        for _ in range(STEPS + 1):
            batch = mesh.put(next(batches), device_mesh)
            began = time.perf_counter()
            state, metrics = update(state, batch)
            jax.block_until_ready(metrics)
            taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:])) * to_steps(config.duration, examples, config.batch_size)


def row(
    name: str, of_seeds: Sequence[Mapping[str, Any]], times: Mapping[str, float], frechet: str
) -> dict[str, Any]:
    """Return the row of a system.

    of_seeds: the numbers of its runs.
    times: its `timing`, or nothing.
    frechet: the name of the Frechet distance.
    """
    result: dict[str, Any] = {"system": name, "seeds": len(of_seeds)}
    if "tokenizer" in of_seeds[0]:
        result["tokenizer"] = of_seeds[0]["tokenizer"]
    parameters = of_seeds[0]["parameters"]
    result |= {f"{part}_parameters": number for part, number in parameters.items()}
    for key in (*NUMBERS, frechet):
        result |= runs.mean_and_sd(key, [numbers.get(key) for numbers in of_seeds])
    result |= {key: times.get(key) for key in TIMES}
    if "sampler" in of_seeds[0]:
        result["sampler"] = "; ".join(numbers["sampler_in_words"] for numbers in of_seeds)
    shares = [[share or 0 for share in numbers["per_class"]] for numbers in of_seeds]
    by_class = np.mean(shares, axis=0)
    result["accuracy_by_class"] = " ".join(f"{100 * share:.0f}" for share in by_class)
    return {**result, "card": runs.together([numbers["card"] for numbers in of_seeds])}


def real(found: Mapping[str, Sequence[Mapping[str, Any]]], frechet: str) -> dict[str, Any]:
    """Return the row of real images held out from training."""
    numbers = next(iter(found.values()))[0]
    like = row("", [numbers], {}, frechet)
    card = runs.of_real(numbers["card"]["samples"])
    return runs.real_row(like, numbers, system="real images", accuracy_by_class="-", card=card)


def picture(config: ConfigDict, out: pathlib.Path, names: Sequence[str]) -> None:
    """Write comparison.png: held-out images, and samples of each system's first seed.

    There is one of each class in turn.
    """
    keys = config.systems[names[0]].generator.dataset
    dataset = build.call(Dataset, keys, "config.dataset")
    images, labels = evaluation.load_split(dataset, dataset.validation)
    first = [int(np.argmax(labels == label)) for label in np.unique(labels)][: runs.SHOWN]
    lines = {"held-out images": images[first]}
    for name in names:  # samples go through the classes, too
        file = out / f"{name}_0" / "samples" / "samples.npz"
        if file.is_file():
            samples, *_ = read_finished(file)
            lines[name.replace("_", " ")] = next(iter(samples.pieces))[: len(first)]
    runs.save_picture(out / "comparison.png", lines)
