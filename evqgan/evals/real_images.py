"""Features of real images: of a split of a data set, or what a reference file knows of them."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evqgan.core import build, files, mesh
from evqgan.core.errors import InputError
from evqgan.core.processes import tell
from evqgan.core.progress import counted, heartbeat
from evqgan.evals.batches import Batches
from evqgan.evals.feature_metrics import FeatureSet, Metric
from evqgan.evals.image_set import ImageSet, Tally, of_file
from evqgan.features.extractor import Extractor, networks_of_width
from evqgan.metrics import references
from evqgan.metrics.references import Reference

MetricsPerNetwork = Sequence[Mapping[str, Metric]]  # of each network, by name


@dataclasses.dataclass(frozen=True)
class RealFeatures:
    """What metrics need of the real images' features, for each network, and which images they are.

    notes: sentences on what a file does not say.
    """

    sets: Sequence[FeatureSet]
    images: ImageSet | None  # None: no metric looks at real images
    notes: Sequence[str] = ()


def needing_real(metrics: Mapping[str, Metric]) -> list[Metric]:
    """Return those of the metrics that look at real images."""
    return [metric for metric in metrics.values() if metric.real]


def is_of_inception(network: Extractor) -> bool:
    """Return whether it has the features that pytorch-fid's, clean-fid's and ADM's files are of."""
    return network.network == "inception" and not network.untrained


def features_of_split(
    batches: Batches, split: str, networks: Sequence[Extractor], metrics: MetricsPerNetwork
) -> RealFeatures:
    """Read the images of a split once; every process has to, and all get the same."""
    sets, tally = [FeatureSet(needing_real(some)) for some in metrics], Tally()
    if not any(map(needing_real, metrics)):
        return RealFeatures(sets, None)
    number = batches.number(split)
    with heartbeat(f"measuring {counted(number, 'real image')}", tell) as at:
        for batch in batches(split, images=True):
            valid, digest = (np.asarray(mesh.gathered(batch[x])) for x in ("valid", "digest"))
            tally.add(valid, digest)
            for network, real in zip(networks, sets, strict=True):
                real.add(network(batch["image"]), valid)
            at(tally.count, number)
    return RealFeatures(sets, tally.image_set(batches.dataset.of_images(), split))


def features_of_reference(
    file: str,
    networks: Sequence[Extractor],
    metrics: MetricsPerNetwork,
    rows: int,
    where: str,
    check: Callable[[ImageSet], None],
) -> RealFeatures:
    """Return what a reference file knows: ours, pytorch-fid's, clean-fid's or ADM's.

    Gaussians are taken from the file where it has those of a network's features, all else comes
    from its images, `rows` at a time.

    where: the key that names the file.
    check: raises InputError for images that samples are not to be compared with; called before any
      are read.

    Raises InputError for a file that is none, or lacks what the metrics need.
    """
    there = references.holds(file)
    has_gaussians, has_images = {"mu", "sigma"} <= there, references.IMAGES in there
    needs_images = [
        name
        for some in metrics
        for name, metric in some.items()
        if metric.real and not metric.gaussian
    ]
    if not has_images and not has_gaussians:
        references.load_reference(file)  # says what is wrong with it
    if not has_images and len(networks) > 1:
        raise InputError(f"{where} is of one network: give one of features")
    if not has_images and needs_images:
        raise InputError(
            f"{where} has no images, which {', '.join(needs_images)} need: leave them out, or give "
            "a split"
        )
    usable = is_of_inception(networks[0]) or "card" in there or not has_images
    if has_gaussians and usable and not needs_images and len(networks) == 1:
        return features_of_statistics(file, networks[0], metrics[0], where, check)
    return features_of_file_images(file, networks, metrics, rows, has_gaussians, where, check)


def features_of_statistics(
    file: str,
    network: Extractor,
    metrics: Mapping[str, Metric],
    where: str,
    check: Callable[[ImageSet], None],
) -> RealFeatures:
    """Return what a file with `mu` and `sigma` knows; InputError if they are of other features."""
    found = gaussians_of(file, network, metrics, where)
    images, notes = card_of(file, found, network, where)
    check(images)
    count = found.pooled.count or 0
    gaussians = {"pooled": found.pooled}
    if found.spatial:
        gaussians["spatial"] = found.spatial
    return RealFeatures([FeatureSet(gaussians=gaussians, count=count)], images, notes)


def gaussians_of(
    file: str, network: Extractor, metrics: Mapping[str, Metric], where: str
) -> Reference:
    """Return the Gaussians of a file, of as many features as the network has.

    Raises InputError, which says whose features the file has, for another number of them.
    """
    layers = {metric.layer for metric in needing_real(metrics) if metric.gaussian}
    width, spatial = network.widths["pooled"], network.widths.get("spatial")
    found = references.load_reference(file, None, spatial if "spatial" in layers else None)
    there = len(found.pooled.mean)
    if there == width:
        return found
    try:
        guess = f"of {json.loads(found.card)['features']['name']}, as its card says"
    except (ValueError, KeyError, TypeError, RecursionError):
        guess = f"likely of {' or '.join(networks_of_width(there)) or 'no network here'}"
    raise InputError(
        f"{where}: {file} is of {there:,} features ({guess}), {network.network} has {width:,}: set "
        "the key features beside this one to the file's, or make a file of this network by "
        f"`python -m evqgan.benchmark reference --features={network.network}`"
    )


def card_of(
    file: str, found: Reference, network: Extractor, where: str
) -> tuple[ImageSet, list[str]]:
    """Return which images a reference file is of, and sentences on what it does not say.

    Raises InputError for one of other features: by its card, or, as files of others are always of
    Inception's, by the network.
    """
    name = pathlib.Path(file).name
    if not found.card:
        if not is_of_inception(network):
            other = network.name_of("")[1:]
            raise InputError(
                f"{where}: {file} does not say of which features it is; files of pytorch-fid, "
                f"clean-fid and ADM are of Inception's, not of {other}'s: make one by "
                "`python -m evqgan.benchmark reference`"
            )
        notes = [f"{name} does not say of which images it is, nor how these were resized"]
        return of_file(name, files.digest(file), found.pooled.count, None), notes
    try:
        card = json.loads(found.card)
        images = ImageSet(**{**card["real"], "source": name, "size": tuple(card["real"]["size"])})
        features = card["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: the card in {file} is damaged: {error}") from error
    if differ := build.differences(features, network.card()):
        raise InputError(
            f"{where}: {file} is of other features than {network.network}'s here, "
            f"{build.listed(differ)}: make one of these by `python -m evqgan.benchmark reference`"
        )
    return images, []


def features_of_file_images(
    file: str,
    networks: Sequence[Extractor],
    metrics: MetricsPerNetwork,
    rows: int,
    has_gaussians: bool,
    where: str,
    check: Callable[[ImageSet], None],
) -> RealFeatures:
    """Return the features of the images in a file.

    has_gaussians: whether it has those of Inception's features, too, which then count, as they do
      in ADM's evaluator.
    """
    images = references.load_images(file, rows)
    name, count, size = pathlib.Path(file).name, images.shape[0], images.shape[1:3]
    known_as = of_file(name, files.digest(file), count, (size[0], size[1]))
    check(known_as)
    if count < 2:
        images_there = f"{counted(count, 'image')} in {references.IMAGES}"
        raise InputError(f"{where}: {file} holds {images_there}: give a file of two or more")
    sets: list[FeatureSet] = []
    for network, some in zip(networks, metrics, strict=True):
        known: dict[str, Any] = {}
        if has_gaussians and is_of_inception(network):
            found = gaussians_of(file, network, some, where)
            known = {"pooled": found.pooled} | ({"spatial": found.spatial} if found.spatial else {})
        sets.append(FeatureSet(needing_real(some), gaussians=known))
    for piece in images.pieces:
        for network, real in zip(networks, sets, strict=True):
            real.add(network(piece), np.ones(len(piece), bool))
    notes = [f"{name} does not say how its images were cropped"]
    if has_gaussians:
        notes.append(f"mu and sigma in {name} may be of more than its {count:,} images")
    return RealFeatures(sets, known_as, notes)
