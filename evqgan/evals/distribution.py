"""How far the distribution of generated images is from that of real ones, by their features."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from evqgan import models
from evqgan.core import files, mesh, room
from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive, Seed
from evqgan.evals.batches import Batches
from evqgan.evals.feature_metrics import (
    METRICS,
    FeatureSet,
    Metric,
    MetricName,
    bytes_kept,
    measure,
)
from evqgan.features.extractor import Extractor, extractors
from evqgan.generators import Request
from evqgan.generators.requests import request_of, seeds_of
from evqgan.metrics.frechet import too_few
from evqgan.metrics.references import load_reference

KEY = "config.evals.distribution"


class Evaluator:
    """FID and its kin, of images that are generated for it.

    features: networks of evqgan/features, by name or as a dict of `name` and its keys. A number's
      name says whose features it is of: fid_inception, frechet_efficientnet, ...
    metrics: keys of `feature_metrics.METRICS`. Of Inception's features frechet is called fid,
      spatial_frechet sfid, mmd kid and score is. Not all networks have spatial features and logits.
    samples: how many images are generated. Number n is that of --mode=sample with the same seed:
      classes in turn, and a random key of its own.
    seed: of the images.
    split: of the real images, in the view of validation; "": config.dataset.train.
    reference: in their place a `.npz` with mu and sigma, of pytorch-fid, clean-fid, ADM or ours.
    weights: of the networks, see `core.weights`. With "random" (one seed for all runs) names of
      numbers end in _untrained.
    show: not used, there are no pictures.
    """

    def __init__(
        self,
        predict: Callable,
        batches: Batches,
        config: Any,
        sample: Callable | None,
        show: int = 0,
        features: tuple[str | dict, ...] = ("inception",),
        metrics: tuple[MetricName, ...] = ("frechet",),
        samples: Positive = 50_000,
        seed: Seed = 0,
        split: str = "",
        reference: str = "",
        weights: str = "",
    ) -> None:
        """Take what `evals.Evaluator` says, and the keys above.

        Raises InputError for a config without a generator, a metric that no network has, a
        reference that does not fit, and more features than memory holds.
        """
        if sample is None:
            raise InputError(f"{KEY} measures generated images: its config has to be a generator's")
        self.batches, self.sample, self.samples, self.seed = batches, sample, samples, seed
        tokenizer = models.of_stage2(config).tokenizer
        self.grid_and_depth = (*tokenizer.grid, tokenizer.network.quantizer.depth)
        self.classes = config.generator.get("classes", 0)
        self.split = "" if reference else split or batches.dataset.train
        self.reference = reference
        self.networks = extractors(features, weights, f"{KEY}.features", batches.device_mesh)
        self.metrics = chosen(metrics, self.networks)
        # Measured once, as they depend on no state; of each network.
        self.real: list[FeatureSet] | None = None
        if reference:
            self.real = [of_reference(reference, self.networks, self.metrics)]
        self._check_room()

    def run(self, state: dict) -> Iterator[tuple[str, float]]:
        """Yield (name, value), which depend on the state alone."""
        if self.real is None:
            self.real = self._of_real_images()
        sets = zip(self.networks, self.metrics, self._of_samples(state), self.real, strict=True)
        for network, metrics, generated, real in sets:
            for name, value in measure(metrics, generated, real).items():
                yield network.name_of(name), value

    def card(self) -> dict[str, Any]:
        """Return what the numbers of the last run were measured on."""
        found: dict[str, Any] = {"split": self.split, "generated_images": self.samples}
        found |= {"seed": self.seed, "features": [network.card() for network in self.networks]}
        if self.reference:
            name, digest = pathlib.Path(self.reference).name, files.digest(self.reference)
            found["reference"] = {"file": name, "sha256": digest}
        if self.real and self.real[0].count:
            found["real_images"] = self.real[0].count
        return found | {"warnings": self._warnings()}

    def _of_samples(self, state: dict) -> list[FeatureSet]:
        """Generate the images; return what is needed of their features, for each network.

        The last batch is filled up with the last image once more, which does not count.
        """
        sets = [FeatureSet(metrics.values()) for metrics in self.metrics]
        ways = mesh.ways(self.batches.device_mesh)
        size = min(self.batches.size, -(-self.samples // ways) * ways)
        for start in range(0, self.samples, size):
            numbers = np.arange(start, start + size)
            images = self.sample(state, self.request(numbers.clip(max=self.samples - 1)))
            for network, generated in zip(self.networks, sets, strict=True):
                generated.add(network(images), numbers < self.samples)
        return sets

    def request(self, numbers: np.ndarray) -> Request:
        """Return the request for the images of these numbers, int [B]."""
        ids = jnp.zeros((len(numbers), *self.grid_and_depth), jnp.int32)
        labels = jnp.asarray(numbers % max(self.classes, 1), jnp.int32)
        seeds = jnp.asarray(seeds_of(self.seed, len(numbers)))
        mask = jnp.ones(ids.shape[:-1], bool)
        return request_of(ids, mask, labels, seeds, jnp.asarray(numbers, jnp.uint32))

    def _of_real_images(self) -> list[FeatureSet]:
        """Read the real images; return what is needed of their features, for each network."""
        sets = [FeatureSet(of_real(metrics)) for metrics in self.metrics]
        if not any(map(of_real, self.metrics)):
            return sets
        for batch in self.batches(self.split, images=True):
            valid = mesh.gathered(batch["valid"], self.batches.device_mesh)
            for network, real in zip(self.networks, sets, strict=True):
                real.add(network(batch["image"]), valid)
        return sets

    def _check_room(self) -> None:
        """Raise InputError if the features that have to be kept do not fit into memory."""
        widths = [network.widths for network in self.networks]
        reals = [of_real(metrics) for metrics in self.metrics]
        pairs = [(m.values(), w) for m, w in zip(self.metrics, widths, strict=True)]
        needed = sum(bytes_kept(m, w, self.samples) for m, w in pairs)
        of_one = sum(bytes_kept(m, w, 1) for m, w in zip(reals, widths, strict=True))
        number = self.batches.number(self.split) if of_one else 0
        what = f"{KEY}: features of {self.samples:,} generated and {number:,} real images"
        room.require(needed + number * of_one, what)

    def _warnings(self) -> list[str]:
        """Return what Frechet distances of so few images are worth."""
        lines: list[str] = []
        sets = zip(self.networks, self.metrics, self.real or (), strict=False)
        for network, metrics, real in sets:
            counts = {"generated images": self.samples}
            if real.count:
                counts["real images"] = real.count
            for name, metric in metrics.items():
                if metric.gaussian:
                    lines += too_few(network.name_of(name), counts, network.widths[metric.layer])
        return lines


def chosen(names: Sequence[str], networks: Sequence[Extractor]) -> list[dict[str, Metric]]:
    """Return for each network the metrics of these names that its features have.

    Raises InputError if there are none to measure, or one that no network has.
    """
    for name in names:
        if not any(METRICS[name].layer in network.widths for network in networks):
            what = f"{METRICS[name].layer} ones, which no network in {KEY}.features has"
            raise InputError(f"{KEY}.metrics: {name} is of {what}")
    if not names or not networks:
        raise InputError(f"{KEY} needs one of features and one of metrics")
    return [
        {name: METRICS[name] for name in names if METRICS[name].layer in network.widths}
        for network in networks
    ]


def of_real(metrics: dict[str, Metric]) -> list[Metric]:
    """Return those of the metrics that look at real images."""
    return [metric for metric in metrics.values() if metric.real]


def of_reference(
    file: str, networks: Sequence[Extractor], metrics: Sequence[dict[str, Metric]]
) -> FeatureSet:
    """Return the Gaussians in a reference `.npz`.

    Raises InputError for more networks than one, for a metric that needs more than a Gaussian, and
    for a file that is none of these features.
    """
    if len(networks) > 1:
        raise InputError(f"{KEY}.reference is of one network: give one of features")
    others = [name for name, metric in metrics[0].items() if metric.real and not metric.gaussian]
    if others:
        raise InputError(
            f"{KEY}.reference has no images, which {', '.join(others)} need: leave them out, or "
            "give a split"
        )
    layers, widths = {metric.layer for metric in of_real(metrics[0])}, networks[0].widths
    found = load_reference(
        file, widths["pooled"], widths["spatial"] if "spatial" in layers else None
    )
    gaussians = {"pooled": found.pooled}
    if found.spatial:
        gaussians["spatial"] = found.spatial
    return FeatureSet(gaussians=gaussians, count=found.pooled.count or 0)
