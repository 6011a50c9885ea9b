"""The Frechet distance of two sets of features, each taken as a Gaussian: FID and sFID.

FID (Heusel et al., 2017) is this of Inception's pooled features, sFID (Nash et al., 2021) of its
spatial ones; of features of another network it is neither.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from evqgan.core.errors import InputError
from evqgan.metrics import chunks


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """The normal distribution that has the mean and the covariance of a set of features.

    Raises InputError for other shapes, NaN and infinity, and a matrix that is no covariance.
    """

    mean: np.ndarray  # float64 [F]
    covariance: np.ndarray  # float64 [F,F], unbiased: divided by the count less one
    count: int | None = None  # how many images; None: unknown, as in files of others

    def __post_init__(self) -> None:
        """Turn both arrays into float64, and check them."""
        mean, covariance = (np.asarray(x, np.float64) for x in (self.mean, self.covariance))
        if mean.ndim != 1 or not len(mean) or covariance.shape != 2 * mean.shape:
            raise InputError(
                "a Gaussian has a mean [F] and a covariance [F,F], got "
                f"{list(mean.shape)} and {list(covariance.shape)}"
            )
        chunks.check_finite(mean, "the means of features")
        chunks.check_finite(covariance, "the covariances of features")
        variances = np.diagonal(covariance)
        # ours: float32 files are symmetric to 1e-7
        allowed = 1e-5 * np.abs(variances).max()
        if variances.min() < -allowed or np.abs(covariance - covariance.T).max() > allowed:
            raise InputError(
                "a covariance is symmetric, with variances of 0 or more on its diagonal: "
                "this matrix is none"
            )
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Sums over features from which their Gaussian comes, to be added in any order.

    `Moments()` is of no features. Sums are about the mean, so that a large mean costs no digits;
    parts are merged by Chan, Golub and LeVeque (1979). Each process adds its own images, and the
    sum over processes is `sum(parts, Moments())`, each made anew from its three fields.
    """

    count: int = 0
    mean: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # float64 [F]
    # float64 [F,F]: the sum over images of (x - mean) (x - mean)^T
    scatter: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, features: np.ndarray) -> Moments:
        """Return the moments of these and further features; `self` stays as it is.

        features: [n,F] of any real dtype, n from 0; summed in float64, some 64 MiB at a time.

        Raises InputError for another F than before, NaN and infinity.
        """
        features = chunks.checked_features(features, 0, len(self.mean) if self.count else None)
        total = self
        for rows in chunks.slices(*features.shape):
            x = features[rows].astype(np.float64)
            mean = x.mean(axis=0)
            x -= mean
            total = total + Moments(len(x), mean, x.T @ x)
        return total

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both parts; InputError if their F differ."""
        if not self.count or not other.count:
            return self if self.count else other
        if self.mean.shape != other.mean.shape:
            raise InputError(
                f"features of {len(self.mean):,} and of {len(other.mean):,} numbers do not add up"
            )
        count = self.count + other.count
        step = other.mean - self.mean
        between = np.outer(step, step * (self.count * other.count / count))
        mean = self.mean + step * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    def gaussian(self) -> Gaussian:
        """Return the Gaussian of all features added; InputError for fewer than two images."""
        if self.count < 2:
            raise InputError(f"a covariance needs two images or more, got {self.count}")
        return Gaussian(self.mean, self.scatter / (self.count - 1), self.count)


def gaussian(features: np.ndarray) -> Gaussian:
    """Return the Gaussian of features [N,F]; InputError as in `Moments`."""
    return Moments().add(features).gaussian()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), of 0 or more.

    The distance of Gaussians (Dowson and Landau, 1982) by which Heusel et al. (2017) define FID.

    The trace of the root is the sum of the singular values of C1^(1/2) C2^(1/2). It equals that of
    the root's eigenvalues (torch-fidelity) and of the matrix root (pytorch-fid, ADM), and is exact
    for covariances without full rank, too. A distance within rounding of 0 is 0.

    Raises InputError if a and b are of other sizes.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(
            f"features of {len(a.mean):,} and of {len(b.mean):,} numbers have no distance: "
            "both sets must be of one network and layer"
        )
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    root_a, root_b = _root(a.covariance), _root(b.covariance)
    overlap = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    distance = np.sum((a.mean - b.mean) ** 2) + traces - 2 * overlap
    rounding = len(a.mean) * np.finfo(np.float64).eps * traces
    return float(distance) if distance > rounding else 0.0


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return R float64 [F,r] with R R^T = covariance [F,F], where r is its rank.

    Eigenvalues within rounding of 0 are left out, negative ones among them.
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
