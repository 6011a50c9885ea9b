"""The compared systems side by side on real images: both stages of each trained on equal terms, several seeds.

Each (system, seed) is a folder OUT/system_seed with the workdirs tokenizer and generator: the same command goes on
where it stopped, and does nothing again that is done. All see as many images in as many steps, have about as many
parameters, learn from the same loss of pixels, and are measured alike. Several processes may share the work, each with
its --part.
"""

import contextlib
import json
import os
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan.benchmark.runs import against_real, split
from evqgan.core import build, files, mesh, pictures
from evqgan.core.config_files import read_file
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.inference import commands, evaluation
from evqgan.inference.model import load
from evqgan.training.loop import train
from evqgan.training.run_length import to_steps
from evqgan.training.setup import jitted

NUMBERS = ("psnr", "codebook_usage", "sample_accuracy", "frechet")
TIMES = ("training_seconds", "seconds_per_image")
REAL = {"sample_accuracy": "heldout_accuracy", "frechet": "heldout_frechet", "accuracy_by_class": "-"}
SHOWN = 10  # ours: samples in the picture's rows
TIMED = 64  # ours: images of one batch, whose sampling is timed
STEPS = 10  # ours: training steps that are timed


def arguments(parser):
    """The flags."""
    parser.add_argument("--config", default="configs/comparison.py:digits", help="FILE:digits, :photographs or :tiny")
    parser.add_argument("--out", required=True, help="where the workdirs and the picture comparison.png go")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each system: seeds 0, 1, ...")
    parser.add_argument("--only", action="append", help="a system's name; may come several times (default: all)")
    parser.add_argument("--samples", type=int, default=500, help="how many samples each run is measured on")
    parser.add_argument("--part", default="1/1", help="I/N: do the I-th of N parts; the table has all that is done")


def run(given, rest):
    """-> title, rows: one for each system, and one of real images."""
    if rest:
        raise InputError(f"there is no flag {rest[0]}; see --help")
    config, (part, parts) = read_file(given.config), split(given.part)
    if config.stage != "comparison":
        raise InputError(f"comparison takes configs/comparison.py, {given.config} is of {config.stage}")
    if min(given.seeds, given.samples) < 1:
        raise InputError("expected at least one seed and one sample")
    names = given.only or list(config.systems)
    for name in names:
        if name not in config.systems:
            raise InputError(f"there is no system {name!r}: {build.nearest(name, config.systems)}")
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/evqgan/jax"))
    jax.config.update("jax_compilation_cache_dir", cache)  # the same programs for every seed
    out, found = pathlib.Path(given.out), {name: [] for name in names}
    # A tokenizer that several systems share is trained by whoever comes first: they are one part.
    owners = {name: config.systems[name].get("tokenizer_of", name) for name in names}
    runs = [(name, seed) for seed in range(given.seeds) for name in names]
    groups = list(dict.fromkeys((owners[name], seed) for name, seed in runs))
    for name, seed in runs:
        place = out / f"{name}_{seed}"
        if groups.index((owners[name], seed)) % parts == part - 1:
            found[name].append(finished(config.systems[name], out, name, seed, given.samples, config.real))
        elif numbers := known(place / "numbers.json", samples=given.samples, real=config.real.to_dict()):
            found[name].append(numbers)  # another process's
    found = {name: of_seeds for name, of_seeds in found.items() if of_seeds}
    if not found:
        raise InputError(f"--part={given.part} of {len(runs)} runs is none")
    picture(config, out, list(found))
    complete = all(len(of_seeds) == given.seeds for of_seeds in found.values())
    times = {name: timing(config.systems[name], out, name) if complete else {} for name in found}
    title = f"{given.config}: mean and standard deviation (_sd) over seeds, {given.samples} samples"
    return title, [row(name, of_seeds, times[name]) for name, of_seeds in found.items()] + [real(found)]


def finished(system, out, name, seed, samples, real):
    """Trains, samples and measures one run, or what of it is not done yet -> its numbers. real: see `against_real`."""
    place = out / f"{name}_{seed}"
    owner = out / f"{system.get('tokenizer_of', name)}_{seed}"
    first, second = (ConfigDict(json.loads(system[part].to_json())) for part in ("tokenizer", "generator"))
    for part in (first, second):
        part.seed, part.evals, part.best = seed, ConfigDict(), ""  # measured once, at the end
    states = {"tokenizer": train(first, owner / "tokenizer")}
    second.tokenizer.weights = str(owner / "tokenizer")
    states["generator"] = train(second, place / "generator")
    file = place / "numbers.json"
    made = {"step": int(states["generator"]["step"]), "samples": samples, "real": real.to_dict()}
    if numbers := known(file, **made):
        return numbers
    commands.sample(second, place, None, samples, [], seed, one_by_one=False)
    first.evals = ConfigDict({"reconstruction": {}})
    values = evaluation.evaluate(first, owner / "tokenizer", None, [])["numbers"]
    images, labels, _ = evaluation.read_samples(place / "samples" / "samples.npz")
    values |= against_real(second.dataset, images, labels, **real)
    parameters = {part: sum(x.size for x in jax.tree.leaves(state["params"])) for part, state in states.items()}
    numbers = {**made, "parameters": parameters, **values}
    files.save_json(file, numbers)
    return numbers


def known(file, **made):
    """The numbers in `file`, if it is there and they were made with these settings; else None."""
    numbers = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return numbers if made == {key: numbers.get(key) for key in made} else None


def timing(system, out, name):
    """{"training_seconds": of both stages without compiling, "seconds_per_image": of sampling and decoding}.

    Of all systems one after the other, when all are trained, so that no other work of this command is beside it: the
    median of STEPS steps, times their number; TIMED images at once, the better of two times. Kept in timing.json.
    """
    place = out / f"{name}_0"
    file = place / "timing.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    total = step_seconds(system.tokenizer) + step_seconds(system.generator, system.tokenizer.tokenizer)
    model, best = load(place, batch_size=TIMED), float("inf")
    model.generate(TIMED)
    for _ in range(2):
        began = time.perf_counter()
        model.generate(TIMED)
        best = min(best, time.perf_counter() - began)
    found = {"training_seconds": total, "seconds_per_image": best / TIMED}
    print(
        f"{name}: {found['training_seconds']:.0f} s of training, {found['seconds_per_image']:.3g} s an image",
        flush=True,
    )
    files.save_json(file, found)
    return found


def step_seconds(config, tokenizer=None):
    """Seconds that the training of `config` takes, from STEPS steps of an untrained model on its data.

    tokenizer: config.tokenizer.model of a generator, untrained too: what the codes are does not change what they cost.
    """
    config = ConfigDict(json.loads(config.to_json()))
    if tokenizer:
        config.tokenizer = {"weights": "random", "model": tokenizer}
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset")
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


def row(name, of_seeds, times):
    """The numbers of a system's runs, and its `timing` -> a row."""
    first = of_seeds[0]
    result = {"system": name, "seeds": len(of_seeds)}
    result |= {f"{part}_parameters": number for part, number in first["parameters"].items()}
    for key in NUMBERS:
        values = [numbers[key] for numbers in of_seeds if numbers.get(key) is not None]
        result[key] = float(np.mean(values)) if values else None
        result[f"{key}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    result |= {key: times.get(key) for key in TIMES}
    by_class = np.mean([[share or 0 for share in numbers["per_class"]] for numbers in of_seeds], axis=0)
    result["accuracy_by_class"] = " ".join(f"{100 * share:.0f}" for share in by_class)
    return result


def real(found):
    """The row of real images held out from training: what samples as good as they would have."""
    rows = [numbers for of_seeds in found.values() for numbers in of_seeds]
    blank = dict.fromkeys(row("real images", rows[:1], {}))
    known = {key: rows[0].get(other, other) for key, other in REAL.items()}
    return {**blank, "system": "real images", **known}


def picture(config, out, names):
    """comparison.png: held-out images, and a row of samples of each system's first seed, one of each class in turn."""
    dataset = build.call(pipeline.Dataset, config.systems[names[0]].generator.dataset, "config.dataset")
    images, labels = evaluation.whole(dataset, dataset.validation)
    first = [int(np.argmax(labels == label)) for label in np.unique(labels)][:SHOWN]  # samples go through them, too
    lines = {"held-out images": images[first]}
    for name in names:
        file = out / f"{name}_0" / "samples" / "samples.npz"
        if file.is_file():
            lines[name.replace("_", " ")] = evaluation.read_samples(file)[0][: len(first)]
    rows = [pictures.label(pictures.row(list(images)), text) for text, images in lines.items()]
    pictures.save_png(out / "comparison.png", pictures.column(rows))
    print(f"a row of samples of each system: {out / 'comparison.png'}")
