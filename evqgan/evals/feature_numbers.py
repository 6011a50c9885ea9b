"""Numbers of generated images beside real ones, by the features of several networks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evqgan.core.errors import InputError
from evqgan.core.npz import Pieces
from evqgan.core.processes import tell
from evqgan.core.progress import counted, heartbeat
from evqgan.evals.feature_metrics import METRICS, FeatureSet, Metric, left_out, measure, too_few
from evqgan.evals.real_images import MetricsPerNetwork, RealFeatures
from evqgan.features.extractor import Extractor


def metrics_per_network(
    names: Sequence[str], networks: Sequence[Extractor], key: str
) -> list[dict[str, Metric]]:
    """Return for each network the metrics of these names that its features have.

    key: of the section that has the keys `features` and `metrics`, for messages.

    Raises InputError if there are none to measure, or one that no network has.
    """
    for name in names:
        if not any(METRICS[name].layer in network.widths for network in networks):
            what = f"{METRICS[name].layer} ones, which no network in {key}features has"
            raise InputError(f"{key}metrics: {name} is of {what}")
    if not names or not networks:
        raise InputError(f"{key}features and {key}metrics: one of each is needed")
    return [
        {name: METRICS[name] for name in names if METRICS[name].layer in network.widths}
        for network in networks
    ]


def features_of_finished(
    images: Pieces, networks: Sequence[Extractor], metrics: MetricsPerNetwork
) -> list[FeatureSet]:
    """Return what is needed of the features of images that are there, for each network.

    images: uint8 [N,H,W,3].
    """
    sets = [FeatureSet(some.values()) for some in metrics]
    done, number = 0, images.shape[0]
    with heartbeat(f"measuring {counted(number, 'finished sample')}", tell) as at:
        for piece in images.pieces:
            for network, found in zip(networks, sets, strict=True):
                for features, valid in network.pieces(piece):
                    found.add(features, valid)
            done += len(piece)
            at(done, number)
    return sets


class Comparison:
    """So many generated images beside the features of real ones.

    real: of the same networks and metrics.
    """

    def __init__(
        self,
        networks: Sequence[Extractor],
        metrics: MetricsPerNetwork,
        generated: int,
        real: RealFeatures,
    ) -> None:
        """Take them; nothing is computed."""
        self.networks, self.metrics = networks, metrics
        self.generated, self.real = generated, real

    def check(self) -> None:
        """Raise InputError if there are too few images for all of the metrics."""
        missing = [left_out(m, n.name_of, *counts) for n, m, counts in self._counted()]
        if sum(map(len, missing)) == sum(map(len, self.metrics)):
            raise InputError("; ".join(line for some in missing for line in some.values()))

    def numbers(self, generated: Sequence[FeatureSet]) -> Iterator[tuple[str, float]]:
        """Yield (name, value), but for what needs more images than there are.

        generated: of each network, of `self.generated` images.
        """
        sets = zip(self.networks, self.metrics, generated, self.real.sets, strict=True)
        for network, metrics, made, real in sets:
            for name, value in measure(metrics, made, real).items():
                yield network.name_of(name), value

    def warnings(self) -> list[str]:
        """Return what is worth knowing of the numbers, such as that there are few images."""
        lines = list(self.real.notes)
        for network, metrics, counts in self._counted():
            lines += too_few(metrics, network.name_of, network.widths, *counts)
        return lines

    def _counted(self) -> Iterator[tuple[Extractor, Mapping[str, Metric], Any]]:
        """Yield each network, its metrics, and how many images of each set there are."""
        for network, metrics, real in zip(self.networks, self.metrics, self.real.sets, strict=True):
            yield (
                network,
                metrics,
                ({"generated images": self.generated}, {"real images": real.count}),
            )
