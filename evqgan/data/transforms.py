"""Images as plain functions: decode, resize, crop, flip, scale.

Between files and the device an image is uint8 RGB.
"""

import io
import os
import pathlib
import stat
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from evqgan.core.errors import InputError, of_system, shown, size_text
from evqgan.data import damage

MAX_PIXELS = 2**28 // 3  # Pillow's own limit against decompression bombs: a quarter of a GiB as RGB
# What is said where Pillow does not even tell the size.
TOO_LARGE = (
    f"expected an image of at most {MAX_PIXELS:,} pixels, got more than twice as many: make it "
    "smaller"
)
MAX_BYTES = 2**29  # ours: of a file; half a GiB holds any such image
ORIENTATION = 0x0112  # the EXIF tag; 1 = upright
# Which filters scale an image that is cropped so, for the card of a number.
FILTERS = {
    "adm": "Pillow: box halving, then bicubic",
    "centre": "OpenCV: area where it shrinks, bilinear where it grows",
    "native": "none, or as centre where the image is too small",
}


def read_bytes(path: str | os.PathLike) -> bytes:
    """Return the bytes of a file that a user names, at most MAX_BYTES ("~" is the home folder).

    Raises InputError if it is none.
    """
    text = os.fspath(path)
    if not text or "\0" in text or "://" in text:
        raise InputError(f"cannot read {shown(text)}: expected the path of a file of this machine")
    path = pathlib.Path(text).expanduser()
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe or a device may wait for ever
            raise InputError(
                f"cannot read {path}: expected a file, "
                f"got {'a folder' if path.is_dir() else 'a pipe or a device'}"
            )
        if found.st_size > MAX_BYTES:
            raise InputError(
                f"cannot read {path}: expected at most {MAX_BYTES:,} bytes, got {found.st_size:,}"
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {of_system(error)}") from error


def decode(data: bytes, background: str = "white") -> np.ndarray:
    """Return encoded image bytes as uint8 [H,W,3] in sRGB, upright, at most MAX_PIXELS pixels.

    Grey, palette and CMYK become RGB, a colour profile is applied, transparency is laid over the
    `background`, 16 bits become 8, EXIF rotation is applied, of an animation the first frame is
    taken.
    Raises InputError if the bytes are no whole image of a known range (of JPEG and PNG see
    `damage`).
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(*image.size)
            if image.format in ("JPEG", "MPO"):
                return _decode_jpeg(image, data, background)
            if image.format == "PNG":
                return _decode_png(image, data, background)
            return _decode_any(image, background)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(TOO_LARGE) from None
    except Exception as error:  # Pillow's plugins raise whatever the damaged bytes make them raise
        reason = (
            str(error).splitlines()[0].split("<_io")[0].strip()
            if str(error)
            else type(error).__name__
        )
        raise InputError(
            f"expected an image, got {len(data)} bytes that do not decode: {reason}"
        ) from None


def check_pixels(width: int, height: int) -> None:
    """Raise InputError for an image of more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        size = size_text((height, width))
        raise InputError(
            f"expected an image of at most {MAX_PIXELS:,} pixels, got {size}: make it smaller"
        )


def of_pil(image: Image.Image, background: str = "white") -> np.ndarray:
    """Return a PIL image of any mode as uint8 [H,W,3], as `decode` returns a file's.

    Raises InputError if its range is not known (mode F; mode I with levels below 0 or above 65535,
    or whose highest is 1 to 255), it has more than MAX_PIXELS, or the file behind it is damaged.
    """
    check_pixels(*image.size)
    try:
        return _decode_any(image, background)
    except InputError:
        raise
    except Exception as error:  # Pillow reads the file now
        raise InputError(f"expected a whole image, got a damaged one: {error}") from None


def _is_plain(image: Image.Image) -> bool:
    """Return whether the pixels of an opened image need nothing but to be decoded.

    That is 8 bits, opaque, upright, no profile.
    """
    if image.mode not in ("RGB", "L") or {"transparency", "icc_profile"} & set(image.info):
        return False
    return "exif" not in image.info or image.getexif().get(ORIENTATION, 1) == 1


def _decode_jpeg(image: Image.Image, data: bytes, background: str) -> np.ndarray:
    """Return the pixels of a whole JPEG by libjpeg-turbo, which tells its warnings.

    What is not plain goes on with Pillow.
    """
    pixels = damage.jpeg(data, grey=image.mode == "L" and not _is_plain(image))
    if _is_plain(image):
        return pixels
    if image.mode in ("RGB", "L"):
        decoded = Image.fromarray(pixels)
        decoded.info = image.info
        return _decode_any(decoded, background)
    return _decode_any(image, background)


def _decode_png(image: Image.Image, data: bytes, background: str) -> np.ndarray:
    """Return the pixels of a whole PNG, by OpenCV where these are all there is to it."""
    with Image.open(io.BytesIO(data)) as again:
        again.verify()  # the checksums; afterwards it is of no use
    if _is_plain(image):
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if pixels is not None and pixels.shape[:2] == image.size[::-1]:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    damage.check_png(data)
    return _decode_any(image, background)


def _decode_any(image: Image.Image, background: str) -> np.ndarray:
    """Return the pixels of any image that Pillow reads."""
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError(
            "expected 8 or 16 bits a channel, got floating-point pixels of unknown range"
        )
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
        levels = np.asarray(image)
        least, most = levels.min(), levels.max()
        if least < 0 or most > 65535 or (image.mode == "I" and 0 < most < 256):
            raise InputError(
                f"expected 8 or 16 bits a channel, got 32-bit pixels of unknown range, {least} to "
                f"{most}: save it with 8 bits"
            )
        # exactly round(level / 257): 65535 -> 255
        levels = (levels.astype(np.uint32) * 255 + 32895) >> 16
        image = Image.fromarray(levels.astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no other way from there
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "PA"):
        image = image.convert("RGBA")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        image = _to_srgb(image, profile)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return np.asarray(image.convert("RGB"))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return the image with its ICC profile applied.

    As it is where the profile is damaged or of other channels.
    """
    mode = image.mode if image.mode in ("RGB", "RGBA") else "RGB"
    try:
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, theirs, srgb, outputMode=mode)
        return image if converted is None else converted
    except (ImageCms.PyCMSError, OSError):
        return image


def as_rgb(value: bytes | np.ndarray) -> np.ndarray:
    """Return encoded bytes, or an array uint8 [H,W], [H,W,1] or [H,W,3], as image uint8 [H,W,3].

    Raises InputError for all else.
    """
    if isinstance(value, bytes):
        return decode(value)
    array = np.asarray(value)
    if array.ndim == 2:
        array = array[..., None]
    if (
        array.dtype != np.uint8
        or array.ndim != 3
        or array.shape[-1] not in (1, 3)
        or not array.size
    ):
        raise InputError(
            f"expected an image uint8 [H,W,3] or [H,W,1], got {array.dtype} {list(array.shape)}"
        )
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return image uint8 [H,W,3] as [*size,3].

    Shrinking averages over the area of each new pixel, which is free of aliasing; enlarging is
    bilinear, the default of the peers' loaders (torchvision, albumentations).
    """
    height, width = size
    if (height, width) == image.shape[:2]:
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def cover(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return image uint8 [H,W,3] scaled until it just covers `size`."""
    ratio = max(size[0] / image.shape[0], size[1] / image.shape[1])
    return resize(
        image,
        tuple(max(new, round(old * ratio)) for new, old in zip(size, image.shape, strict=False)),
    )


def centre_crop(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return the centre [*size,3] of an image [H,W,3] of at least `size`."""
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def adm_crop(image: np.ndarray, side: int) -> np.ndarray:
    """Return image uint8 [H,W,3] as [side,side,3], as the reference images of ADM's FIDs are made.

    It is halved by averaging 2x2 pixels while its shorter side is twice `side` or more, scaled by a
    bicubic filter, antialiased, until that side is `side`, and its centre is kept: Pillow's BOX and
    BICUBIC (Dhariwal and Nichol, 2021, the crop of their data loader), bit for bit.
    """
    picture = Image.fromarray(image)
    while min(picture.size) >= 2 * side:
        picture = picture.resize(halved(picture.size), Image.Resampling.BOX)
    scale = side / min(picture.size)
    width, height = (round(length * scale) for length in picture.size)
    return centre_crop(
        np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)), (side, side)
    )


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height), halved and rounded down."""
    return size[0] // 2, size[1] // 2


def random_crop(image: np.ndarray, size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return a part [*size,3] of an image [H,W,3] of at least `size`, at a uniform position."""
    top, left = (
        rng.integers(0, old - new + 1) for new, old in zip(size, image.shape, strict=False)
    )
    return image[top : top + size[0], left : left + size[1]]


def random_resized_crop(
    image: np.ndarray, size: Sequence[int], rng: np.random.Generator, min_scale: float
) -> np.ndarray:
    """Return a part of random size and position of image uint8 [H,W,3], scaled to [*size,3].

    The part has the shape of `size` and an area of U(min_scale, 1) of the largest such part.
    torchvision's function of this name takes the share of the whole image and tries again where the
    part does not fit; for square images the two are the same.
    """
    side = np.sqrt(rng.uniform(min_scale, 1))
    ratio = side * min(image.shape[0] / size[0], image.shape[1] / size[1])
    part = [
        min(max(1, round(new * ratio)), old) for new, old in zip(size, image.shape, strict=False)
    ]
    return resize(random_crop(image, part, rng), size)


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return image [H,W,3], or its mirror image (left-right), one in two."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def scale(image: Any) -> Any:
    """Return image uint8 [...] in [0, 255] as float32 in [-1, 1]; NumPy and JAX arrays alike."""
    return image.astype("float32") / 127.5 - 1.0


def unscale(image: Any) -> Any:
    """Return image float [...] in [-1, 1] as uint8 in [0, 255]: the inverse of `scale`.

    Rounded, and values outside are clipped.
    """
    return ((image.astype("float32") + 1.0) * 127.5).round().clip(0, 255).astype("uint8")
