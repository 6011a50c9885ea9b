"""Statistics of real images, once, for the FID of many models: reference --folder=DIR --size=256

The file holds mu and sigma of a network's features, the number of images, and a card that says
which images they are, how cropped, and of which features; of Inception's it serves pytorch-fid and
ADM's evaluator, too. A generator is measured against it by
config.evals.distribution.reference=FILE, which refuses one of another crop or size than the
samples'.

With --config=FILE the images and features are those that its evaluator would read; flags change
them. Statistics are kept in ~/.cache/evqgan/references (or EVQGAN_REFERENCES) under a hash of the
list of image files with their sizes and times, the crop, the size and the features: the same again
is not computed again.
"""

import dataclasses
import json
import pathlib
import shutil
import time
from typing import Any

import jax

from evqgan.benchmark import runs
from evqgan.core import build, files, limits, mesh, progress
from evqgan.core.cli import CONFIG_KEYS, PATH, TEXT, Flag, choice, whole
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data.dataset import CROPS, Dataset
from evqgan.evals import kept_references, protocols
from evqgan.evals.batches import batches_of
from evqgan.evals.feature_metrics import METRICS, too_few
from evqgan.evals.real_images import RealFeatures, features_of_split
from evqgan.features.extractor import Extractor, card_of, several
from evqgan.features.names import name_of
from evqgan.metrics.references import Reference, load_reference, save_reference

FLAGS = (
    Flag("config", TEXT, (), "FILE[:variant] of an experiment whose images are taken"),
    CONFIG_KEYS,
    Flag("folder", PATH, (), "a folder of images"),
    Flag("name", TEXT, (), "or a data set by its name in tfds"),
    Flag("split", TEXT, (), "of the images, such as train[:10000] (the training images)"),
    Flag("size", whole(1), (), "their side in pixels"),
    Flag("crop", choice(*CROPS), (), "how they are cropped (adm)"),
    Flag("features", TEXT, (), "a network of evqgan/features (inception)"),
    Flag("weights", PATH, (), 'its weights: a folder, "" for the cache, or "random"'),
    Flag("batch", whole(1), (), "images at a time (64)", 64),
    Flag("out", PATH, (), "the .npz, beside the one in the cache"),
)
KEY = "config.evals.distribution"


@dataclasses.dataclass(frozen=True)
class Request:
    """What statistics are asked for.

    features: the config of one network in evqgan/features; weights: see `core.weights`.
    """

    dataset: Dataset
    split: str
    features: Any
    weights: str
    batch: int


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the one row."""
    request = requested(given, overrides)
    began = time.perf_counter()
    source = pipeline.open_split(request.dataset, request.split)
    about = card_of(request.features, request.weights, "--features")
    cached = kept_references.file_of(request.dataset, request.split, about)
    known = cached.is_file()
    if not known:
        network = Extractor(request.features, request.weights, "--features")
        print(f"reading {len(source):,} images of the split {request.split!r}", flush=True)
        save_reference(cached, statistics(request, network))
    found = load_reference(cached)
    if given.out:
        with files.atomic(given.out) as file, open(cached, "rb") as there:
            shutil.copyfileobj(there, file)
    card = json.loads(found.card)["real"]
    assert found.pooled.count  # of all that this command makes
    counts, widths = {"images": found.pooled.count}, {"pooled": len(found.pooled.mean)}
    untrained = "random" in about["weights"].values()

    def named(metric: str) -> str:
        return name_of(metric, about["name"], untrained)

    for warning in too_few({"frechet": METRICS["frechet"]}, named, widths, {}, counts):
        progress.warn(warning)
    row = {
        "images": found.pooled.count,
        "crop": card["crop"],
        "features": f"{about['name']} (untrained)" if untrained else about["name"],
        "digest": card["digest"],
        "seconds": 0.0 if known else time.perf_counter() - began,
        "file": given.out or str(cached),
    }
    return f"statistics of real images{', known already' if known else ''}", [row]


def requested(given: Any, overrides: list[str]) -> Request:
    """Return what a command line asks for; InputError if it does not say which images."""
    dataset, split, _, measured = real_images(given, overrides, given.size)
    limits.require_batch(given.batch, dataset.shape)
    features = given.features or several(measured.get("features") or "inception")[0]
    weights = measured.get("weights", "") if given.weights is None else given.weights
    return Request(dataset, split, features, weights, given.batch)


def real_images(
    given: Any, overrides: list[str], size: Any, protocol: protocols.OfSamples | None = None
) -> tuple[Dataset, str, protocols.Protocol, dict[str, Any]]:
    """Return a data set and its split, the protocol, and the section config.evals.distribution.

    given: has config, folder, name, split and crop.
    size: of the images; None: the config's. protocol: None: the config's.

    Raises InputError if it is not said which images.
    """
    keys: dict[str, Any] = {"crop": protocols.ADM.crop, "label_key": ""}
    measured: dict[str, Any] = {}
    if given.config:
        config = runs.config_with_data(given.config, overrides)
        keys = build.plain(config.dataset)
        measured = build.plain(config.get("evals", {}).get("distribution", {}))
    elif overrides:
        raise InputError(f"{overrides[0]} changes a config: give one by --config=FILE")
    if given.folder and not pathlib.Path(given.folder).is_dir():
        raise InputError(f"--folder: there is no folder {given.folder!r}")
    if given.folder or given.name:
        keys |= {"folder": given.folder or "", "name": given.name or ""}
    if "size" not in keys and not size:
        raise InputError("--size is needed: the side of the images in pixels")
    chosen = {"size": size, "crop": given.crop}
    keys |= {name: value for name, value in chosen.items() if value}
    dataset = build.call(Dataset, keys, "config.dataset").of_images()
    found = protocols.OF_SAMPLES[protocol or measured.get("protocol", "folder")]
    if not given.crop:
        dataset = protocols.view(found, dataset, f"{KEY}.protocol")
    split = given.split or measured.get("split") or dataset.train
    return dataset, split, found, measured


def statistics(request: Request, network: Extractor) -> Reference:
    """Read the images and return their statistics, with their card."""
    layers = {"pooled": "frechet", "spatial": "spatial_frechet"}
    metrics = {name: METRICS[name] for layer, name in layers.items() if layer in network.widths}
    device_mesh = mesh.make(devices=jax.local_devices())
    batches = batches_of(request.dataset, request.batch, device_mesh)
    found = features_of_split(batches, request.split, [network], [metrics])
    if found.images and found.images.count == 1:
        source = request.dataset.folder or request.dataset.name
        where = f"the split {request.split!r} of {source} has one"
        raise InputError(f"a covariance needs two images or more: {where}")
    gaussians = {metric.layer: found.sets[0].of(metric) for metric in metrics.values()}
    return Reference(gaussians["pooled"], gaussians.get("spatial"), described(found, network))


def described(found: RealFeatures, network: Extractor) -> str:
    """Return the card of a reference file: which images it is of, and of which features."""
    assert found.images is not None  # its metrics look at real images
    real = dataclasses.asdict(found.images)
    return json.dumps({"real": real, "features": network.card()}, sort_keys=True)
