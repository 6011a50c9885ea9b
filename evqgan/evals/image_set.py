"""Which images a number was measured on: the part of a card that names a set of real images."""

import dataclasses
import hashlib
from typing import Any, Literal

import numpy as np

from evqgan.data import transforms
from evqgan.data.dataset import Dataset

ROUNDED = "rounded to the nearest of 0 to 255, clipped"  # `transforms.unscale`
STORED = "as decoded and resized, uint8 throughout"  # real images are never float
UNKNOWN = "the file does not say"

DigestOf = Literal["pixels", "ids", "file"]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of real images, as exactly as it is known.

    source: the data set's name, its folder, or the name of a reference file.
    split: of the data set; "" of a file that does not say.
    count: how many images; None: the file does not say.
    size: (height, width) of the images; None: the file does not say.
    crop: how they were cropped, a value of config.dataset.crop in the view of validation.
    resize: the filters that scaled them.
    pixels: how they became uint8.
    digest: 16 hexadecimal digits of a sha256 of what `digest_of` names: the images as they were
      measured, in order; their stored ids; or the bytes of a reference file that has no card.
    """

    source: str
    split: str
    count: int | None
    size: tuple[int, int] | None
    crop: str
    resize: str
    pixels: str
    digest: str
    digest_of: DigestOf


class Tally:
    """Counts and hashes images while their batches go by.

    The hash is of the digests that the reading threads made of each image (`views.digest`): it
    costs the evaluator nothing, and does not depend on how batches are cut or shared.
    """

    def __init__(self) -> None:
        """Begin with no image."""
        self.count, self._hash = 0, hashlib.sha256()

    def add(self, valid: Any, digest: Any) -> None:
        """Add a batch: valid bool [B], digest uint32 [B,8]. The others fill it up."""
        valid = np.asarray(valid)
        self.count += int(valid.sum())
        self._hash.update(np.ascontiguousarray(np.asarray(digest)[valid], "<u4").data)

    def hash(self) -> str:
        """Return 16 hexadecimal digits of what was added."""
        return self._hash.hexdigest()[:16]

    def image_set(self, dataset: Dataset, split: str) -> ImageSet:
        """Return the set: what was added is all of a split, in the view of validation."""
        return ImageSet(
            source=dataset.folder or dataset.name,
            split=split,
            count=self.count,
            size=dataset.shape,
            crop=crop_of(dataset),
            resize=transforms.FILTERS[crop_of(dataset)],
            pixels=STORED,
            digest=self.hash(),
            digest_of="ids" if dataset.codes else "pixels",
        )


def crop_of(dataset: Dataset) -> str:
    """Return the crop of validation images: those of "resize" and "random_resized" are "centre"."""
    return dataset.crop if dataset.crop in ("adm", "native") else "centre"


def of_file(name: str, digest: str, count: int | None, size: tuple[int, int] | None) -> ImageSet:
    """Return the set that a file without a card stands for."""
    unknown = {"crop": UNKNOWN, "resize": UNKNOWN, "pixels": UNKNOWN}
    return ImageSet(
        source=name, split="", count=count, size=size, digest=digest, digest_of="file", **unknown
    )
