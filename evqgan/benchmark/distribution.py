"""FID and its kin of samples that another program made: distribution --samples=DIR --folder=DIR

The samples are images below a folder, or those in `arr_0` of an `.npz`, uint8 [N,H,W,3], as ADM's
sampler writes them. They are measured as they are, neither scaled nor cropped, by the code that
config.evals.distribution runs for a model of ours. The real images, at the samples' size, are those
of --folder, --name or --config, or what a --reference file knows.

--out=FILE is an evaluation.json, which `compare` takes beside that of a model of ours. Its card
says that nothing is known of the weights, the seed, the labels and the sampler.
"""

from typing import Any, get_args

import jax

from evqgan.benchmark import reference
from evqgan.core import build, files, limits, mesh, progress
from evqgan.core.cli import CONFIG_KEYS, PATH, TEXT, TEXTS, Flag, choice, whole
from evqgan.core.errors import InputError, size_text
from evqgan.data.dataset import CROPS, Dataset
from evqgan.evals import foreign_samples, protocols, provenance
from evqgan.evals.batches import batches_of
from evqgan.evals.feature_metrics import MetricName, bytes_kept
from evqgan.evals.feature_numbers import Comparison, features_of_finished, metrics_per_network
from evqgan.evals.foreign_samples import ForeignSamples
from evqgan.evals.image_set import UNKNOWN, ImageSet
from evqgan.evals.provenance import Card, Evaluation
from evqgan.evals.real_images import (
    MetricsPerNetwork,
    RealFeatures,
    features_of_reference,
    features_of_split,
    needing_real,
)
from evqgan.features.extractor import Extractor, extractors

NAME = "distribution"  # of the evaluator whose numbers these are
FLAGS = (
    Flag("samples", PATH, (), "a folder of images, or an .npz of them"),
    Flag("reference", PATH, (), "an .npz with mu and sigma, or images, in the place of real ones"),
    Flag("config", TEXT, (), "FILE[:variant] of an experiment whose images are the real ones"),
    CONFIG_KEYS,
    Flag("folder", PATH, (), "a folder of real images"),
    Flag("name", TEXT, (), "or a data set by its name in tfds"),
    Flag("split", TEXT, (), "of the real images, such as train[:10000] (the training images)"),
    Flag("crop", choice(*CROPS), (), "how they are cropped (adm, or as the config says)"),
    Flag("protocol", choice(*get_args(protocols.OfSamples)), (), "folder, or adm (the config's)"),
    Flag("features", TEXTS, (), "networks of evqgan/features (inception, or the config's)"),
    Flag("metrics", TEXTS, (), f"{', '.join(get_args(MetricName))} (frechet, or the config's)"),
    Flag("weights", PATH, (), 'their weights: a folder, "" for the cache, or "random"'),
    Flag("batch", whole(1), (), "real images at a time (64)", 64),
    Flag("out", PATH, (), "the evaluation.json"),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the one row."""
    if not given.samples:
        raise InputError("--samples is needed: a folder of images, or an .npz of them")
    samples = foreign_samples.read(given.samples)
    dataset, split, protocol, section = real_images(given, overrides, samples.size)
    features = given.features or section.get("features") or ("inception",)
    names = given.metrics or section.get("metrics") or ("frechet",)
    known = get_args(MetricName)
    if wrong := [name for name in names if name not in known]:
        raise InputError(
            f"--metrics: there is no {wrong[0]!r}: {build.suggestion(wrong[0], known)}"
        )
    weights = section.get("weights", "") if given.weights is None else given.weights
    device_mesh = mesh.make(devices=jax.local_devices())
    networks = extractors(features, weights, "--features", device_mesh)
    metrics = metrics_per_network(names, networks, "--")
    if dataset is None:
        check_room(samples, 0, networks, metrics)
        real = of_file(given, protocol, samples, networks, metrics)
    else:
        batches = batches_of(dataset, given.batch, device_mesh)
        check_room(samples, batches.number(split), networks, metrics)
        real = features_of_split(batches, split, networks, metrics)
    beside = Comparison(networks, metrics, samples.images.shape[0], real)
    beside.check()
    numbers = dict(beside.numbers(features_of_finished(samples.images, networks, metrics)))
    warnings = protocols.warnings(protocol, samples.images.shape[0]) + beside.warnings()
    for line in warnings:
        progress.warn(line)
    if given.out:
        found = evaluation(samples, protocol, beside, names, numbers, warnings)
        files.save_json(given.out, found)
        print(f"these numbers, and how each was measured, are in {given.out}", flush=True)
    compared = real.images.count if real.images else None
    row = {"samples": samples.name, "images": samples.images.shape[0], "real": compared, **numbers}
    return "samples of another program beside real images", [row]


def real_images(
    given: Any, overrides: list[str], size: tuple[int, int]
) -> tuple[Dataset | None, str, protocols.Protocol, dict[str, Any]]:
    """Return what `reference.real_images` does; no data set where there is a --reference."""
    asked = [flag for flag in ("config", "folder", "name") if getattr(given, flag)]
    if given.reference and (asked or given.split or given.crop):
        raise InputError(
            "--reference and --config, --folder, --name, --split or --crop all say which real "
            "images: give one"
        )
    if given.reference:
        return None, "", protocols.OF_SAMPLES[given.protocol or "folder"], {}
    if not asked:
        raise InputError("give the real images: --folder, --name, --config or --reference")
    if size[0] != size[1] and not (given.crop or given.config):
        raise InputError(
            f"the first sample is of {size_text(size)}, and the crop of real images is "
            f"{protocols.ADM.crop!r}, which makes squares: give another one, as --crop=centre"
        )
    found = reference.real_images(given, overrides, size, given.protocol)
    dataset, _, protocol, _ = found
    if protocol.crop not in (None, dataset.crop):
        raise InputError(
            f"--crop={given.crop}: the protocol {protocol.name!r} has the crop {protocol.crop!r}: "
            "leave --crop out, or give --protocol=folder"
        )
    limits.require_batch(given.batch, size)
    return found


def of_file(
    given: Any,
    protocol: protocols.Protocol,
    samples: ForeignSamples,
    networks: list[Extractor],
    metrics: MetricsPerNetwork,
) -> RealFeatures:
    """Return what the file of --reference knows, if its images are of the samples' size."""
    key = "--reference"

    def check(images: ImageSet) -> None:
        protocols.check_reference(images, samples.size, protocol.crop, protocol, key)

    return features_of_reference(given.reference, networks, metrics, given.batch, key, check)


def check_room(
    samples: ForeignSamples, real: int, networks: list[Extractor], metrics: MetricsPerNetwork
) -> None:
    """Raise InputError if the features that have to be kept do not fit into memory.

    real: how many images samples are compared with; those of a file are not counted.
    """
    number, needed = samples.images.shape[0], 0
    for network, some in zip(networks, metrics, strict=True):
        needed += bytes_kept(some.values(), network.widths, number)
        needed += bytes_kept(needing_real(some), network.widths, real)
    limits.require_memory(needed, f"features of {number:,} samples and {real:,} real images")


def evaluation(
    samples: ForeignSamples,
    protocol: protocols.Protocol,
    beside: Comparison,
    names: Any,
    numbers: dict[str, float],
    warnings: list[str],
) -> Evaluation:
    """Return the numbers and their card, as --mode=evaluate has them."""
    card = Card(
        evaluator=NAME,
        protocol=protocol.name,
        weights=UNKNOWN,
        model=samples.model(),
        real=beside.real.images,
        heldout=None,
        produced=samples.produced(),
        features=[network.card() for network in beside.networks],
        settings={"metrics": list(names)},
        run=provenance.run_card(UNKNOWN),
        warnings=warnings,
    )
    found: Evaluation = {"numbers": {}, "protocols": {}}
    provenance.enter(found, numbers, card)
    return provenance.finite(found)
