"""Protocols by name: which real images a number is measured against, and how many samples it takes.

A card names its protocol, and `python -m evqgan.benchmark compare` refuses numbers of two.
"""

import dataclasses
from typing import Literal

from evqgan.core.errors import InputError, size_text
from evqgan.data.dataset import Crop, Dataset
from evqgan.evals.image_set import ImageSet


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a name stands for.

    crop: of the real images; None: as config.dataset.crop has it in validation.
    samples: how many generated images the protocol's published numbers are of; 0: any number.
    """

    name: str
    crop: Crop | None
    samples: int


FOLDER = Protocol("folder", crop=None, samples=0)
# 50,000 samples against the training images (Dhariwal and Nichol, 2021), cropped by their loader.
ADM = Protocol("adm", crop="adm", samples=50_000)
# Every image of validation against what the tokenizer makes of it.
RECONSTRUCTION = Protocol("reconstruction", crop=None, samples=0)
OfSamples = Literal["folder", "adm"]  # measured against the images of training
OF_SAMPLES: dict[OfSamples, Protocol] = {"folder": FOLDER, "adm": ADM}


def view(protocol: Protocol, dataset: Dataset, where: str) -> Dataset:
    """Return the data set whose validation view has the protocol's crop.

    where: the key that names the protocol. Raises InputError for images that are not square where
    the crop is.
    """
    height, width = dataset.shape
    if protocol.crop == "adm" and height != width:
        raise InputError(
            f"{where} = {protocol.name!r} is of square images, config.dataset.size is "
            f"{size_text(dataset.shape)}"
        )
    return dataclasses.replace(dataset, crop=protocol.crop or dataset.crop)


def check_reference(
    reference: ImageSet, size: tuple[int, int], crop: str | None, protocol: Protocol, where: str
) -> None:
    """Raise InputError for a reference whose images are of another size or crop than the samples'.

    reference: what the file says; what it does not say is not checked.
    size: (height, width) of the samples.
    crop: as `image_set.crop_of` the images that they are compared with; None: any.
    where: the key that names the file.
    """
    if reference.size and tuple(reference.size) != size:
        theirs, ours = size_text(reference.size), size_text(size)
        raise InputError(
            f"{where}: {reference.source} is of images of {theirs}, samples are of {ours}: make "
            "one of this size by `python -m evqgan.benchmark reference`"
        )
    if reference.digest_of != "file" and crop not in (None, reference.crop):
        raise InputError(
            f"{where}: {reference.source} is of images with the crop {reference.crop!r}, the "
            f"protocol {protocol.name!r} has {crop!r} here: make one of this crop by "
            "`python -m evqgan.benchmark reference`"
        )


def warnings(protocol: Protocol, samples: int, dataset: Dataset | None = None) -> list[str]:
    """Return a sentence for each thing in which samples are not those of published numbers.

    They are more or fewer, or of a model that learned the images of `dataset`, if it is known, with
    another crop.
    """
    lines = []
    if protocol.samples not in (0, samples):
        usual = f"published numbers of the protocol {protocol.name!r} are of {protocol.samples:,}"
        lines.append(f"{samples:,} generated images: {usual}, and an FID depends on their number")
    if dataset and protocol.crop not in (None, dataset.crop):
        learned = f"the model has learned images with config.dataset.crop = {dataset.crop!r}"
        lines.append(f"real images have the crop {protocol.crop!r}, {learned}")
    return lines
