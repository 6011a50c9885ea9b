"""Settings of a generator's sampler, chosen by measurement: how good samples are, and their cost.

--scan.KEY=VALUE,... names keys of config.sample and the values to try; without any, those of USUAL
that the generator has. All combinations are measured if --budget allows, else one key after the
other from the best so far.

What decides is the Frechet distance of --features, the mean over seeds. Settings tie that do not
differ beyond the error bars (95 %, Student's), and the cheapest of these is taken, of equally cheap
ones that which changes the fewest keys; none is taken that has fewer samples in their class than
the preset. The choice and the preset are measured again with other seeds, and the choice counts
only if it is still better, or ties and is cheaper.

--out gets sample.json, which --preset= of the modes sample, edit and evaluate takes; front.png; and
scan.json, from which the same command goes on.
"""

import ast
import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from evqgan.benchmark import front, runs
from evqgan.benchmark.real_images import Beside
from evqgan.benchmark.sampler_measuring import OF_CLASSES, Measurements, in_words
from evqgan.benchmark.sampler_scan import (
    Measured,
    Setting,
    chosen,
    front_of,
    half_width,
    holds,
    search,
    untried,
)
from evqgan.core import build, compilation_cache, files, pictures, presets, replacing
from evqgan.core.cli import CONFIG_KEYS, PATH, TEXT, Flag, whole
from evqgan.core.config_files import OVERRIDE, of_workdir, override
from evqgan.core.errors import InputError
from evqgan.core.progress import announced
from evqgan.evals.against_real import AgainstReal
from evqgan.evals.image_set import Tally
from evqgan.evals.provenance import Produced, Subject
from evqgan.features.extractor import Extractor
from evqgan.inference.evaluation import data_of, of_split, subject_of
from evqgan.inference.mode_inputs import load_model
from evqgan.inference.model import Model

NAME, PRESET, FRONT = "samplers", "sample.json", "front.png"
SCAN = Flag("scan.KEY", TEXT, (), "values of a key of config.sample to try, such as 1,2,4,8")
# ours: around MaskGIT's settings, from one step to twice as many as the paper's
USUAL: dict[str, Sequence[Any]] = {
    "steps": (1, 2, 4, 8, 16),
    "choice_temperature": (0.0, 1.0, 4.5, 9.0, 30.0),
    "choice": ("confidence", "halton"),
    "schedule": ("cosine", "linear", "square", "arccos"),
    "remask": (0.0, 0.1, 0.3, 1.0),
    "temperature": (0.9, 1.0, 1.1),
    "top_p": (0.95, 1.0),
    "guidance": (0.0, 0.5, 1.0, 2.0),
    "order": ("raster", "wavefront"),
}
AGAIN = 2  # settings that are measured with other seeds: the preset and the choice
FLAGS = (
    Flag("workdir", PATH, (), "of a generator, or of a quickstart", required=True),
    CONFIG_KEYS,
    SCAN,
    Flag("num", whole(2), (), "how many samples of each seed (1000)", 1000),
    Flag("seeds", whole(1), (), "how many seeds of each setting: 0, 1, ... (3)", 3),
    Flag("budget", whole(1), (), "how many settings are measured at most (24)", 24),
    runs.FEATURES,
    runs.WEIGHTS,
    Flag("batch_size", whole(1), (), "images a device at a time (64)", 64),
    Flag("out", PATH, (), "where sample.json, scan.json and front.png go", required=True),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each setting, and one of real images."""
    config, _ = of_workdir(given.workdir)
    if config.stage != "stage2":
        raise InputError(f"{given.workdir} holds a tokenizer: samplers needs a generator's workdir")
    scanned = [arg for arg in overrides if arg.lstrip("-").startswith("scan.")]
    override(config, of_sample([arg for arg in overrides if arg not in scanned]))
    network = Extractor(given.features, given.weights, "--features")
    dataset, out = data_of(config), pathlib.Path(given.out)
    compilation_cache.enable()
    files.tried(out)
    for file in (out / PRESET, out / FRONT):
        replacing.check(file, NAME)
    with files.owned(out, "another --out"):
        model = load_model(config, given.workdir, given.batch_size)
        values = values_of(model, scanned)
        splits = [(split, Tally()) for split in (dataset.train, dataset.validation)]
        train, heldout = (of_split(dataset, split, tally) for split, tally in splits)
        with announced("measuring real images"):
            against = AgainstReal(train, heldout, model.size, [network], keep=bool(model.classes))
        if model.classes and against.beyond:
            print(f"no share of samples in their class: {against.beyond}", flush=True)
        most, file = given.budget + AGAIN, out / "scan.json"
        about = network.name_of("frechet"), given.num, given.seeds, most, file
        real_train, real_heldout = (tally.image_set(dataset, split) for split, tally in splits)
        beside = Beside(against, real_train, real_heldout, against.settings, against.cards)
        measurements = Measurements(model, beside, *about)
        found, again, taken = best_of(measurements, values, given.budget)
        preset = found[0]
        if len(found) >= given.budget and (left := untried(values, found)):
            words = "; ".join(f"{key} {', '.join(map(str, x))}" for key, x in left.items())
            print(f"\n--budget={given.budget} was used up before these were measured: {words}")
        save(given, model, taken, again or [preset])
        draw(out / FRONT, measurements, found, preset, taken)
    subject = subject_of(model)
    rows = [row(measurements, x, 0, beside, subject) for x in found]
    rows += [row(measurements, x, given.seeds, beside, subject) for x in again]
    for line, x in zip(rows, found, strict=False):
        line["note"] = " ".join(kinds(x, found, preset, taken)) or "-"
    title = f"sampler settings of {given.workdir}: mean and standard deviation (_sd) over seeds"
    return f"{title}, {given.num} samples each", [*rows, real(rows[0], against)]


def best_of(
    measurements: Measurements, values: Mapping[str, Sequence[Any]], budget: int, first: int = 0
) -> tuple[list[Measured], list[Measured], Measured]:
    """Return what is measured of at most `budget` settings, what is measured again, and the best.

    Again, with other seeds: the preset and the choice, nothing if that is the preset.

    values: {key: values to try}.
    first: of the seeds.
    """
    model = measurements.model

    def measure(setting: Setting) -> Measured:
        return measurements.of(setting, first)

    found = search(dict(model.sampler), values, budget, measure)
    preset, choice = found[0], chosen(found, found[0])
    if choice == preset:
        return found, [], preset
    others = first + measurements.seeds
    again = [measurements.of(x.setting, others) for x in (preset, choice)]
    return found, again, choice if holds(again[1], again[0]) else preset


def of_sample(args: Sequence[str]) -> list[str]:
    """Return arguments of keys of config.sample; InputError for others."""
    for arg in args:
        found = OVERRIDE.match(arg)
        if not found or not found[1].startswith("sample."):
            raise InputError(f"samplers takes --config.sample.KEY=VALUE, got {arg}")
    return list(args)


def values_of(model: Model, scanned: Sequence[str]) -> dict[str, list[Any]]:
    """Return {key: values to try} of arguments --scan.KEY=..., or of USUAL if there are none.

    Raises InputError for a key that the generator's sampler has not, or a value it cannot have.
    """
    given: dict[str, Sequence[Any]] = {}
    for arg in scanned:
        key, _, text = arg.lstrip("-").removeprefix("scan.").partition("=")
        if key not in model.sampler:
            hint = build.suggestion(key, model.sampler)
            raise InputError(f"the sampler has no key {key!r} to scan: {hint}")
        if not text or not all(text.split(",")):
            raise InputError(f"expected --scan.{key}=VALUE,VALUE,..., got {arg}")
        given[key] = [value_of(word) for word in text.split(",")]
    if not given:
        network = model.generator.network if model.generator else None
        is_guidable = bool(getattr(network, "class_dropout", 0))
        known = [key for key in USUAL if key in model.sampler]
        given = {key: USUAL[key] for key in known if key != "guidance" or is_guidable}
    found: dict[str, list[Any]] = {}
    for key, values in given.items():
        is_float = isinstance(model.sampler[key], float)
        found[key] = [float(x) if is_float and type(x) is int else x for x in values]
        for value in found[key]:
            model.check_settings({key: value})
    return found


def value_of(word: str) -> Any:
    """Return the number, or None, that a word spells; any other word is itself."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def save(given: Any, model: Model, taken: Measured, again: Sequence[Measured]) -> None:
    """Write the preset, and say what it is and how it is used.

    again: what is measured of the preset that was, and of the choice if there was another one,
      with seeds that decided nothing before.
    """
    print(f"\ndecided by the Frechet distance of {given.features}, 95 % error bars")
    if len(again) > 1:
        (was, now), bar = again, half_width(again[0].distances, again[1].distances)
        print(
            f"with other seeds: {in_words(now.setting, was.setting)}: {now.distance:.4g}, the "
            f"preset {was.distance:.4g}, error bar of the difference {bar:.2g}"
        )
        if taken.setting == was.setting:
            print("so the choice is neither better beyond the error bars nor cheaper")
    file = pathlib.Path(given.out) / PRESET
    about = {"name": NAME, "workdir": str(model.workdir), "step": model.step, "num": given.num}
    presets.save(file, model.config.generator.name, taken.setting, **about)
    changes = {k: v for k, v in taken.setting.items() if v != model.sampler[k]}
    keys = " ".join(f"--config.sample.{key}={shlex.quote(str(v))}" for key, v in changes.items())
    print(f"the settings are {in_words(taken.setting, model.sampler)}: {file}")
    command = f"python -m evqgan.main --mode=sample --workdir={shlex.quote(given.workdir)}"
    print(f"use them: {command} --preset={shlex.quote(str(file))}{keys and f', or {keys}'}")


def kinds(
    one: Measured, found: Sequence[Measured], preset: Measured, taken: Measured
) -> tuple[str, ...]:
    """Return what a setting is: those of chosen, preset and front that it is."""
    which = {"chosen": one == taken, "preset": one == preset, "front": one in front_of(found)}
    return tuple(name for name, is_one in which.items() if is_one)


def draw(
    file: pathlib.Path,
    measurements: Measurements,
    found: Sequence[Measured],
    preset: Measured,
    taken: Measured,
) -> None:
    """Write the picture of distances against seconds, with standard deviations over seeds."""
    name, cost = measurements.distance, measurements.protocol["cost"]
    points = [
        front.Point(
            1000 * one.seconds,
            one.distance,
            runs.mean_and_sd("", one.distances)["_sd"] or 0.0,
            in_words(one.setting, preset.setting),
            kinds(one, found, preset, taken),
        )
        for one in found
    ]
    title = f"{name}, mean and standard deviation over {measurements.seeds} seeds"
    pictures.save_png(
        file, front.picture(points, f"{cost} for 1,000 images", title), {"mode": NAME}
    )
    print(f"distance against cost: {file}")


def row(
    measurements: Measurements, one: Measured, first: int, beside: Beside, subject: Subject
) -> dict[str, Any]:
    """Return the row of a setting, with the seeds from `first` on.

    beside: the real images. subject: the model, as cards call it.
    """
    model, last = measurements.model, first + measurements.seeds - 1
    labels = "all classes in turn" if model.classes else "none"
    produced = Produced("samples", measurements.num, model.size, labels=labels)
    made = [
        dataclasses.replace(produced, seed=seed, sampler=one.setting)
        for seed in range(first, last + 1)
    ]
    found: dict[str, Any] = {
        "setting": in_words(one.setting, measurements.model.sampler),
        "seeds": f"{first}-{last}" if last > first else str(first),
    }
    for name in (measurements.distance, *OF_CLASSES):
        found |= runs.mean_and_sd(name, measurements.numbers(one.setting, name, first))
    found |= {"seconds_per_image": one.seconds, "note": "again" if first else "-"}
    return {**found, "card": runs.together([beside.card(subject, x) for x in made])}


def real(like: dict[str, Any], against: AgainstReal) -> dict[str, Any]:
    """Return the row of held-out real images. like: a row, for its keys and card."""
    of_real = {"setting": "real images, held out", **against.numbers_of_heldout()}
    if "sample_accuracy" in of_real:
        of_real["spread_ratio"] = 1.0
    return {**dict.fromkeys(like), **of_real, "card": runs.of_real(like["card"])}
