"""Images of files made smaller and encoded anew, so that training has fewer pixels to decode."""

import io

import cv2
import simplejpeg
from PIL import Image

from evqgan.core.errors import InputError
from evqgan.data import transforms

QUALITY = 95  # ours: of JPEG, with colours as fine as brightness


def shrunk(data: bytes, size: int) -> bytes:
    """Return an encoded image whose shorter side has at most `size` pixels.

    One that is small enough is returned unchanged. A larger one is decoded as in training (upright,
    in sRGB, over white, from grey or CMYK to RGB) and scaled by training's filter; a JPEG becomes a
    JPEG of QUALITY, all else a PNG, which loses nothing more.

    Raises InputError where neither its size can be read nor its pixels, and for a larger image that
    does not decode; a small one is not decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            form, is_small = image.format, min(image.size) <= size
    except Image.DecompressionBombError:
        raise InputError(transforms.TOO_LARGE) from None
    except Exception:  # Pillow's plugins raise whatever the damaged bytes make them raise
        form, is_small = "", False  # the decoder says what is wrong
    if is_small:
        return data
    pixels = transforms.cover(transforms.decode(data), (size, size))
    if form in ("JPEG", "MPO"):
        return simplejpeg.encode_jpeg(pixels, QUALITY, colorspace="RGB", colorsubsampling="444")
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
