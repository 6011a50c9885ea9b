"""What people give as a mask, as bool [H,W]: True where the image is generated."""

import os
from typing import Any

import numpy as np
from PIL import Image

from evqgan.core.errors import InputError, size_text
from evqgan.data import transforms
from evqgan.inference.images import PathLike, check_plain, is_float, read_image

WHITE = 128  # ours: a mask hides pixels from this brightness on, of 255
COLOUR = 64  # ours: by so much red, green and blue may differ in what is meant to be grey


def to_mask(mask: Any) -> Any:
    """Return a mask given as a PIL image or a file as bool [H,W], see `read_mask`.

    Any other is returned as it is, see `as_bool`.
    """
    if isinstance(mask, Image.Image):
        return mask_of(transforms.of_pil(mask, "black"), "the mask")
    return read_mask(mask) if isinstance(mask, str | os.PathLike) else mask


def read_mask(path: PathLike) -> np.ndarray:
    """Return a mask file as bool [H,W], see `mask_of`; what is transparent is kept."""
    return mask_of(read_image(path, "black"), f"the mask {path}")


def mask_of(image: np.ndarray, what: str) -> np.ndarray:
    """Return a picture uint8 [H,W,3] as a mask bool [H,W].

    It is True where the picture is white, and the image is generated; what is black is kept.

    what: the mask, in an error.

    Raises InputError for a mask that hides nothing, or has colours.
    """
    rule = "it must be white where the image is generated, and black or transparent elsewhere"
    if (colour := np.ptp(image, axis=-1)).max() > COLOUR:
        y, x = np.unravel_index(colour.argmax(), colour.shape)
        found = ", ".join(map(str, image[y, x]))
        raise InputError(f"{what} has colours (red, green, blue = {found}): {rule}")
    grey = image.mean(axis=-1)
    if grey.max() < WHITE:
        raise InputError(
            f"{what} hides nothing: pixels are generated from {WHITE} of 255 on, and its "
            f"brightest is {grey.max():.0f}; {rule}"
        )
    return grey >= WHITE


def as_bool(mask: Any) -> np.ndarray:
    """Return a mask [H,W] or [H,W,1] as bool [H,W], True where it hides.

    A boolean mask is returned as it is. In a mask of numbers 0 keeps a pixel, and one other value
    hides it.
    """
    check_plain(mask, "a mask")
    expected = "a boolean mask, or one of 0 (kept) and one other value"
    if mask is None:
        raise InputError(f"expected {expected}, got None")
    mask = np.asarray(mask)
    mask = mask[..., 0] if mask.ndim == 3 and mask.shape[-1] == 1 else mask
    if mask.dtype == bool:
        return mask
    is_number = mask.dtype.kind in "ui" or is_float(mask.dtype)
    others = np.unique(mask[mask != 0]) if is_number else np.zeros(0)
    is_finite = np.isfinite(others).all()
    if is_number and is_finite and len(others) <= 1:
        return mask != 0
    some = "of no numbers"
    if is_number:
        some = f"with {len(others)} values beside 0" if is_finite else "with infinite ones or NaN"
    raise InputError(f"expected {expected}, got {mask.dtype} {some}")


def check_mask(image: np.ndarray, mask: np.ndarray) -> None:
    """Raise InputError unless a mask [H,W] has the image's size and hides something."""
    if mask.shape != image.shape[:2]:
        got = "a number" if not mask.ndim else f"an array of the shape {list(mask.shape)}"
        got = size_text(mask.shape) if mask.ndim == 2 else got
        one = ": give one channel" if mask.ndim == 3 else ""
        expected = size_text(image.shape[:2])
        raise InputError(f"expected a mask of the image's size, {expected}, got {got}{one}")
    if not mask.any():
        needed = "it must be white where the image is to be generated"
        raise InputError(f"the mask hides nothing: {needed}")
