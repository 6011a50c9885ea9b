"""Variants of one stage 2 side by side: equal parameters, equal training compute, several seeds.

Each (variant, seed) is a workdir of its own, OUT/variant_seed, trained as any other: the same
command goes on where it stopped, and does nothing again that is done. Numbers are of the same
held-out images, masked in the same way, and of samples made with the same settings, those of the
config and others of SCAN; which is best is chosen for each variant, by the mean Frechet distance
over its seeds. Several processes may share the work, each with its --part.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan.benchmark import real_images, runs
from evqgan.core import build, compilation_cache, files, metric_lines, npz, progress
from evqgan.core.cli import CONFIG_KEYS, TEXT, Flag, whole
from evqgan.core.config_files import override, read_file
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.evals.against_real import Features
from evqgan.evals.provenance import Produced
from evqgan.generators.blocks import ring_and_target
from evqgan.inference import evaluation
from evqgan.inference.mode_inputs import load_model
from evqgan.inference.model import Model
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import stage2
from evqgan.training.loop import train
from evqgan.training.run_length import to_steps

# What all have in common, and the keys in which each one differs: a value, or a function of the
# config's.
BASE: dict[str, dict[str, Any]] = {
    "generator": {"attention": "prefix", "global_tokens": "ordered", "own": "masked"},
    "loss": {"masks": "matched", "targets": 1, "edits": 0.25, "wavefronts": 0.1},
}
MASKED = {"global_tokens": "masked"}
PAPER = {"attention": "joint", "global_tokens": "masked"}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {},
    # Of fewer images, so that a step has as many target blocks.
    "all blocks": {"loss": {"targets": 0}},
    "masked": {"generator": MASKED},
    "masked, all blocks": {"generator": MASKED, "loss": {"targets": 0}},
    "joint": {"generator": {"attention": "joint"}},
    "raster masks": {"loss": {"masks": "raster"}},
    "more edits": {"loss": {"edits": 0.5, "wavefronts": 0.25}},
    "paper masks": {"generator": MASKED, "loss": {"masks": "paper"}},
    "paper": {"generator": PAPER, "loss": {"masks": "paper", "targets": 0}},
    "own dropped": {"generator": {**MASKED, "own": "dropped"}},
    "own partial": {"generator": {"own": "partial"}},
    "wider": {"generator": {"extend": lambda extend: 2 * extend}},
}
SCAN = {"choice_temperature": (2.0, 4.5, 9.0)}  # ours: around MaskGIT's 4.5
NUMBERS = ("cross_entropy", "sample_accuracy", "spread_ratio")  # and the Frechet distance

FLAGS = (
    Flag("config", TEXT, (), "a stage 2, or a quickstart, whose generator is taken", required=True),
    CONFIG_KEYS,
    runs.OUT,
    runs.SEEDS,
    runs.ONLY,
    runs.SAMPLES,
    Flag("views", whole(1), (), "random crops of each real image to measure against (1)", 1),
    runs.FEATURES,
    runs.WEIGHTS,
    runs.PART,
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each variant, and one of real images."""
    names = chosen(given.only)
    runs.part_of(given.part)  # a wrong one is refused before anything is read
    config = read(given.config, overrides)
    features = runs.features_of(given)
    compilation_cache.enable()  # sampling is the same program for every seed
    out = pathlib.Path(given.out)
    # How a run has to be measured for its numbers to be taken.
    how = {"samples": given.samples, "views": given.views, "features": features.card()}

    def do(name: str, seed: int) -> dict[str, Any]:
        return finished(changed(config, name, seed), workdir_of(out, name, seed), how, features)

    def done(name: str, seed: int) -> dict[str, Any] | None:
        return runs.known(workdir_of(out, name, seed) / "variant.json", **how)

    found = runs.each(names, given, do, done)
    picture(config, out, list(found))
    seeds = "mean and standard deviation (_sd) over seeds"
    title = f"variants of {given.config}, {seeds}, {given.samples} samples"
    frechet = features.name_of("frechet")
    rows = [row(name, of_seeds, frechet) for name, of_seeds in found.items()]
    return title, [*rows, real(found, frechet)]


def chosen(only: Sequence[str] | None) -> list[str]:
    """Return the variants named, also as parts of paths, or all."""
    folders = {folder(name): name for name in VARIANTS}
    for name in only or ():
        if folder(name) not in folders:
            raise InputError(f"there is no variant {name!r}: {build.suggestion(name, VARIANTS)}")
    return list(dict.fromkeys(folders[folder(name)] for name in only or VARIANTS))


def folder(name: str) -> str:
    """Return a variant's name as part of a path."""
    return name.replace(",", "").replace(" ", "_")


def workdir_of(out: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Return the workdir of a run."""
    return out / f"{folder(name)}_{seed}"


def read(file: str, overrides: list[str]) -> ConfigDict:
    """Return the resolved config of a stage 2, from FILE[:variant] and --config.key=value."""
    config = read_file(file)
    if config.stage == "quickstart":
        config = config.generator
    override(config, overrides)
    if config.stage != "stage2":
        raise InputError(f"variants compares generators, {file} is of {config.stage}")
    return stage2.resolve(config)


def changed(config: ConfigDict, name: str, seed: int) -> ConfigDict:
    """Return the config of one run: all have as many steps, and as many target blocks a step."""
    config = ConfigDict(json.loads(config.to_json()))
    dataset = build.call(Dataset, config.dataset, "config.dataset")
    pipeline.prepare(dataset)
    examples, batch = len(pipeline.open_split(dataset, dataset.train)), config.batch_size
    config.duration = f"{to_steps(config.duration, examples, batch)} steps"
    config.seed = seed
    for keys in (BASE, VARIANTS[name]):
        for section, values in keys.items():
            before = config[section]
            before.update({key: v(before[key]) if callable(v) else v for key, v in values.items()})
    if not config.loss.targets:
        blocks = size(config)[0]
        if batch % blocks:
            what = f"a multiple of the {blocks} blocks"
            raise InputError(f"expected config.batch_size to be {what}, got {batch}")
        config.eval_batch_size = config.get("eval_batch_size") or batch
        config.batch_size = batch // blocks
    return config


def size(config: ConfigDict) -> tuple[int, int]:
    """Return the blocks of an image, and the tokens of a block with its ring."""
    dataset = build.call(Dataset, config.dataset, "config.dataset")
    factor = tokenizers.make(config.tokenizer.model).factor
    h, w = (side // factor for side in dataset.shape)
    ring, target = ring_and_target(h, w, config.generator.window, config.generator.extend)
    return len(target), ring.shape[1] + target.shape[1]


def finished(
    config: ConfigDict, workdir: pathlib.Path, how: Mapping[str, Any], features: Features
) -> dict[str, Any]:
    """Train, sample and measure one run, or what of it is not done yet; return its numbers.

    how: the number of "samples" and of "views", and "features", the card of `features`.
    """
    state = train(config, workdir)
    file = workdir / "variant.json"
    made = {"step": int(state["step"]), **how}
    if numbers := runs.known(file, **made):
        return numbers
    numbers = {
        **made,
        "parameters": sum(x.size for x in jax.tree.leaves(state["params"])),
        "batch": config.batch_size,
        "tokens": tokens(config),
        "seconds": seconds(workdir, config.batch_size),
        **last(workdir, "cross_entropy"),
        "scan": scan(load_model(config, workdir), config, workdir, how, features),
        "card": of_training(workdir),
    }
    files.save_json(file, numbers)
    return numbers


def scan(
    model: Model,
    config: ConfigDict,
    workdir: pathlib.Path,
    how: Mapping[str, Any],
    features: Features,
) -> list[dict[str, Any]]:
    """Return what is measured on samples of each setting of SCAN.

    Each is {"sampler": {...}, "card": their card, name: number}.

    The first setting is the config's; its first images are kept for the picture. Arguments as of
    `finished`.
    """
    ((key, values),) = SCAN.items()
    usual, found = model.sampler[key], []
    with progress.announced("measuring real images"):
        beside = real_images.against(config.dataset, how["views"], colour=True, features=features)
    subject = evaluation.subject_of(model)
    for value in (usual, *(value for value in values if value != usual)):
        progress.say(f"{workdir.name}, {key} {value:g}: {how['samples']:,} samples")
        made = model.sample(how["samples"], None, 0, progress=runs.sampling(model), **{key: value})
        images, labels = made["images"], made["labels"]
        sampler = {**model.sampler, key: value}
        produced = Produced(
            "samples",
            len(images),
            model.size,
            seed=0,
            labels="all classes in turn",
            sampler=sampler,
        )
        with progress.announced(f"measuring {len(images):,} samples beside real images"):
            card = beside.card(subject, produced, labels)
            numbers = beside.against.numbers_of(images, labels)
        found.append({"sampler": {key: value}, "card": card, **numbers})
        if value == usual:
            npz.save(workdir / "shown.npz", images=images[: runs.SHOWN])
    return found


def logged(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl; InputError for a damaged one."""
    return metric_lines.read(workdir / "metrics.jsonl")


def last(workdir: pathlib.Path, name: str) -> dict[str, float]:
    """Return {name: number} of a run's last evaluation."""
    key = f"val/{name}"
    return {name: [line[key] for line in logged(workdir) if key in line][-1]}


def of_training(workdir: pathlib.Path) -> dict[str, Any]:
    """Return the cards of a run's last evaluation, by evaluator."""
    file = max((workdir / "training").glob("evaluation_*.json"))
    found: dict[str, Any] = evaluation.read_evaluation(file)["protocols"]
    return found


def tokens(config: ConfigDict) -> int:
    """Return the tokens that pass each layer in one training step, and back.

    It is a measure of compute that no other load disturbs. Only with attention "prefix" and
    "ordered" globals do those of an image serve all its targets.
    """
    blocks, local = size(config)
    local += config.generator.own == "partial"
    keys, targets = config.generator, config.loss.targets or blocks
    shared = keys.attention == "prefix" and keys.global_tokens == "ordered"
    return config.batch_size * ((1 if shared else targets) * blocks + targets * local)


def seconds(workdir: pathlib.Path, batch: int) -> float | None:
    """Return the seconds of a training step, without pauses: the median of the log's."""
    rates = [rate for line in logged(workdir) if (rate := line.get("perf/images_per_second"))]
    return float(batch / np.median(rates)) if rates else None


def row(name: str, of_seeds: Sequence[Mapping[str, Any]], frechet: str) -> dict[str, Any]:
    """Return the row of a variant.

    Its numbers are those of the config's sampler, and ("best_...") of the best of SCAN.

    of_seeds: the numbers of its runs.
    frechet: the name of the Frechet distance, by which the best is chosen.
    """
    first = of_seeds[0]
    result: dict[str, Any] = {
        "variant": name,
        "seeds": len(of_seeds),
        "parameters": first["parameters"],
        "steps": first["step"],
    }
    result |= {
        "batch": first["batch"],
        "tokens_a_step": first["tokens"],
        "seconds_a_step": middle(of_seeds, "seconds"),
    }
    distances = [[entry[frechet] for entry in numbers["scan"]] for numbers in of_seeds]
    best = int(np.argmin(np.mean(distances, axis=0)))
    keys = (*NUMBERS, frechet)
    for key in keys:
        values = [{**numbers, **numbers["scan"][0]}.get(key) for numbers in of_seeds]
        result |= runs.mean_and_sd(key, values)
    sampler = first["scan"][best]["sampler"]
    result["best"] = " ".join(f"{key}={value:g}" for key, value in sampler.items())
    for key in keys[1:]:
        values = [numbers["scan"][best].get(key) for numbers in of_seeds]
        result |= runs.mean_and_sd(f"best_{key}", values)
    found = [
        {
            **numbers["card"],
            "samples": numbers["scan"][0]["card"],
            "best": numbers["scan"][best]["card"],
        }
        for numbers in of_seeds
    ]
    return {**result, "card": runs.together(found)}


def middle(of_seeds: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the median over runs of a number that some may not have."""
    values = [numbers[key] for numbers in of_seeds if numbers[key] is not None]
    return float(np.median(values)) if values else None


def real(found: Mapping[str, Sequence[Mapping[str, Any]]], frechet: str) -> dict[str, Any]:
    """Return the row of real images held out from training."""
    numbers = next(iter(found.values()))[0]
    like = row("", [numbers], frechet)
    first = numbers["scan"][0]
    more = {"variant": "real images", "spread_ratio": 1.0, "card": runs.of_real(first["card"])}
    return runs.real_row(like, first, **more)


def picture(config: ConfigDict, out: pathlib.Path, names: Sequence[str]) -> None:
    """Write variants.png: held-out images, and samples of each variant's first seed."""
    dataset = evaluation.images_of(config)
    images, _ = evaluation.load_split(dataset, dataset.validation, runs.SHOWN)
    lines = {"held-out images": images}
    for name in names:
        file = workdir_of(out, name, 0) / "shown.npz"
        if file.is_file():
            with npz.readable(file), npz.opened(file) as saved:
                lines[name] = saved["images"]
    runs.save_picture(out / "variants.png", lines)
