"""The mode evaluate: a trained workdir, and the samples made from it, to numbers on disk."""

import itertools
import json
import math
import pathlib
import zipfile
import zlib

import jax
import numpy as np
from ml_collections import ConfigDict

import evqgan
from evqgan import models
from evqgan.core import build, files, mesh, processes
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.evals import build_all
from evqgan.evals import samples as sample_statistics
from evqgan.inference.model import load

OF_CLASS = "sample_accuracy@"  # what begins the names of numbers of one class, of which there may be a thousand
WHOLE = 2**31  # ours: bytes of decoded images, of which samples are compared with each one


@processes.together()
def evaluate(config, workdir, out, metrics, batch_size=None):
    """The numbers of config.evals, and those of workdir/samples/samples.npz where there is one, into evaluation.json.

    {"numbers": {name: value}, "protocols": {evaluator: card}}: a card says what was measured on what, with which
    weights, and names its "numbers". Of a quickstart's workdir both the tokenizer and the generator, which has
    `config`, are measured. With `metrics`, names of evaluators, the other numbers of an evaluation.json remain.
    batch_size: images a device at a time (default: as the config says). Several processes measure together; the first
    one writes, and it alone has the numbers of samples.
    """
    first = processes.this()[0] == 0
    top, file = pathlib.Path(workdir), (out or pathlib.Path(workdir)) / "evaluation.json"
    parts = [(config, of_workdir(workdir)[1])]
    if parts[0][1] != top and (top / "tokenizer" / "config.json").is_file():
        parts.insert(0, of_workdir(top / "tokenizer"))
    known = [*(name for part, _ in parts for name in part.evals), "samples"]
    for name in metrics:
        if name not in known:
            raise InputError(f"there is no metric {name!r} in this workdir: {build.nearest(name, known)}")
    samples = top / "samples" / "samples.npz"
    if "samples" in metrics and not samples.is_file():
        raise InputError(f"there is no {samples}: make samples first, with --mode=sample --num=1000")
    with processes.together():
        if first:
            files.tried(file.parent)
    found = read_evaluation(file) if metrics and file.is_file() else {"numbers": {}, "protocols": {}}
    for part, place in parts:
        evals = {name: keys for name, keys in part.evals.items() if not metrics or name in metrics}
        compare = part is config and samples.is_file() and (not metrics or "samples" in metrics)
        if evals or compare:
            if first:
                print(f"loading {place}", flush=True)
            model, dataset = load(place, part), build.call(pipeline.Dataset, part.dataset, "config.dataset")
            dataset = dataset.of_images()  # stored ids may be gone, and do not change the numbers
            for numbers, card in evaluate_model(model, part, dataset, evals, batch_size, wanted=metrics):
                enter(found, numbers, card)
            if compare and first:
                try:
                    enter(found, *evaluate_samples(model, dataset, samples))
                except InputError as error:
                    if "samples" in metrics:
                        raise
                    print(f"no numbers of the samples in {samples}: {error}")
    if first:
        files.save_json(file, found)
        for name, value in found["numbers"].items():
            if value is not None and not name.startswith(OF_CLASS):
                print(f"{name:32s} {value:.4g}")
        for warning in (text for card in found["protocols"].values() for text in card.get("warnings", [])):
            print(f"WARNING {warning}")
    return found


def read_evaluation(file):
    """An evaluation.json as `evaluate` writes it; InputError if it is none."""
    found = files.read_json(file, "what evaluate writes; move it away")
    if found.keys() != {"numbers", "protocols"}:
        raise InputError(f"{file} is not what evaluate writes: it has no numbers and protocols; move it away")
    return found


def enter(found, numbers, card):
    """Enters `numbers` {name: value} with their card into `found`, in the place of what its evaluator said before."""
    name = card["evaluator"]
    for old in found["protocols"].get(name, {}).get("numbers", []):
        found["numbers"].pop(old, None)
    found["numbers"] |= numbers
    found["protocols"][name] = {"numbers": list(numbers), **card}


def evaluate_model(model, config, dataset, evals, batch_size=None, wanted=()):
    """Yields what each of the evaluators `evals` {name: keys} says of a loaded model: {name: value}, and its card.

    All devices of all processes work on it. Batches are as large as the config says on any number of them, for random
    masks depend on the batch: devices that cannot divide it compute what others do. Of an evaluator that has no numbers
    of these data nothing comes but a line; InputError if it is one of those `wanted` by name.
    """
    config = config.copy_and_resolve_references()
    devices = jax.device_count()
    size = batch_size * devices if batch_size else config.get("eval_batch_size", config.batch_size)
    device_mesh = mesh.make(data=math.gcd(size, devices), tensor=-1)
    state = everywhere(model.state, device_mesh)
    with config.unlocked():
        config.evals = ConfigDict({name: {**keys, "show": 0} for name, keys in evals.items()})  # numbers alone
        config.eval_batch_size = size
    for name, evaluator in build_all(config, models.of(config), dataset, device_mesh).items():
        keys = {"split": dataset.validation, "batch_size": size, **build.plain(evals[name])}
        card = protocol(model, dataset, evaluator=name, **keys)
        if processes.this()[0] == 0:
            print(f"evaluating: {name}", flush=True)
        try:
            numbers = {key: value for key, value in evaluator.run(state) if np.ndim(value) == 0}
        except InputError as error:
            if name in wanted or processes.this()[1] > 1:  # other processes may not know, and would wait
                raise
            print(f"no numbers of {name}: {error}", flush=True)
            continue
        yield numbers, card


def everywhere(state, device_mesh):
    """Arrays that every local device holds whole -> the same arrays as every device of the mesh, local or not, does."""
    whole = mesh.replicated(device_mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_single_device_arrays(x.shape, whole, [s.data for s in x.addressable_shards]),
        state,
    )


def evaluate_samples(model, dataset, file):
    """What `evals.samples` says of a samples.npz beside the real images of the data set -> {name: value}, its card.

    Every sample is compared with every image of the data set: InputError if this does not fit WHOLE bytes.
    """
    number = sum(len(pipeline.open_split(dataset, split)) for split in (dataset.train, dataset.validation))
    if number * int(np.prod(dataset.shape)) * 3 > WHOLE:
        raise InputError(f"samples are compared with data sets of up to {WHOLE:,} bytes; {number:,} images are more")
    images, labels, about = read_samples(file)
    print(f"comparing {len(images):,} samples with {number:,} images", flush=True)
    train_images, train_labels = whole(dataset, dataset.train)
    held_images, held_labels = whole(dataset, dataset.validation)
    card = protocol(
        model, dataset, evaluator="samples", split=f"{dataset.train}, held out: {dataset.validation}", **about
    )
    numbers = sample_statistics.nearest(images, train_images, held_images)
    numbers |= sample_statistics.frechet(images, train_images, held_images)
    if labels is not None:
        held = (held_images, held_labels)
        numbers |= sample_statistics.classifier_agreement(train_images, train_labels, images, labels, *held)
        names = model.class_names or range(model.classes)
        numbers |= {f"{OF_CLASS}{name}": x for name, x in zip(names, numbers.pop("per_class"), strict=False)}
        numbers |= sample_statistics.spread(images, labels, train_images, train_labels)
    return numbers, {**card, "warnings": sample_statistics.too_few(images, train_images, held_images)}


def read_samples(file):
    """A samples.npz -> images, labels or None, and how they were made, for the protocol card."""
    try:
        with np.load(file, allow_pickle=False) as saved:
            images, labels = saved["images"], saved.get("labels")
            how = {"samples_step": int(saved["step"]), "samples_seed": int(saved["seed"])}
            how |= {name: saved[name].item() for name in ("acceptance", "classifier", "candidates") if name in saved}
            return images, labels, {"samples": len(images), **how, "sampler": json.loads(saved["sampler"].item())}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} is not what --mode=sample writes: {error}; make the samples again") from error


def whole(dataset, split, limit=None):
    """The images and labels of a split, or the first ones, as evaluation sees them -> uint8 [N,H,W,3], int32 [N]."""
    batches = itertools.islice(pipeline.eval_batches(dataset.of_images(), split, limit or 64), 1 if limit else None)
    batches = [{k: v[b["valid"]] for k, v in b.items()} for b in batches]
    return tuple(np.concatenate([b[key] for b in batches]) for key in ("image", "label"))


def protocol(model, dataset, **more):
    """What a number needs beside it to be compared with another one."""
    data = dataset.folder or dataset.name
    return {
        "workdir": model.workdir.name,
        "step": model.step,
        "weights": "averaged (EMA)",
        "data": data,
        "size": list(model.size),
        "crop": dataset.crop,
        "images": "uint8, rounded and clipped",
        "device": jax.devices()[0].device_kind,
        "versions": {"evqgan": evqgan.__version__, "jax": jax.__version__},
        **more,
    }
