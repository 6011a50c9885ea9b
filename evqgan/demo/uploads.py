"""Pictures and masks as they come from a browser: bounded before anything is decoded."""

import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from evqgan.core.errors import InputError
from evqgan.data import transforms

BYTES = 16 * 2**20  # ours: of a file; a photograph of a telephone has a quarter of it
PIXELS = 2**25  # ours: of a file as it is decoded, 100 MB; twice a photograph of 16 million
# ours: a picture above 64 MiB as RGB has at least a 256th of that as a file, as photographs do
BOMB, FOLD = 2**26, 256
CANVAS = 2**20  # ours: pixels of what is edited, a square of 1024
SHOWN = 512  # ours: pixels that the longer side of a small picture has in the brush's canvas
NONE = "upload a picture first, or take one from Generate"


def read(path: str | os.PathLike[str] | None) -> np.ndarray:
    """Return an uploaded picture as uint8 [H,W,3]; InputError for one that is too large, or none.

    Its size is read from its header, before its pixels are decoded.
    """
    if path is None:
        raise InputError(NONE)
    size = pathlib.Path(path).stat().st_size
    if size > BYTES:
        raise InputError(f"expected a file of at most {BYTES:,} bytes, got {size:,}")
    data = transforms.read_bytes(path)
    check_header(data)
    return transforms.decode(data)


def required(image: Any) -> np.ndarray:
    """Return the picture that a tab has, uint8 [H,W,3]; InputError if it has none yet."""
    if image is None:
        raise InputError(NONE)
    return image


def check_header(data: bytes) -> None:
    """Raise InputError for bytes whose header says more than PIXELS pixels, a BOMB, or says none.

    Files of one's own may be flat: only what comes from a browser has to unfold like a photograph.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"expected a picture of at most {PIXELS:,} pixels, got more") from None
    except Exception as error:  # Pillow's plugins raise whatever the bytes make them raise
        raise InputError("expected a picture, such as a PNG or a JPEG, got another file") from error
    if width * height > PIXELS:
        raise InputError(
            f"expected a picture of at most {PIXELS:,} pixels, got {width:,} x {height:,}"
        )
    if 3 * width * height > max(BOMB, FOLD * len(data)):
        raise InputError(
            f"expected a picture that unfolds to at most {FOLD} times its bytes, got {width:,} x "
            f"{height:,} pixels in {len(data):,} bytes: make it smaller"
        )


def fitted(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return a picture scaled until it just covers the model's `size` (H, W), uint8 [H',W',3].

    InputError where that would be too many pixels, as of a very long one.
    """
    ratio = max(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (side * ratio for side in image.shape[:2])
    if height * width > CANVAS:
        raise InputError(
            f"expected at most {CANVAS:,} pixels, and scaled to the model's size this picture has "
            f"{width:,.0f} x {height:,.0f}: it is too long, cut a part out of it"
        )
    return np.ascontiguousarray(transforms.cover(image, size))


def check_canvas(height: float, width: float) -> None:
    """Raise InputError for a picture that has too many pixels to be edited in the page."""
    if height * width > CANVAS:
        raise InputError(
            f"expected at most {CANVAS:,} pixels to edit, got {width:,.0f} x {height:,.0f}: scale "
            "the picture to the model's size, or use the command line"
        )


def zoom(image: np.ndarray) -> int:
    """Return by how much a picture [H,W,3] is enlarged for the brush."""
    return max(1, SHOWN // max(image.shape[:2]))


def canvas(image: np.ndarray) -> dict[str, Any]:
    """Return a picture uint8 [H,W,3] as what the brush paints on, enlarged by whole pixels."""
    k = zoom(image)
    large = image.repeat(k, axis=0).repeat(k, axis=1)
    return {"background": large, "layers": [], "composite": large}


def brushed(drawn: Any, image: np.ndarray) -> np.ndarray:
    """Return what the brush has hidden of a picture [H,W,3], bool [H,W].

    drawn: {"layers": [RGBA uint8 [H',W',4], ...]}, of the canvas's size; what is painted is not
      transparent. A pixel of the picture is hidden if half of it was painted.
    """
    layers = drawn.get("layers") or [] if isinstance(drawn, Mapping) else []
    k, (height, width) = zoom(image), image.shape[:2]
    share = np.zeros((height, width))
    for layer in map(np.asarray, layers):
        if layer.shape != (height * k, width * k, 4):
            raise InputError(
                f"expected a mask of {width * k} x {height * k} pixels with transparency, got "
                f"{list(layer.shape)}: paint on the picture that is shown"
            )
        painted = (layer[..., 3] > 127).reshape(height, k, width, k).mean(axis=(1, 3))
        share = np.maximum(share, painted)
    if not (hidden := share >= 0.5).any():
        raise InputError("paint over what is to be made anew: nothing is painted yet")
    return hidden


def boxed(image: np.ndarray, box: Sequence[Any]) -> np.ndarray:
    """Return a box left, top, right, bottom of a picture [H,W,3] as bool [H,W]."""
    left, top, right, bottom = whole_numbers(box, "the box's sides")
    height, width = image.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"expected a box inside the picture of {width} x {height}, left below right and top "
            f"below bottom, got {left}, {top}, {right}, {bottom}"
        )
    hidden = np.zeros((height, width), bool)
    hidden[top:bottom, left:right] = True
    return hidden


def whole_numbers(values: Sequence[Any], what: str) -> list[int]:
    """Return values of number fields as whole numbers; InputError for all else."""
    try:
        if any(float(x) != int(x) or isinstance(x, bool) for x in values):
            raise ValueError
        return [int(x) for x in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what}: expected whole numbers, got {list(values)}") from None


def middle(image: np.ndarray, share: Any) -> np.ndarray:
    """Return the middle of a picture [H,W,3], so many percent of each side, as bool [H,W]."""
    if not isinstance(share, int | float) or not 1 <= share <= 100:
        raise InputError(f"the middle: expected 1 to 100 percent, got {share!r}")
    height, width = image.shape[:2]
    top, left = (round(side * (100 - share) / 200) for side in (height, width))
    hidden = np.zeros((height, width), bool)
    hidden[top : max(height - top, top + 1), left : max(width - left, left + 1)] = True
    return hidden


def sides(image: np.ndarray, grown: Sequence[Any]) -> list[int]:
    """Return by how many pixels a picture [H,W,3] grows at its left, top, right, bottom."""
    left, top, right, bottom = amounts = whole_numbers(grown, "the sides")
    if min(amounts) < 0 or not any(amounts):
        raise InputError(f"the sides: expected pixels from 0, one of them more, got {amounts}")
    check_canvas(image.shape[0] + top + bottom, image.shape[1] + left + right)
    return amounts
