"""Samples that another program made: a folder of images, or an `.npz` as ADM's sampler has it."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from evqgan.core.errors import InputError, size_text
from evqgan.core.npz import Again, Pieces
from evqgan.core.progress import counted
from evqgan.data import image_files, transforms, views
from evqgan.evals.finished import READ
from evqgan.evals.image_set import UNKNOWN, Tally
from evqgan.evals.provenance import ForeignModel, Produced
from evqgan.metrics.references import load_images


class ForeignSamples(NamedTuple):
    """Samples of another program.

    images: uint8 [N,H,W,3], as they were decoded, neither scaled nor cropped. Once they have been
      gone through, `tally` has their hash.
    """

    name: str
    images: Pieces
    tally: Tally

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of each."""
        return self.images.shape[1], self.images.shape[2]

    def model(self) -> ForeignModel:
        """Return what is known of the model, after all images were gone through."""
        return ForeignModel(self.name, self.tally.hash())

    def produced(self) -> Produced:
        """Return what a card says of the images."""
        return Produced("samples", self.images.shape[0], self.size, pixels=UNKNOWN, labels=UNKNOWN)


def read(place: str | os.PathLike[str]) -> ForeignSamples:
    """Return the samples in a folder, in the order of their paths, or in `arr_0` of an `.npz`.

    Grey images and transparent ones become RGB as in training, over white.

    Raises InputError for what is neither, for fewer than two images, and, here or while they are
    gone through, for images that do not decode or that are not all of one size.
    """
    path = pathlib.Path(place)
    if path.is_dir():
        found = _of_folder(path)
    elif path.is_file() and path.suffix.lower() in image_files.EXTENSIONS:
        raise InputError(f"expected a folder of images, or an .npz of them, got the image {place}")
    elif path.is_file():
        found = load_images(path, READ)
    else:
        raise InputError(f"there is no {place}: expected a folder of images, or an .npz of them")
    if found.shape[0] < 2:
        number = counted(found.shape[0], "image")
        raise InputError(f"{place} holds {number}: two or more are needed")
    tally = Tally()

    def counted_pieces() -> Iterator[np.ndarray]:
        for piece in found.pieces:
            tally.add(np.ones(len(piece), bool), np.stack([views.digest(x) for x in piece]))
            yield piece

    return ForeignSamples(path.name, found._replace(pieces=Again(counted_pieces)), tally)


def _of_folder(path: pathlib.Path) -> Pieces:
    """Return the images below a folder, READ at a time."""
    names = image_files.image_paths(str(path))
    size = _decoded(path / names[0]).shape

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, len(names), READ):
            piece = np.empty((len(names[start : start + READ]), *size), np.uint8)
            for i, name in enumerate(names[start : start + READ]):
                image = _decoded(path / name)
                if image.shape != size:
                    sizes = size_text(image.shape[:2]), size_text(size[:2])
                    raise InputError(
                        f"{path / name} is of {sizes[0]}, {names[0]} of {sizes[1]}: samples are "
                        "measured as they are, and have to be of one size"
                    )
                piece[i] = image
            yield piece

    return Pieces((len(names), *size), np.dtype(np.uint8), Again(pieces))


def _decoded(file: pathlib.Path) -> np.ndarray:
    """Return an image uint8 [H,W,3]; InputError, which names it, if it does not decode."""
    try:
        return transforms.decode(transforms.read_bytes(file))
    except ValueError as error:
        raise InputError(f"{file} does not decode: {error}") from error
