"""How far the distribution of generated images is from that of real ones, by their features.

The images are generated for it, or are finished samples.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from evqgan import models
from evqgan.core import build, limits, mesh
from evqgan.core.errors import InputError, size_text
from evqgan.core.kinds import Range, Seed
from evqgan.core.processes import tell
from evqgan.core.progress import counted, heartbeat
from evqgan.evals import finished, kept_references, protocols, sample_labels
from evqgan.evals.batches import Batches
from evqgan.evals.feature_metrics import FeatureSet, MetricName, bytes_kept
from evqgan.evals.feature_numbers import Comparison, features_of_finished, metrics_per_network
from evqgan.evals.finished import Finished
from evqgan.evals.image_set import ImageSet, crop_of
from evqgan.evals.provenance import Measured, Produced
from evqgan.evals.real_images import (
    RealFeatures,
    features_of_reference,
    features_of_split,
    features_of_statistics,
    needing_real,
)
from evqgan.features.extractor import extractors
from evqgan.generators import Request
from evqgan.generators.requests import request_of, seeds_of

KEY = "config.evals.distribution"


class Evaluator:
    """FID and its kin.

    features: networks of evqgan/features, by name ("inception,efficientnet" on a command line) or
      as a dict of `name` and its keys. A number's name says whose features it is of:
      fid_inception, frechet_efficientnet, ...
    metrics: keys of `feature_metrics.METRICS`. Of Inception's features they are named: frechet
      "fid", spatial_frechet "sfid", mmd "kid", score "is". Not all networks have spatial features
      and logits.
    samples: how many images are generated. Number n is that of --mode=sample with the same seed:
      classes in turn, and a random key of its own.
    labels: "turn": so, as published numbers of ImageNet are. "data": classes as often as the real
      images are of them (with a reference, those of config.dataset.train). Where these are uneven
      a perfect generator has the least distance so.
    seed: of the images.
    file: in the place of `samples`, `labels` and `seed` a samples.npz of --mode=sample, whose
      images are measured: those chosen by --acceptance, too, or of a run that was stopped and went
      on.
    protocol: "folder" or "adm", see `protocols`: which real images, how they are cropped.
    split: of the real images, in the view of validation; "": the protocol's, config.dataset.train.
    reference: in the place of a split a `.npz` with mu and sigma, of pytorch-fid, clean-fid, ADM or
      ours, or with images as ADM's have them.
    weights: of the networks, see `core.weights`. With "random" (one seed for all runs) names of
      numbers end in _untrained.
    show: not used, there are no pictures.
    """

    stage = "stage2"  # whose models it measures
    is_of_classes = False

    def __init__(
        self,
        predict: Callable,
        batches: Batches,
        config: Any,
        sample: Callable,
        show: int = 0,
        features: str | tuple[str | dict, ...] = ("inception",),
        metrics: tuple[MetricName, ...] = ("frechet",),
        samples: Annotated[int, Range(2)] = 50_000,
        labels: sample_labels.Order = "turn",
        seed: Seed = 0,
        file: str = "",
        protocol: protocols.OfSamples = "folder",
        split: str = "",
        reference: str = "",
        weights: str = "",
    ) -> None:
        """Take what `evals.Evaluator` says, and the keys above.

        Raises InputError for a metric that no network has, a split that there is not, a reference
        that does not fit or stands beside a split, labels that are not known, finished samples of
        another size, more than `limits.IMAGES` samples, and more features than memory holds.
        """
        self.protocol = protocols.OF_SAMPLES[protocol]
        view = protocols.view(self.protocol, batches.dataset, f"{KEY}.protocol")
        limits.limit_work(samples, limits.IMAGES, f"images to generate ({KEY}.samples)", None)
        if reference and split:
            raise InputError(f"{KEY}: split and reference both say which real images: give one")
        self.batches, self.sample = dataclasses.replace(batches, dataset=view), sample
        self.learned = batches.dataset
        self.classes = config.generator.get("classes", 0)
        self.finished = self._read(file, view.shape) if file else None
        self.samples = self.finished.produced.count if self.finished else samples
        self.seed = seed
        tokenizer = models.of_stage2(config).tokenizer
        self.grid_and_depth = (*tokenizer.grid, tokenizer.network.quantizer.depth)
        self.split = split or view.train
        self.networks = extractors(features, weights, f"{KEY}.features", batches.device_mesh)
        self.metrics = metrics_per_network(metrics, self.networks, f"{KEY}.")
        # Measured once, as they depend on no state.
        self.real: RealFeatures | None = None
        if reference:
            self._check_room(of_file=True)
            self.real = self._of_reference(reference)
        else:
            self._check_split()
            self._check_room()
        self.order, self.class_names = labels, tuple(config.get("class_names", ()))
        self.is_of_split = not reference
        self.split_of_labels = self.split if self.is_of_split else view.train
        found = self._frequencies() if labels == "data" and self.classes else None
        given = self.samples, self.classes, labels, found, f"{KEY}.labels"
        self.labels = sample_labels.labels_of(*given)

    def run(self, state: dict) -> Iterator[tuple[str, float]]:
        """Yield (name, value), which depend on the state alone.

        Raises InputError, before anything is generated, if there are too few images for all of
        them; else what needs more is left out.
        """
        if self.real is None:
            self.real = self._kept() or features_of_split(
                self.batches, self.split, self.networks, self.metrics
            )
        beside = self._beside(self.real)
        beside.check()
        if self.finished:
            found = features_of_finished(self.finished.images, self.networks, self.metrics)
        else:
            found = self._of_samples(state)
        yield from beside.numbers(found)

    def names(self) -> Sequence[str]:
        """Return the names of the numbers that a run yields, if there are enough images."""
        pairs = zip(self.networks, self.metrics, strict=True)
        return [n.name_of(x) for n, some in pairs for m in some.values() for x in m.numbers]

    @property
    def higher_is_better(self) -> Sequence[str]:
        """Return the names of those numbers that are the better the higher they are."""
        pairs = zip(self.networks, self.metrics, strict=True)
        return [n.name_of(x) for n, some in pairs for m in some.values() for x in m.higher]

    def card(self) -> Measured:
        """Return what the numbers of the last run were measured on."""
        dataset = self.batches.dataset
        labels = sample_labels.in_words(self.order, self.classes, self.split_of_labels)
        made_now = Produced("samples", self.samples, dataset.shape, seed=self.seed, labels=labels)
        return Measured(
            protocol=self.protocol.name,
            produced=self.finished.produced if self.finished else made_now,
            real=self.real.images if self.real else None,
            features=[network.card() for network in self.networks],
            settings={"metrics": list(dict.fromkeys(name for m in self.metrics for name in m))},
            warnings=self._warnings(),
            made_by=self.finished.made_by if self.finished else None,
        )

    def _of_samples(self, state: dict) -> list[FeatureSet]:
        """Generate the images; return what is needed of their features, for each network.

        The last batch is filled up with the last image once more, which does not count.
        """
        sets = [FeatureSet(metrics.values()) for metrics in self.metrics]
        ways = mesh.ways(self.batches.device_mesh)
        size = min(self.batches.size, -(-self.samples // ways) * ways)
        with heartbeat(f"generating {counted(self.samples, 'image')}", tell) as at:
            for start in range(0, self.samples, size):
                numbers = np.arange(start, start + size)
                images = self.sample(state, self.request(numbers.clip(max=self.samples - 1)))
                for network, generated in zip(self.networks, sets, strict=True):
                    generated.add(network(images), numbers < self.samples)
                at(min(start + size, self.samples), self.samples)
        return sets

    def request(self, numbers: np.ndarray) -> Request:
        """Return the request for the images of these numbers, int [B]."""
        ids = jnp.zeros((len(numbers), *self.grid_and_depth), jnp.int32)
        labels = jnp.asarray(self.labels[numbers])
        seeds = jnp.asarray(seeds_of(self.seed, len(numbers)))
        mask = jnp.ones(ids.shape[:-1], bool)
        return request_of(ids, mask, labels, seeds, jnp.asarray(numbers, jnp.uint32))

    def _read(self, file: str, size: tuple[int, int]) -> Finished:
        """Return the finished samples of a file; InputError for another one, or another size."""
        found = finished.read(file)
        if found.produced.size != size:
            got, expected = size_text(found.produced.size), size_text(size)
            raise InputError(
                f"{KEY}.file={file} is of {got}, expected {expected}, as config.dataset says"
            )
        if found.produced.count < 2:
            number = counted(found.produced.count, "image")
            raise InputError(f"{KEY}.file={file} holds {number}: give a file of two or more")
        most = 0 if found.labels is None else int(np.max(found.labels)) + 1
        if most > self.classes or (self.classes and found.labels is None):
            theirs = f"has labels up to {most - 1}" if most else "has no labels"
            ours = f"generator.classes is {self.classes} here"
            raise InputError(f"{KEY}.file={file} {theirs}, {ours}: it is of another model")
        in_turn = np.arange(found.produced.count) % max(self.classes, 1)
        if found.labels is not None and np.array_equal(found.labels, in_turn):
            produced = dataclasses.replace(found.produced, labels=sample_labels.ALL_CLASSES)
            return found._replace(produced=produced)
        return found

    def _kept(self) -> RealFeatures | None:
        """Return what `benchmark reference` keeps of these images, if it does and it is enough."""
        is_alone = len(self.networks) == 1 and jax.process_count() == 1
        wanted = [metric for some in self.metrics for metric in needing_real(some)]
        is_enough = wanted and all(metric.gaussian for metric in wanted)
        if not (is_alone and is_enough and kept_references.folder().is_dir()):
            return None
        (network,), (metrics,), dataset = self.networks, self.metrics, self.batches.dataset
        file = kept_references.file_of(dataset.of_images(), self.split, network.card())
        if not file.is_file():
            return None
        tell(f"statistics of real images, known already: {file}")
        found = features_of_statistics(str(file), network, metrics, str(file), lambda images: None)
        assert found.images is not None  # its card has them
        source = dataclasses.replace(found.images, source=dataset.folder or dataset.name)
        return dataclasses.replace(found, images=source)

    def _of_reference(self, file: str) -> RealFeatures:
        """Return what a reference file knows; InputError if its images are not as samples are."""
        key, dataset, size = f"{KEY}.reference", self.batches.dataset, self.batches.size

        def check(images: ImageSet) -> None:
            crop = crop_of(dataset)
            protocols.check_reference(images, dataset.shape, crop, self.protocol, key)

        return features_of_reference(file, self.networks, self.metrics, size, key, check)

    def _check_split(self) -> None:
        """Raise InputError if there is no such split of the real images, and metrics need them."""
        if not any(map(needing_real, self.metrics)):
            return
        with build.at_key(f"{KEY}.split"):
            self.batches.number(self.split)

    def _check_room(self, of_file: bool = False) -> None:
        """Raise InputError if the features that have to be kept do not fit into memory.

        of_file: whether the real images are those of a file, which are not counted.
        """
        widths = [network.widths for network in self.networks]
        reals = [needing_real(metrics) for metrics in self.metrics]
        pairs = [(m.values(), w) for m, w in zip(self.metrics, widths, strict=True)]
        needed = sum(bytes_kept(m, w, self.samples) for m, w in pairs)
        bytes_per_image = sum(bytes_kept(m, w, 1) for m, w in zip(reals, widths, strict=True))
        number = self.batches.number(self.split) if bytes_per_image and not of_file else 0
        what = f"{KEY}: features of {self.samples:,} generated and {number:,} real images"
        limits.require_memory(needed + number * bytes_per_image, what)

    def _warnings(self) -> list[str]:
        """Return what is worth knowing of the numbers, such as that there are few images."""
        lines = protocols.warnings(self.protocol, self.samples, self.learned)
        produced = self.finished.produced.labels if self.finished else ""
        in_turn = produced == sample_labels.ALL_CLASSES if produced else self.order == "turn"
        if in_turn and self.classes and self.real and self.is_of_split:
            found = self._frequencies()
            lines += filter(None, [found.warning(f"{KEY}.labels")] if found else [])
        return lines + (self._beside(self.real).warnings() if self.real else [])

    def _frequencies(self) -> sample_labels.Frequencies | None:
        """Return how often real images are of each class, if that is known."""
        about = self.split_of_labels, self.classes, self.class_names
        return sample_labels.frequencies(self.learned, *about)

    def _beside(self, real: RealFeatures) -> Comparison:
        """Return the comparison with the features of the real images."""
        return Comparison(self.networks, self.metrics, self.samples, real)
