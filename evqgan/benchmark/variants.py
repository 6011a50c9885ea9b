"""Variants of one stage 2 side by side: equal parameters, equal training compute, several seeds.

Each (variant, seed) is a workdir of its own, OUT/variant_seed, trained as any other: the same command goes on where it
stopped, and does nothing again that is done. Numbers are of the same held-out images, masked in the same way, and of
samples made with the same settings. Several processes may share the work, each with its --part.
"""

import json
import os
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan import commands, stage2
from evqgan.core import build, files, optim, pictures
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.main import OVERRIDE, override, read_file
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.train import train

# What all have in common, and the keys in which each one differs.
BASE = {"generator": {"attention": "prefix", "own": "masked"}, "loss": {"masks": "matched", "targets": 1}}
VARIANTS = {
    "base": {},
    "joint": {"generator": {"attention": "joint"}},
    "raster masks": {"loss": {"masks": "raster"}},
    "paper masks": {"loss": {"masks": "paper"}},
    "all blocks": {"loss": {"targets": 0}},  # of fewer images, so that a step has as many target blocks
    "own dropped": {"generator": {"own": "dropped"}},
    "own partial": {"generator": {"own": "partial"}},
}
NUMBERS = ("cross_entropy", "sample_accuracy", "spread_ratio", "nearest_mean")
REAL = {"sample_accuracy": "heldout_accuracy", "nearest_mean": "heldout_nearest_mean"}
SHOWN = 10  # ours: samples in the picture's rows


def arguments(parser):
    """The flags."""
    parser.add_argument("--config", required=True, help="a stage 2, or a quickstart, whose generator is taken")
    parser.add_argument("--out", required=True, help="where the workdirs and the picture variants.png go")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant: seeds 0, 1, ...")
    parser.add_argument("--only", action="append", help="a variant's name; may come several times (default: all)")
    parser.add_argument("--samples", type=int, default=500, help="how many samples each run is measured on")
    parser.add_argument("--part", default="1/1", help="I/N: do the I-th of N parts; the table has all that is done")


def run(given, rest):
    """-> title, rows: one for each variant, and one of real images."""
    names, part, parts = chosen(given.only), *split(given.part)
    if min(given.seeds, given.samples) < 1:
        raise InputError("expected at least one seed and one sample")
    config = read(given.config, rest)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/evqgan/jax"))
    jax.config.update("jax_compilation_cache_dir", cache)  # sampling is the same program for every seed
    out, found = pathlib.Path(given.out), {name: [] for name in names}
    runs = [(name, seed) for seed in range(given.seeds) for name in names]
    for i, (name, seed) in enumerate(runs):
        workdir = out / f"{name.replace(' ', '_')}_{seed}"
        if i % parts == part - 1:
            found[name].append(finished(changed(config, name, seed), workdir, given.samples))
        elif (workdir / "variant.json").is_file():  # another process's
            found[name].append(json.loads((workdir / "variant.json").read_text()))
    found = {name: of_seeds for name, of_seeds in found.items() if of_seeds}
    if not found:
        raise InputError(f"--part={given.part} of {len(runs)} runs is none")
    picture(config, out, list(found))
    title = f"variants of {given.config}, mean and standard deviation (_sd) over seeds, {given.samples} samples"
    return title, [row(name, of_seeds) for name, of_seeds in found.items()] + [real(found)]


def chosen(only):
    """Names of --only, with spaces or underscores -> those names of VARIANTS, all for None."""
    names = [name.replace("_", " ") for name in only or VARIANTS]
    for name in names:
        if name not in VARIANTS:
            raise InputError(f"there is no variant {name!r}: {build.nearest(name, VARIANTS)}")
    return names


def split(text):
    """ "2/3" -> 2, 3."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"expected --part=I/N with I from 1 to N, such as 1/2, got {text!r}")
    return int(part), int(parts)


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
    config.duration = f"{optim.to_steps(config.duration, examples, batch)} steps"
    config.seed = seed
    for keys in (BASE, VARIANTS[name]):
        for section, values in keys.items():
            config[section].update(values)
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


def finished(config, workdir, samples):
    """Trains, samples and measures one run, or what of it is not done yet -> its numbers."""
    state = train(config, workdir)
    step, parameters = int(state["step"]), sum(x.size for x in jax.tree.leaves(state["params"]))
    file = workdir / "variant.json"
    if file.is_file():
        numbers = json.loads(file.read_text())
        if (numbers["step"], numbers["samples"]) == (step, samples):
            return numbers
    commands.sample(config, workdir, None, samples, [], 0, one_by_one=False)
    values = {name: entry["value"] for name, entry in commands.evaluate(config, workdir, None, []).items()}
    numbers = {
        "step": step, "samples": samples, "parameters": parameters, "batch": config.batch_size,
        "tokens": tokens(config), "seconds": seconds(workdir, config.batch_size), **values,
    }  # fmt: skip
    files.save_json(file, numbers)
    return numbers


def tokens(config):
    """Tokens that pass each layer in one training step, and back: a measure of compute that no other load disturbs.

    "joint": every target block has its own globals; "prefix": those of an image serve all its targets.
    """
    blocks, local = size(config)
    local += config.generator.own == "partial"
    targets, shared = config.loss.targets or blocks, config.generator.attention == "prefix"
    return config.batch_size * ((1 if shared else targets) * blocks + targets * local)


def seconds(workdir, batch):
    """Seconds of a training step, without compiling, evaluating and saving: the median of the log's."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = [line["perf/images_per_second"] for line in lines if line.get("perf/images_per_second")]
    return float(batch / np.median(rates)) if rates else None


def row(name, of_seeds):
    """The numbers of a variant's runs -> a row."""
    first = of_seeds[0]
    result = {"variant": name, "seeds": len(of_seeds), "parameters": first["parameters"], "steps": first["step"]}
    result |= {"batch": first["batch"], "tokens_a_step": first["tokens"], "seconds_a_step": middle(of_seeds, "seconds")}
    for key in NUMBERS:
        values = [numbers[key] for numbers in of_seeds if numbers.get(key) is not None]
        result[key] = float(np.mean(values)) if values else None
        result[f"{key}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return result


def middle(of_seeds, key):
    """The median over runs of a number that some may not have."""
    values = [numbers[key] for numbers in of_seeds if numbers[key] is not None]
    return float(np.median(values)) if values else None


def real(found):
    """The row of real images held out from training: what samples as good as they would have."""
    rows = [numbers for of_seeds in found.values() for numbers in of_seeds]
    blank = dict.fromkeys(row("real images", rows[:1]))
    known = {key: rows[0].get(other) for key, other in REAL.items()}
    return {**blank, "variant": "real images", **known, "spread_ratio": 1.0 if "spread_ratio" in rows[0] else None}


def picture(config, out, names):
    """variants.png: held-out images, and samples of the first seed of each variant, of the same labels."""
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset")
    lines = {"held-out images": commands.whole(dataset, dataset.validation, SHOWN)[0]}
    for name in names:
        file = out / f"{name.replace(' ', '_')}_0" / "samples" / "samples.npz"
        if file.is_file():
            lines[name] = commands.read_samples(file)[0][:SHOWN]
    rows = [pictures.label(pictures.row(list(images)), text) for text, images in lines.items()]
    pictures.save_png(out / "variants.png", pictures.column(rows))
    print(f"samples of each variant: {out / 'variants.png'}")
