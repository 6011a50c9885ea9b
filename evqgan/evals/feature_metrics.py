"""Numbers about sets of images by their features, which come batch by batch.

To add a metric, add its name to MetricName and an entry to METRICS; then
config.evals.distribution.metrics can name it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.metrics import manifold, mmd
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
    numbers: tuple[str, ...]  # the names of what it computes
    compute: Callable[[Any, Any], dict[str, float]]
    few: str  # what is wrong with its number where there are too few images
    least: int  # images of each set below which there is no number
    enough: Callable[[int], int] = lambda width: LEAST  # images that would do, by the width
    real: bool = True  # whether it looks at real images
    higher: tuple[str, ...] = ()  # its numbers that are the better the higher they are


def _frechet(name: str, layer: str) -> Metric:
    """Return the Frechet distance of a layer's features, which is called `name`."""
    return Metric(
        layer=layer,
        gaussian=True,
        numbers=(name,),
        compute=lambda a, b: {name: frechet_distance(a, b)},
        few="it is the larger the fewer there are",  # Chong and Forsyth (2020)
        least=2,
        enough=lambda width: max(LEAST, width + 1),  # a covariance needs more than features
    )


def _mmd(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    size = min(SUBSET, len(generated), len(real))
    mean, deviation = mmd.kid(generated, real, subset_size=size)
    return {"mmd": mean, "mmd_sd": deviation}


def _score(logits: np.ndarray, _: Any) -> dict[str, float]:
    mean, deviation = inception_score(logits, PARTS)
    return {"score": mean, "score_sd": deviation}


NEIGHBOURS = "neighbours among so few are far apart"
METRICS: dict[str, Metric] = {
    "frechet": _frechet("frechet", "pooled"),
    "spatial_frechet": _frechet("spatial_frechet", "spatial"),
    "mmd": Metric(
        layer="pooled",
        gaussian=False,
        numbers=("mmd", "mmd_sd"),
        compute=_mmd,
        few=f"its deviation is over subsets of {SUBSET:,}",
        least=2,
        enough=lambda width: SUBSET,
    ),
    "rbf_mmd": Metric(
        layer="pooled",
        gaussian=False,
        numbers=("rbf_mmd",),
        compute=lambda a, b: {"rbf_mmd": mmd.rbf_mmd(a, b)},
        few="it is the larger the fewer there are",
        least=1,
    ),
    "score": Metric(
        layer="logits",
        gaussian=False,
        numbers=("score", "score_sd"),
        compute=_score,
        few=f"each of its {PARTS} parts needs more images than classes",
        least=PARTS,
        enough=lambda width: max(LEAST, PARTS * width),
        real=False,
        higher=("score",),
    ),
    "precision_recall": Metric(
        layer="pooled",
        gaussian=False,
        numbers=manifold.PrecisionRecall._fields,
        compute=lambda a, b: manifold.precision_recall(a, b)._asdict(),
        few=NEIGHBOURS,
        least=4,  # three neighbours beside it
        higher=manifold.PrecisionRecall._fields,
    ),
    "density_coverage": Metric(
        layer="pooled",
        gaussian=False,
        numbers=manifold.DensityCoverage._fields,
        compute=lambda a, b: manifold.density_coverage(a, b)._asdict(),
        few=NEIGHBOURS,
        least=6,  # five neighbours beside it
        higher=manifold.DensityCoverage._fields,
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

    def is_enough(self, metric: Metric) -> bool:
        """Return whether there are as many images as a metric needs; InputError if there are none.

        Where a reference file does not say how many it is of, they are enough.
        """
        if not self.count and metric.layer not in self.gaussians:
            raise InputError("there are no images to compare")
        return not self.count or self.count >= metric.least

    def of(self, metric: Metric) -> Any:
        """Return what a metric takes: a Gaussian, or all features [N,F] float32.

        Raises InputError for fewer than two images where there is to be a Gaussian.
        """
        if metric.gaussian:
            return self.gaussians.get(metric.layer) or self._moments[metric.layer].gaussian()
        kept = self._kept[metric.layer]
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
    """Return {number: value}; `names.name_of` says what each is called.

    A metric of fewer images than it needs is left out: see `left_out`. Raises InputError for none.
    """
    found: dict[str, float] = {}
    for metric in metrics.values():
        sets = [generated, real] if metric.real else [generated]
        if all([one.is_enough(metric) for one in sets]):
            given = real.of(metric) if metric.real else None
            found |= metric.compute(generated.of(metric), given)
    return found


def left_out(
    metrics: Mapping[str, Metric],
    name_of: Callable[[str], str],
    generated: Mapping[str, int],
    real: Mapping[str, int],
) -> dict[str, str]:
    """Return {metric: a sentence} for those that `measure` leaves out. Arguments: see `too_few`."""
    found = {}
    for name, metric in metrics.items():
        counts = {**generated, **(real if metric.real else {})}
        if small := _below(metric.least, counts):
            found[name] = f"no {name_of(name)}: it needs {metric.least:,} or more, got {small}"
    return found


def _below(least: int, counts: Mapping[str, int]) -> str:
    """Return which sets have fewer images, as "1 sample, 2 real images"; "" if none is known to."""
    small = {what: count for what, count in counts.items() if 0 < count < least}
    return ", ".join(counted(count, what.removesuffix("s")) for what, count in small.items())


def too_few(
    metrics: Mapping[str, Metric],
    name_of: Callable[[str], str],
    widths: Mapping[str, int],
    generated: Mapping[str, int],
    real: Mapping[str, int],
) -> list[str]:
    """Return a sentence for each metric that means little of so few images: how many would do.

    And for those that are left out of even fewer.

    name_of: returns what the number of a metric is called.
    widths: {layer: how many features an image has}.
    generated, real: {name of a set: how many images it has; 0: it is not known}.
    """
    missing, lines = left_out(metrics, name_of, generated, real), []
    for name, metric in metrics.items():
        enough = metric.enough(widths[metric.layer])
        small = _below(enough, {**generated, **(real if metric.real else {})})
        if name in missing:
            lines.append(missing[name])
        elif small:
            lines.append(f"{name_of(name)}: {small} are few, {enough:,} would do: {metric.few}")
    return lines
