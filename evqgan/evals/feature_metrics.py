"""Numbers about sets of images by their features, which come batch by batch.

To add a metric, add its name to MetricName and an entry to METRICS; then
config.evals.distribution.metrics can name it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from evqgan.core.errors import InputError
from evqgan.metrics import kernel, manifold
from evqgan.metrics.frechet import Gaussian, Moments, frechet_distance
from evqgan.metrics.inception_score import inception_score

MetricName = Literal[
    "frechet",
    "spatial_frechet",
    "mmd",
    "rbf_mmd",
    "score",
    "precision_recall",
    "density_coverage",
]
SUBSET = 1000  # of KID's subsets, as torch-fidelity has it; of smaller sets all images
PARTS = 10  # of the Inception score (Salimans et al., 2016)
# ours: images that are enough where nothing else says it
LEAST = 1000


class Metric(NamedTuple):
    """How numbers come from the features of generated and of real images.

    compute: (generated, real) -> {number: value}. Both are Gaussians, or all features [N,F].
    """

    layer: str  # of the features: "pooled", "spatial" or "logits"
    gaussian: bool  # whether their Gaussian is enough, so that none is kept
    compute: Callable[[Any, Any], dict[str, float]]
    few: str  # what is wrong with its number where there are too few images
    enough: Callable[[int], int] = lambda width: LEAST  # images that would do, by the width
    real: bool = True  # whether it looks at real images


# A covariance needs more images than features (Chong and Forsyth, 2020: the fewer, the larger).
_FRECHET: dict[str, Any] = {
    "few": "it is the larger the fewer there are",
    "enough": lambda width: max(LEAST, width + 1),
}


def _mmd(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    size = min(SUBSET, len(generated), len(real))
    mean, deviation = kernel.kid(generated, real, subset_size=size)
    return {"mmd": mean, "mmd_sd": deviation}


def _score(logits: np.ndarray, _: Any) -> dict[str, float]:
    mean, deviation = inception_score(logits, PARTS)
    return {"score": mean, "score_sd": deviation}


NEIGHBOURS = "neighbours among so few are far apart"
METRICS: dict[str, Metric] = {
    "frechet": Metric("pooled", True, lambda a, b: {"frechet": frechet_distance(a, b)}, **_FRECHET),
    "spatial_frechet": Metric(
        "spatial", True, lambda a, b: {"spatial_frechet": frechet_distance(a, b)}, **_FRECHET
    ),
    "mmd": Metric(
        "pooled", False, _mmd, f"its deviation is over subsets of {SUBSET:,}", lambda width: SUBSET
    ),
    "rbf_mmd": Metric(
        "pooled",
        False,
        lambda a, b: {"rbf_mmd": kernel.rbf_mmd(a, b)},
        "it is the larger the fewer there are",
    ),
    "score": Metric(
        "logits",
        False,
        _score,
        f"each of its {PARTS} parts needs more images than classes",
        lambda width: max(LEAST, PARTS * width),
        real=False,
    ),
    "precision_recall": Metric(
        "pooled", False, lambda a, b: manifold.precision_recall(a, b)._asdict(), NEIGHBOURS
    ),
    "density_coverage": Metric(
        "pooled", False, lambda a, b: manifold.density_coverage(a, b)._asdict(), NEIGHBOURS
    ),
}


@dataclasses.dataclass
class FeatureSet:
    """What metrics need of the features of one set of images.

    metrics: which ones.
    gaussians: {layer: the known one of a reference file}; others come of what is added.
    count: how many images were added, or the file is of; 0: it does not say so.
    """

    metrics: Iterable[Metric] = ()
    gaussians: Mapping[str, Gaussian] = dataclasses.field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self._moments = {metric.layer: Moments() for metric in self.metrics if metric.gaussian}
        self._kept: dict[str, list[np.ndarray]] = {
            metric.layer: [] for metric in self.metrics if not metric.gaussian
        }

    def add(self, features: Mapping[str, np.ndarray], valid: np.ndarray) -> None:
        """Add the features of a batch of images.

        features: {layer: float32 [B,F]}.
        valid: bool [B]; the others fill the batch up, and do not count.
        """
        self.count += int(valid.sum())
        for layer, moments in self._moments.items():
            self._moments[layer] = moments.add(features[layer][valid])
        for layer, kept in self._kept.items():
            kept.append(features[layer][valid])

    def of(self, metric: Metric) -> Any:
        """Return what a metric takes: a Gaussian, or all features [N,F] float32.

        Raises InputError where there are no images, or fewer than two for a covariance.
        """
        if metric.gaussian:
            return self.gaussians.get(metric.layer) or self._moments[metric.layer].gaussian()
        kept = self._kept[metric.layer]
        if not self.count:
            raise InputError("there are no images to compare")
        if len(kept) > 1:
            kept[:] = [np.concatenate(kept)]
        return kept[0]


def bytes_kept(metrics: Iterable[Metric], widths: Mapping[str, int], number: int) -> int:
    """Return the bytes that a set of so many images takes, while its parts become one array.

    widths: {layer: how many features an image has}.
    """
    layers = {metric.layer for metric in metrics if not metric.gaussian}
    return 2 * 4 * number * sum(widths[layer] for layer in layers)


def measure(
    metrics: Mapping[str, Metric], generated: FeatureSet, real: FeatureSet
) -> dict[str, float]:
    """Return {number: value} of all metrics; `names.name_of` says what each is called.

    Raises InputError for too few images.
    """
    found: dict[str, float] = {}
    for metric in metrics.values():
        given = real.of(metric) if metric.real else None
        found |= metric.compute(generated.of(metric), given)
    return found


def too_few(
    metrics: Mapping[str, Metric],
    name_of: Callable[[str], str],
    widths: Mapping[str, int],
    generated: Mapping[str, int],
    real: Mapping[str, int],
) -> list[str]:
    """Return a sentence for each metric that means little of so few images: how many would do.

    name_of: returns what the number of a metric is called.
    widths: {layer: how many features an image has}.
    generated, real: {name of a set: how many images it has; 0: it is not known}.
    """
    lines = []
    for name, metric in metrics.items():
        enough = metric.enough(widths[metric.layer])
        counts = {**generated, **(real if metric.real else {})}
        small = [f"{count:,} {what}" for what, count in counts.items() if 0 < count < enough]
        if small:
            sets = ", ".join(small)
            lines.append(f"{name_of(name)}: {sets} are few, {enough:,} would do: {metric.few}")
    return lines
