"""What all metrics share: checks of features, and work in chunks of bounded memory."""

import math
from collections.abc import Iterator

import numpy as np

from evqgan.core.errors import InputError

CHUNK = 1 << 23  # float64 numbers in one chunk: 64 MiB


def checked_features(
    features: np.ndarray, least: int = 1, width: int | None = None, name: str = "features"
) -> np.ndarray:
    """Return features [N,F] as an array of the dtype that they have.

    features: integers or floats.
    least: the fewest rows that the caller can use.
    width: the F that is expected; None: any from 1.
    name: for the message.

    Raises InputError for another shape or dtype, too few rows, NaN and infinity.
    """
    array = np.asarray(features)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        found = f"{array.dtype} {list(array.shape)}"
        raise InputError(f"{name} must be real numbers of shape [N,F], got {found}")
    if width is not None and array.shape[1] != width:
        raise InputError(f"{name} must have {width:,} numbers each, got {array.shape[1]:,}")
    if len(array) < least:
        raise InputError(f"{name} must be of {least:,} images or more, got {len(array):,}")
    check_finite(array, name)
    return array


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise InputError if a float array holds NaN or infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = array.sum(dtype=np.float64)  # no copy of the array, and not finite if one is not
    if not np.isfinite(total):
        raise InputError(f"{name} hold NaN or infinity")


def checked_pair(
    generated: np.ndarray, real: np.ndarray, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return `checked_features` of generated [N,F] and of real [M,F] ones, of one F."""
    real = checked_features(real, least, name="features of real images")
    width = real.shape[1]
    return checked_features(generated, least, width, "features of generated images"), real


def slices(number: int, width: int) -> Iterator[slice]:
    """Yield slices that cut `number` rows of `width` numbers into chunks, in order.

    A chunk has at most CHUNK numbers, but one row at least.
    """
    step = max(1, CHUNK // width)
    for start in range(0, number, step):
        yield slice(start, min(start + step, number))


def tiles(
    a: np.ndarray, b: np.ndarray, origin: np.ndarray | float = 0.0
) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
    """Yield chunks of two arrays, so that each row of one meets each row of the other once.

    a: [N,F]. b: [M,F].
    origin: float64 [F], subtracted from both. Distances do not depend on it, but their rounding
      does: the mean of the data is best where this is far from 0.
    Yields the rows i of `a` and j of `b`, and these as float64: x = a[i] - origin [n,F] and
      y = b[j] - origin [m,F]. None of x, y and an array [n,m] has more than CHUNK numbers.
    """
    width = max(a.shape[1], math.isqrt(CHUNK))
    for i in slices(len(a), width):
        x = a[i].astype(np.float64) - origin
        for j in slices(len(b), width):
            yield i, j, x, b[j].astype(np.float64) - origin


def squared_distances(x: np.ndarray, y: np.ndarray, integers: bool = False) -> np.ndarray:
    """Return the squared Euclidean distances [n,m] of x [n,F] to y [m,F], all float64.

    Equal rows are at 0: what is within rounding of 0 is 0.

    integers: whether x and y hold whole numbers, with sums of squares below 2^53: then nothing is
      rounded, and all distances are exact.
    """
    lengths = np.einsum("nf,nf->n", x, x)[:, None] + np.einsum("mf,mf->m", y, y)
    squared = lengths - 2 * (x @ y.T)
    if integers:
        return squared
    # ours: the rounding of sums of F products, measured, which is below that of float32 features
    rounding = (8 + x.shape[1] / 16) * np.finfo(np.float64).eps
    return np.where(squared > rounding * lengths, squared, 0.0)
