"""Statistics of reference sets on disk, as pytorch-fid, clean-fid and ADM write and read them.

All three are `.npz` files with `mu` [F] and `sigma` [F,F] of the pooled features; ADM's have
`mu_s` and `sigma_s` of the spatial ones as well, and may hold images in `arr_0`, beside these or in
their place. Ours say in `count` of how many images they are, and in `card`, as JSON, of which
images and features; the others pass over both.
"""

import os
import pathlib
import shlex
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from evqgan.core import npz, stores
from evqgan.core.errors import InputError, first_line
from evqgan.metrics.frechet import Gaussian

UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError),  # the last one of encrypted members
)


IMAGES = "arr_0"  # where ADM's evaluator looks for images


class Reference(NamedTuple):
    """Gaussians of one reference set."""

    pooled: Gaussian
    spatial: Gaussian | None = None  # None: not in the file
    card: str = ""  # JSON; "": not in the file, which is another program's


def save_reference(path: str | os.PathLike[str], reference: Reference) -> None:
    """Write a reference `.npz`, whole or not at all, float64.

    pytorch-fid and clean-fid read it, and ADM's evaluator if it has spatial features.

    Raises InputError if `path` cannot be written.
    """
    pooled, spatial, card = reference
    arrays = {"mu": pooled.mean, "sigma": pooled.covariance}
    if spatial:
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
    if pooled.count is not None:
        arrays["count"] = np.asarray(pooled.count)
    if card:
        arrays["card"] = np.asarray(card)
    npz.save(path, **arrays)


def load_reference(
    path: str | os.PathLike[str], width: int | None = None, spatial_width: int | None = None
) -> Reference:
    """Return what a reference `.npz` of pytorch-fid, clean-fid, ADM or ours holds.

    width, spatial_width: how many pooled and spatial features there must be (2048 and 2023 of
      Inception); None: any number, and of spatial ones maybe none.

    Raises InputError, which names the file, for one that is no such file, or of other sizes, or
    without the spatial features asked for. Nothing in it is executed.
    """
    file = pathlib.Path(path)
    try:
        with npz.opened(file) as archive:
            if "mu" not in archive or "sigma" not in archive:
                raise InputError(f"it holds {', '.join(archive)[:200] or 'nothing'}")
            count = int(archive["count"]) if "count" in archive else None
            card = str(archive["card"].item()) if "card" in archive else ""
            pooled = Gaussian(_real(archive["mu"]), _real(archive["sigma"]), count)
            spatial = None
            if "mu_s" in archive and "sigma_s" in archive:
                spatial = Gaussian(_real(archive["mu_s"]), _real(archive["sigma_s"]), count)
    except UNREADABLE as error:
        raise InputError(
            f"{file} is not a reference with mu and sigma of features: {first_line(error)}"
        ) from error
    for found, wanted, name in ((pooled, width, "pooled"), (spatial, spatial_width, "spatial")):
        if wanted is not None and (found is None or len(found.mean) != wanted):
            of_file = f"{len(found.mean):,}" if found else "none"
            raise InputError(f"{file} must be of {wanted:,} {name} features, it has {of_file}")
    return Reference(pooled, spatial, card)


def holds(path: str | os.PathLike[str]) -> set[str]:
    """Return the names of the arrays in a `.npz`; InputError if it is none."""
    if os.path.isdir(path):
        command = f"reference --folder={shlex.quote(str(path))} --size=SIZE --out=FILE.npz"
        raise InputError(
            f"{path} is a folder: make a reference of its images by `python -m evqgan.benchmark "
            f"{command}`, and give that file"
        )
    try:
        with npz.opened(path) as archive:
            return set(archive)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}{stores.beginning(path)}: give a reference, or a split"
        ) from error
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a reference with mu and sigma of features, or images in {IMAGES}: "
            f"{first_line(error)}"
        ) from error


def load_images(path: str | os.PathLike[str], rows: int) -> npz.Pieces:
    """Return the images of an `.npz` as ADM writes them, `rows` at a time, uint8 [N,H,W,3].

    Raises InputError for a file that has none.
    """
    found = npz.load_pieces(path, IMAGES, rows)
    if found.dtype != np.uint8 or len(found.shape) != 4 or found.shape[-1] != 3:
        raise InputError(
            f"{path}: expected images uint8 [N,H,W,3] in {IMAGES}, got {found.dtype} "
            f"{list(found.shape)}"
        )
    return found


def _real(array: np.ndarray) -> np.ndarray:
    """Return an array of real numbers as it is; InputError for another dtype."""
    if array.dtype.kind not in "fiu":
        raise InputError(f"its numbers are {array.dtype}")
    return array
