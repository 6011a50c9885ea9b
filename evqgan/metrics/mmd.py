"""Maximum mean discrepancies of two sets of features: KID, and the distance of CMMD.

MMD^2 is E k(x,x') + E k(y,y') - 2 E k(x,y) (Gretton et al., 2012): 0 for equal distributions, with
no Gaussian assumed. Kernels are summed in float64, tile by tile, so that memory does not grow.
"""

from collections.abc import Callable

import numpy as np

from evqgan.core.errors import InputError
from evqgan.metrics import chunks

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x [n,F], y [m,F] -> [n,m]


def kid(
    generated: np.ndarray,
    real: np.ndarray,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """Return the mean and the standard deviation of `polynomial_mmd` over random subsets.

    The kernel inception distance (Binkowski et al., 2018, Section 4) of Inception's pooled
    features. Subsets are drawn without replacement, and the deviation is divided by their number,
    as in torch-fidelity.

    generated: [N,F] of any real dtype. real: [M,F].
    subsets: how many; subset_size: of how many images of each set, at most N and M, 2 or more.
    seed: of the draws.

    Raises InputError for sets smaller than a subset, NaN and infinity.
    """
    if subsets < 1 or subset_size < 2:
        raise InputError(
            f"KID needs one subset or more of two images or more, got {subsets} of {subset_size}"
        )
    generated, real = chunks.checked_pair(generated, real)
    if min(len(generated), len(real)) < subset_size:
        raise InputError(
            f"KID of subsets of {subset_size:,} needs as many images, got {len(generated):,} "
            f"generated and {len(real):,} real ones: give more, or a smaller subset_size"
        )
    rng, found = np.random.RandomState(seed), []
    for _ in range(subsets):
        x, y = (some[rng.choice(len(some), subset_size, False)] for some in (generated, real))
        found.append(polynomial_mmd(x, y))
    return float(np.mean(found)), float(np.std(found))


def polynomial_mmd(generated: np.ndarray, real: np.ndarray) -> float:
    """Return the unbiased MMD^2 with the kernel (x.y / F + 1)^3, over all pairs.

    It is below 0 about half of the time where the distributions are equal (Binkowski et al., 2018,
    Sections 2 and 4).

    generated: [N,F] of any real dtype, N from 2. real: [M,F], M from 2.

    Raises InputError for fewer, NaN and infinity.
    """
    generated, real = chunks.checked_pair(generated, real, least=2)
    within = 0.0
    for features in (generated, real):
        number = len(features)
        total = _sum_of_pairs(features, features, _polynomial)
        within += (total - _sum_of_own(features)) / (number * (number - 1))
    across = _sum_of_pairs(generated, real, _polynomial) / (len(generated) * len(real))
    return within - 2 * across


def rbf_mmd(
    generated: np.ndarray, real: np.ndarray, sigma: float = 10.0, scale: float = 1000.0
) -> float:
    """Return the biased MMD^2 with the kernel exp(-|x - y|^2 / (2 sigma^2)), times `scale`.

    With these defaults, and CLIP's normalized embeddings of images, it is CMMD (Jayasumana et al.,
    2024, Section 4). Biased means that an image is paired with itself, too: a V-statistic, of 0 or
    more, and 0 for equal sets.

    generated: [N,F] of any real dtype. real: [M,F].

    Raises InputError for empty sets, NaN and infinity.
    """
    generated, real = chunks.checked_pair(generated, real)
    origin = real.mean(axis=0, dtype=np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(-chunks.squared_distances(x, y) / (2 * sigma**2))

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return _sum_of_pairs(a, b, kernel, origin) / (len(a) * len(b))

    found = mean(generated, generated) + mean(real, real) - 2 * mean(generated, real)
    return scale * max(found, 0.0)  # rounding alone makes it negative


def _polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return KID's kernel of all pairs [n,m] of x [n,F] and y [m,F]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _sum_of_pairs(
    a: np.ndarray, b: np.ndarray, kernel: Kernel, origin: np.ndarray | float = 0.0
) -> float:
    """Return the sum of a kernel over all pairs of a row of a [N,F] and one of b [M,F]."""
    return sum(float(kernel(x, y).sum()) for _, _, x, y in chunks.tiles(a, b, origin))


def _sum_of_own(features: np.ndarray) -> float:
    """Return the sum of KID's kernel over the pairs of a row of [N,F] and itself."""
    total = 0.0
    for rows in chunks.slices(*features.shape):
        x = features[rows].astype(np.float64)
        total += float(np.sum((np.einsum("nf,nf->n", x, x) / x.shape[1] + 1) ** 3))
    return total
