"""Precision and recall, density and coverage: which set lies in the other's neighbourhood.

A set of features is taken as the union of balls about each of them, which reach to its k-th nearest
neighbour in the set. Distances are of float64, tile by tile, so that memory does not grow.
"""

from typing import NamedTuple

import numpy as np

from evqgan.core.errors import InputError
from evqgan.metrics import chunks


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1."""

    precision: float  # of generated images in a ball of real ones: fidelity
    recall: float  # of real images in a ball of generated ones: diversity


class DensityCoverage(NamedTuple):
    """Numbers about balls of real images, in which outliers of the generated ones do not count."""

    density: float  # mean number of balls about a generated image, over k: 0 or more, about 1
    coverage: float  # share of real images with a generated one in their ball, from 0 to 1


def precision_recall(generated: np.ndarray, real: np.ndarray, k: int = 3) -> PrecisionRecall:
    """Return the improved precision and recall (Kynkaanniemi et al., 2019, Section 2).

    A ball has its border, as in the paper's Eq. 1 and in torch-fidelity.

    generated: features [N,F] of any real dtype. real: [M,F].
    k: which neighbour is at a ball's border, below N and M.

    Raises InputError for k images or fewer, NaN and infinity.
    """
    generated, real, origin = _checked(generated, real, k)
    real_radii = _squared_radii(real, k, origin)
    radii = _squared_radii(generated, k, origin)
    precise, recalled = np.zeros(len(generated), bool), np.zeros(len(real), bool)
    for i, j, x, y in chunks.tiles(generated, real, origin):
        squared = chunks.squared_distances(x, y)
        precise[i] |= (squared <= real_radii[j]).any(axis=1)
        recalled[j] |= (squared <= radii[i, None]).any(axis=0)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(generated: np.ndarray, real: np.ndarray, k: int = 5) -> DensityCoverage:
    """Return density and coverage (Naeem et al., 2020, Section 3).

    A ball has no border, as in the code that the authors published.

    generated: features [N,F] of any real dtype. real: [M,F].
    k: which neighbour is at a ball's border, below N and M.

    Raises InputError for k images or fewer, NaN and infinity.
    """
    generated, real, origin = _checked(generated, real, k)
    real_radii = _squared_radii(real, k, origin)
    balls, nearest = 0, np.full(len(real), np.inf)
    for _, j, x, y in chunks.tiles(generated, real, origin):
        squared = chunks.squared_distances(x, y)
        balls += int((squared < real_radii[j]).sum())
        nearest[j] = np.minimum(nearest[j], squared.min(axis=0))
    return DensityCoverage(balls / (k * len(generated)), float((nearest < real_radii).mean()))


def _checked(
    generated: np.ndarray, real: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both sets and the real ones' mean [F], about which distances are computed."""
    if k < 1:
        raise InputError(f"neighbours are counted from 1, got k = {k}")
    generated, real = chunks.checked_pair(generated, real, least=k + 1)
    return generated, real, real.mean(axis=0, dtype=np.float64)


def _squared_radii(features: np.ndarray, k: int, origin: np.ndarray) -> np.ndarray:
    """Return float64 [N], the squared distance of each row [N,F] to its k-th nearest other row."""
    smallest = np.full((len(features), k + 1), np.inf)  # itself among them, at 0
    for i, _, x, y in chunks.tiles(features, features, origin):
        candidates = np.concatenate([smallest[i], chunks.squared_distances(x, y)], axis=1)
        smallest[i] = np.partition(candidates, k, axis=1)[:, : k + 1]
    return smallest.max(axis=1)
