"""Whether samples are copies of training images: how far the nearest one is."""

import numpy as np

from evqgan.metrics import chunks
from evqgan.metrics.pixels import check_images


def nearest(
    images: np.ndarray, train_images: np.ndarray, heldout_images: np.ndarray
) -> dict[str, float]:
    """Return the distance of each sample to its nearest training image, summarized.

    Samples that lie much nearer than held-out images are copies of what the model was trained on.
    A distance is the root mean square difference over all values, in grey levels (0 to 255). It is
    exact, as sums of squares of bytes fit a float64: so a copy is at 0.

    images, train_images, heldout_images: uint8 [N,H,W,3] of one size, with N of their own.

    nearest_mean, nearest_min, nearest_q05, nearest_copies: of the samples, the last two the 5 %
      quantile and the share at distance 0.
    heldout_nearest_mean, ...: the same of real images held out from training.

    Raises InputError for other sizes and dtypes.
    """
    check_images(images, train_images, heldout_images)
    numbers = {}
    for prefix, some in (("", images), ("heldout_", heldout_images)):
        distances = _to_nearest(np.asarray(some), np.asarray(train_images))
        numbers[prefix + "nearest_mean"] = float(distances.mean())
        numbers[prefix + "nearest_min"] = float(distances.min())
        numbers[prefix + "nearest_q05"] = float(np.quantile(distances, 0.05))
        numbers[prefix + "nearest_copies"] = float((distances == 0).mean())
    return numbers


def _to_nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return float64 [N], the distance of each of uint8 [N,H,W,3] to the nearest of [M,H,W,3]."""
    a, b = images.reshape(len(images), -1), others.reshape(len(others), -1)
    squared = np.full(len(a), np.inf)
    for i, _, x, y in chunks.tiles(a, b):
        distances = chunks.squared_distances(x, y, integers=True)
        squared[i] = np.minimum(squared[i], distances.min(axis=1))
    return np.sqrt(squared / a.shape[1])
