"""Augmentation: crop and flip of training images, centre crop of validation, an image's hash."""

import hashlib

import numpy as np

from evqgan.data import transforms
from evqgan.data.dataset import Dataset


def training_view(image: np.ndarray, dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """Return image uint8 [H',W',3] as [H,W,3] of dataset.size, cropped and flipped at random."""
    if dataset.crop == "random_resized":
        view = transforms.random_resized_crop(image, dataset.shape, rng, dataset.min_scale)
    elif dataset.crop in ("centre", "adm"):
        view = validation_view(image, dataset)
    else:
        view = transforms.random_crop(_covering(image, dataset), dataset.shape, rng)
    return transforms.random_flip(view, rng) if dataset.flip else view


def validation_view(image: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return the centre of image uint8 [H',W',3], [H,W,3] of dataset.size."""
    if dataset.crop == "adm":
        return transforms.adm_crop(image, dataset.shape[0])
    return transforms.centre_crop(_covering(image, dataset), dataset.shape)


def _covering(image: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return the image at the scale that is cropped.

    With crop "native" that is its own, unless it is too small.
    """
    large = all(have >= want for have, want in zip(image.shape, dataset.shape, strict=False))
    return image if dataset.crop == "native" and large else transforms.cover(image, dataset.shape)


def numbered_view(
    image: np.ndarray, dataset: Dataset, seed: int, index: int, number: int
) -> np.ndarray:
    """Return view `number` of example `index`, to be stored.

    It is `training_view` by (seed, index, number) alone.
    """
    return training_view(image, dataset, np.random.default_rng((seed, index, number)))


def digest(array: np.ndarray) -> np.ndarray:
    """Return the sha256 of an image's pixels or ids as uint32 [8], the same on every machine."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return np.frombuffer(hashlib.sha256(little.data).digest(), "<u4").astype(np.uint32)
