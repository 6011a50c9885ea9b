"""Variants of one stage 2 side by side: equal parameters, equal training compute, several seeds.

Each (variant, seed) is a workdir of its own, OUT/variant_seed, trained as any other: the same command goes on where it
stopped, and does nothing again that is done. Numbers are of the same held-out images, masked in the same way, and of
samples made with the same settings, those of the config and others of SCAN; which is best is chosen for each variant,
by the mean Frechet distance over its seeds. Several processes may share the work, each with its --part.
"""

import json
import os
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan.benchmark.runs import against_real, split
from evqgan.core import build, files, pictures
from evqgan.core.config_files import OVERRIDE, override, read_file
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.inference import evaluation
from evqgan.inference.model import load
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import stage2
from evqgan.training.loop import train
from evqgan.training.run_length import to_steps

# What all have in common, and the keys in which each one differs: a value, or a function of the config's.
BASE = {
    "generator": {"attention": "prefix", "global_tokens": "ordered", "own": "masked"},
    "loss": {"masks": "matched", "targets": 1, "edits": 0.25, "wavefronts": 0.1},
}
MASKED = {"global_tokens": "masked"}
PAPER = {"attention": "joint", "global_tokens": "masked"}
VARIANTS = {
    "base": {},
    "all blocks": {"loss": {"targets": 0}},  # of fewer images, so that a step has as many target blocks
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
NUMBERS = ("cross_entropy", "sample_accuracy", "frechet", "spread_ratio")
REAL = {"sample_accuracy": "heldout_accuracy", "frechet": "heldout_frechet"}
SHOWN = 10  # ours: samples in the picture's rows


def arguments(parser):
    """The flags."""
    parser.add_argument("--config", required=True, help="a stage 2, or a quickstart, whose generator is taken")
    parser.add_argument("--out", required=True, help="where the workdirs and the picture variants.png go")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant: seeds 0, 1, ...")
    parser.add_argument("--only", action="append", help="a variant's name; may come several times (default: all)")
    parser.add_argument("--samples", type=int, default=500, help="how many samples each run is measured on")
    parser.add_argument("--views", type=int, default=1, help="random crops of each real image to measure against")
    parser.add_argument("--part", default="1/1", help="I/N: do the I-th of N parts; the table has all that is done")


def run(given, rest):
    """-> title, rows: one for each variant, and one of real images."""
    names, part, parts = chosen(given.only), *split(given.part)
    if min(given.seeds, given.samples, given.views) < 1:
        raise InputError("expected at least one seed, one sample and one view")
    config = read(given.config, rest)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/evqgan/jax"))
    jax.config.update("jax_compilation_cache_dir", cache)  # sampling is the same program for every seed
    out, found = pathlib.Path(given.out), {name: [] for name in names}
    runs = [(name, seed) for seed in range(given.seeds) for name in names]
    for i, (name, seed) in enumerate(runs):
        workdir = place(out, name, seed)
        if i % parts == part - 1:
            found[name].append(finished(changed(config, name, seed), workdir, given.samples, given.views))
        elif (workdir / "variant.json").is_file():  # another process's
            found[name].append(json.loads((workdir / "variant.json").read_text(encoding="utf-8")))
    found = {name: of_seeds for name, of_seeds in found.items() if of_seeds}
    if not found:
        raise InputError(f"--part={given.part} of {len(runs)} runs is none")
    picture(config, out, list(found))
    title = f"variants of {given.config}, mean and standard deviation (_sd) over seeds, {given.samples} samples"
    return title, [row(name, of_seeds) for name, of_seeds in found.items()] + [real(found)]


def chosen(only):
    """Names of --only, with spaces or underscores -> those names of VARIANTS, all for None."""
    folders = {folder(name): name for name in VARIANTS}
    for name in only or ():
        if folder(name) not in folders:
            raise InputError(f"there is no variant {name!r}: {build.nearest(name, VARIANTS)}")
    return [folders[folder(name)] for name in only or VARIANTS]


def folder(name):
    """A variant's name as part of a path."""
    return name.replace(",", "").replace(" ", "_")


def place(out, name, seed):
    """The workdir of a run."""
    return out / f"{folder(name)}_{seed}"


def read(file, rest):
    """FILE[:variant] and --config.key=value -> the resolved config of a stage 2."""
    for arg in rest:
        if not OVERRIDE.match(arg):
            raise InputError(f"there is no flag {arg}; see --help")
    config = read_file(file)
    if config.stage == "quickstart":
        config = config.generator
    override(config, rest)
    if config.stage != "stage2":
        raise InputError(f"variants compares generators, {file} is of {config.stage}")
    return stage2.resolve(config)


def changed(config, name, seed):
    """The config of one run: as many steps for all, and as many target blocks a step."""
    config = ConfigDict(json.loads(config.to_json()))
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset")
    pipeline.prepare(dataset)
    examples, batch = len(pipeline.open_split(dataset, dataset.train)), config.batch_size
    config.duration = f"{to_steps(config.duration, examples, batch)} steps"
    config.seed = seed
    for keys in (BASE, VARIANTS[name]):
        for section, values in keys.items():
            config[section].update({key: v(config[section][key]) if callable(v) else v for key, v in values.items()})
    if not config.loss.targets:
        blocks = size(config)[0]
        if batch % blocks:
            raise InputError(f"expected config.batch_size to be a multiple of the {blocks} blocks, got {batch}")
        config.batch_size, config.eval_batch_size = batch // blocks, config.get("eval_batch_size", batch)
    return config


def size(config):
    """-> blocks of an image, tokens of a block with its ring."""
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset")
    factor, window = tokenizers.make(config.tokenizer.model).factor, config.generator.window
    blocks = dataset.shape[0] // factor // window * (dataset.shape[1] // factor // window)
    return blocks, (window + 2 * config.generator.extend) ** 2


def finished(config, workdir, samples, views):
    """Trains, samples and measures one run, or what of it is not done yet -> its numbers."""
    state = train(config, workdir)
    step, parameters = int(state["step"]), sum(x.size for x in jax.tree.leaves(state["params"]))
    file, made = workdir / "variant.json", {"step": step, "samples": samples, "views": views}
    if file.is_file():
        numbers = json.loads(file.read_text(encoding="utf-8"))
        if made == {key: numbers.get(key) for key in made}:
            return numbers
    numbers = {
        **made, "parameters": parameters, "batch": config.batch_size, "tokens": tokens(config),
        "seconds": seconds(workdir, config.batch_size), **last(workdir, "cross_entropy"),
        "scan": scan(load(workdir, config), config, workdir, samples, views),
    }  # fmt: skip
    files.save_json(file, numbers)
    return numbers


def scan(model, config, workdir, samples, views):
    """Samples of `model` by each setting of SCAN, beside real images -> [{"sampler": {...}, name: number}].

    The first setting is the config's; its first images are kept for the picture.
    """
    ((key, values),) = SCAN.items()
    usual, found = model.sampler[key], []
    for value in (usual, *(value for value in values if value != usual)):
        made = model.sample(samples, [], 0, **{key: value})
        numbers = against_real(config.dataset, made["images"], made["labels"], views, colour=True)
        found.append({"sampler": {key: value}, **numbers})
        if value == usual:
            files.save_npz(workdir / "shown.npz", images=made["images"][:SHOWN])
    return found


def last(workdir, name):
    """{name: number} of the run's last evaluation."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {name: [line[f"val/{name}"] for line in lines if f"val/{name}" in line][-1]}


def tokens(config):
    """Tokens that pass each layer in one training step, and back: a measure of compute that no other load disturbs.

    Only with attention "prefix" and "ordered" globals do those of an image serve all its targets.
    """
    blocks, local = size(config)
    local += config.generator.own == "partial"
    keys, targets = config.generator, config.loss.targets or blocks
    shared = keys.attention == "prefix" and keys.global_tokens == "ordered"
    return config.batch_size * ((1 if shared else targets) * blocks + targets * local)


def seconds(workdir, batch):
    """Seconds of a training step, without compiling, evaluating and saving: the median of the log's."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line["perf/images_per_second"] for line in lines if line.get("perf/images_per_second")]
    return float(batch / np.median(rates)) if rates else None


def row(name, of_seeds):
    """The numbers of a variant's runs -> a row: with the config's sampler, and ("best_...") with the best of SCAN."""
    first = of_seeds[0]
    result = {"variant": name, "seeds": len(of_seeds), "parameters": first["parameters"], "steps": first["step"]}
    result |= {"batch": first["batch"], "tokens_a_step": first["tokens"], "seconds_a_step": middle(of_seeds, "seconds")}
    means = [np.mean([numbers["scan"][i]["frechet"] for numbers in of_seeds]) for i in range(len(first["scan"]))]
    best = int(np.argmin(means))
    for key in NUMBERS:
        result |= spread_of(key, [{**numbers, **numbers["scan"][0]}.get(key) for numbers in of_seeds])
    result["best"] = " ".join(f"{key}={value:g}" for key, value in first["scan"][best]["sampler"].items())
    for key in NUMBERS[1:]:
        result |= spread_of(f"best_{key}", [numbers["scan"][best].get(key) for numbers in of_seeds])
    return result


def spread_of(name, values):
    """{name: mean, name_sd: standard deviation} of values, some of which may be None."""
    values = [value for value in values if value is not None]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)) if values else None, f"{name}_sd": deviation}


def middle(of_seeds, key):
    """The median over runs of a number that some may not have."""
    values = [numbers[key] for numbers in of_seeds if numbers[key] is not None]
    return float(np.median(values)) if values else None


def real(found):
    """The row of real images held out from training: what samples as good as they would have."""
    numbers = next(iter(found.values()))[0]
    blank = dict.fromkeys(row("real images", [numbers]))
    known = {key: numbers["scan"][0].get(other) for key, other in REAL.items()}
    return {**blank, "variant": "real images", **known, "spread_ratio": 1.0}


def picture(config, out, names):
    """variants.png: held-out images, and samples of the first seed of each variant, of the same labels."""
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset").of_images()
    lines = {"held-out images": evaluation.whole(dataset, dataset.validation, SHOWN)[0]}
    for name in names:
        file = place(out, name, 0) / "shown.npz"
        if file.is_file():
            with np.load(file, allow_pickle=False) as saved:
                lines[name] = saved["images"]
    rows = [pictures.label(pictures.row(list(images)), text) for text, images in lines.items()]
    pictures.save_png(out / "variants.png", pictures.column(rows))
    print(f"samples of each variant: {out / 'variants.png'}")
