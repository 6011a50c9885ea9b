"""What people give as an image, as arrays; and arrays as what they ask for."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from evqgan.core.build import suggestion
from evqgan.core.errors import InputError, shown
from evqgan.data import transforms

PathLike: TypeAlias = str | os.PathLike[str]
# An array uint8 or float in [-1, 1], [H,W,3] or [B,H,W,3], a PIL image, a file, or several of one.
ImageLike: TypeAlias = ArrayLike | Image.Image | PathLike
Images: TypeAlias = ImageLike | Sequence[ImageLike]
Output = Literal["numpy", "pil"]
OUTPUTS = get_args(Output)


def check_output(output: str) -> None:
    """Raise InputError unless images can be returned as `output`."""
    if output not in OUTPUTS:
        raise InputError(f"there is no output {output!r}: {suggestion(str(output), OUTPUTS)}")


def to_output(images: np.ndarray, output: Output) -> Any:
    """Return images uint8 [B,H,W,3] as they are, or as a list of PIL images."""
    return images if output == "numpy" else [Image.fromarray(image) for image in images]


def to_uint8(images: Images) -> np.ndarray:
    """Return images as uint8 [B,H,W,3].

    images: an array uint8 or float in [-1, 1], [H,W,3] or [B,H,W,3]; a PIL image of any mode, but
      not F, nor I whose range is unknown (`transforms.of_pil`); the path of a picture's file; or a
      sequence of these, of one size.

    InputError for all else. Floats of which none in the batch is negative are most likely of
    [0, 1], and are refused, too: read as they stand they would be pale, unnoticed. Images that are
    so bright can be given as uint8; all 1 is white in either range.
    """
    images = list(images) if isinstance(images, Iterator) else images
    check_plain(images, "images")
    arrays = _as_arrays(images)
    if isinstance(arrays, list | tuple):
        dtypes = sorted({str(image.dtype) for image in arrays if isinstance(image, np.ndarray)})
        if len(dtypes) > 1 and "uint8" in dtypes:
            raise InputError(f"expected images of one dtype, got {' and '.join(dtypes)}")
    try:
        given = np.asarray(arrays)
    except ValueError as error:  # a list of images of several shapes
        raise InputError(_several_shapes(arrays)) from error
    if not given.size:
        raise InputError("expected at least one image, got none")
    images = given[None] if given.ndim == 3 else given
    fits = images.ndim == 4 and images.shape[-1] == 3
    if not fits or not (images.dtype == np.uint8 or is_float(images.dtype)):
        got = f"{given.dtype} {list(given.shape)}" if given.ndim else shown(arrays)
        raise InputError(
            "expected images as uint8, or as floats in [-1, 1], of shape [H,W,3] or [B,H,W,3], got "
            f"{got}{_of_other_numbers(given.dtype) if fits else _hint(given.shape)}"
        )
    if images.dtype == np.uint8:
        return images
    if not np.isfinite(images).all():
        raise InputError("expected floats in [-1, 1], got nan or infinite numbers")
    if not (np.abs(images) <= 1).all():
        found = f"{float(images.min()):.9g} to {float(images.max()):.9g}"
        raise InputError(f"expected floats in [-1, 1], got {found}: scale or clip them")
    if images.min() >= 0 and images.min() < 1:
        raise InputError(
            "expected floats in [-1, 1], got none below 0, as if they were in [0, 1]: give "
            "2 * images - 1, or, if they are in [-1, 1] and as bright as that, "
            "((images + 1) * 127.5).round().astype('uint8')"
        )
    return transforms.unscale(images)


def check_plain(given: Any, what: str) -> None:
    """Raise InputError for an array that has no numbers to be read, or a list with one.

    It is a masked array of NumPy, whose mask would be lost, or one that JAX traces.
    """
    several = given if isinstance(given, list | tuple) else [given]
    if any(np.ma.isMaskedArray(one) for one in several):
        raise InputError(f"expected {what} as plain arrays, got a masked array: give its .filled()")
    if any(isinstance(one, jax.core.Tracer) for one in several):
        raise InputError(
            f"expected known numbers as {what}, got an array that JAX traces: call evqgan.load and "
            "a model's methods outside of jax.jit, jax.vmap and jax.grad: they compile themselves"
        )


def is_float(dtype: np.dtype) -> bool:
    """Return whether numbers are floats: NumPy's, or bfloat16 and others that NumPy lacks."""
    return jnp.issubdtype(dtype, np.floating)


def _of_other_numbers(dtype: np.dtype) -> str:
    """Return how images of numbers that are not taken become uint8, or ""."""
    if dtype.kind == "b":
        return ": give images.astype('uint8') * 255"
    if dtype.kind not in "iu":
        return ""
    more = ", or (images // 257).astype('uint8') if up to 65535" if dtype.itemsize > 1 else ""
    return f": give images.astype('uint8') if they are from 0 to 255{more}"


def _hint(shape: Sequence[int]) -> str:
    """Return what may be wrong with the shape of what should be images, or ""."""
    if len(shape) in (3, 4) and shape[-3] == 3 and shape[-1] not in (1, 3, 4):
        return ": channels come last, as np.moveaxis(images, -3, -1) puts them"
    if len(shape) in (3, 4) and shape[-1] == 4:
        return ": leave the fourth channel out (images[..., :3]), or give PIL images"
    if shape[-1:] == (1,) or (len(shape) in (2, 3) and shape[-1] not in (3, 4)):
        return ": a grey image has to repeat its channel three times"
    return ""


def read_image(path: PathLike, background: str = "white") -> np.ndarray:
    """Return the picture in a file as uint8 [H,W,3]; transparency is laid over the `background`."""
    data = transforms.read_bytes(path)
    try:
        return transforms.decode(data, background)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _several_shapes(images: Iterable[Any]) -> str:
    """Return the sentence that refuses images of several shapes."""
    shapes = sorted({image.shape for image in images if isinstance(image, np.ndarray)})
    got = " and ".join(str(list(shape)) for shape in shapes) or "rows of several lengths"
    return f"expected images of one shape, got {got}: give them one by one, or resize them"


def _as_arrays(images: Any) -> Any:
    """Return `images` with arrays in the place of PIL images and paths."""
    pictures = Image.Image | str | os.PathLike
    if isinstance(images, list | tuple) and any(isinstance(x, pictures) for x in images):
        found = [_as_arrays(image) for image in images]
        if len({np.shape(image) for image in found}) > 1:
            raise InputError(_several_shapes(found))
        return found
    if isinstance(images, Image.Image):
        return transforms.of_pil(images)
    return read_image(images) if isinstance(images, str | os.PathLike) else images
