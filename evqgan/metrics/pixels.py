"""Images as few numbers, without a network."""

import numpy as np

from evqgan.core.errors import InputError
from evqgan.metrics import chunks

FRECHET_SIDE = 8  # ours: 192 numbers, fewer than the images that their covariance is of
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def check_images(*sets: np.ndarray) -> None:
    """Raise InputError unless all sets are images uint8 [N,H,W,3] of one size, N from 0."""
    arrays = [np.asarray(images) for images in sets]
    sizes = {images.shape[1:] for images in arrays}
    are_images = all(x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] == 3 for x in arrays)
    if len(sizes) > 1 or not are_images:
        found = ", ".join(f"{images.dtype} {list(images.shape)}" for images in arrays)
        raise InputError(
            "samples and real images must be uint8 [N,H,W,3] of one size to be compared, got "
            f"{found}"
        )


def features(images: np.ndarray, side: int, colour: bool) -> np.ndarray:
    """Return float32 [N,F] in [0, 1] of uint8 [N,H,W,3].

    In grey or `colour`, averaged by area to at most `side` x `side`.
    """
    images = np.asarray(images)
    rows, columns = averaging(images.shape[1], side), averaging(images.shape[2], side)
    channels = np.eye(3) / 255 if colour else np.array(GREY)[:, None] / 255
    found = []
    for part in chunks.slices(len(images), images[0].size):
        coloured = np.moveaxis(images[part] @ channels, -1, 1)  # float64 [n,C,H,W]
        small = np.moveaxis(rows @ coloured @ columns.T, 1, -1)
        found.append(small.reshape(len(small), -1).astype(np.float32))
    return np.concatenate(found)


def colours(images: np.ndarray) -> np.ndarray:
    """Return float32 [N,192] in [0, 1] of uint8 [N,H,W,3], fewer of images with a side below 8.

    They are the `features` of which a Frechet distance needs no network: colours averaged by area
    down to at most 8x8. It is no FID.
    """
    return features(images, FRECHET_SIDE, colour=True)


def averaging(side: int, most: int) -> np.ndarray:
    """Return float64 [min(side, most), side]: each row averages a share of the pixels, by area."""
    small = min(side, most)
    edges = np.arange(small + 1) * side / small
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * small / side
