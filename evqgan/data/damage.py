"""Whether JPEG and PNG data are whole. Most decoders fill what is missing with grey, in silence.

A file that is shorter than it should be, or that does not end where its pixels do, is found
always; a changed byte in a PNG, too, by its checksums. A JPEG has none: zeros in it are found
where its tables make them no picture.
"""

import re
import zlib

import numpy as np
import simplejpeg

# ours: bytes; 256 bits, of which a block of 63 equal coefficients takes at most 189 in the standard
# tables
ZEROS = 32
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG: of each type of colour
# PNG: the passes of an interlaced image: first column, first row, steps
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def jpeg(data: bytes, grey: bool = False) -> np.ndarray:
    """Return the pixels of JPEG bytes, uint8 [H,W,3], or [H,W] if `grey`.

    Raises ValueError for all that libjpeg warns of.
    """
    pixels = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", strict=True)
    if _zeroed(data):
        raise ValueError("zeros stand in the place of pixels")
    return pixels[..., 0] if grey else pixels


def _zeroed(data: bytes) -> bool:
    """Return whether a JPEG has ZEROS zero bytes among its coded pixels that cannot be a picture.

    Only sequential JPEGs are examined. Zero bytes repeat the first symbol of a Huffman table. If
    this symbol is "end of block" they are a flat area, which is possible; otherwise all
    coefficients of a block are equal, which no encoder makes of an image.
    """
    if bytes(ZEROS) not in data:
        return False
    at, first = 2, {}
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        marker, body = data[at + 1], data[at + 4 : end]
        at += 4 + len(body)
        if marker == 0xC2:  # progressive
            return False
        # Huffman tables: those of AC coefficients have 1 in the high half
        while marker == 0xC4 and len(body) > 17:
            if body[0] >> 4:
                first[body[0]] = body[17]
            body = body[17 + sum(body[1:17]) :]
        if marker == 0xDA:  # a scan: up to the next marker that is no restart
            following = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(data, at)
            stop = following.start() if following else len(data)
            is_no_flat_area = any(symbol & 15 for symbol in first.values())
            if is_no_flat_area and data.find(bytes(ZEROS), at, stop) >= 0:
                return True
            at = stop
    return False


def check_png(data: bytes) -> None:
    """Raise ValueError unless PNG bytes hold as many pixels as their head says."""
    head, parts, at = b"", [], 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            head = body
        elif kind == b"IDAT":
            parts.append(body)
        at += 12 + len(body)
    width, height = (int.from_bytes(head[i : i + 4], "big") for i in (0, 4))
    depth, colour, interlaced = head[8], head[9], head[12]
    expected = 0
    for left, top, right, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        expected += rows * (1 + -(-columns * depth * CHANNELS[colour] // 8)) if columns > 0 else 0
    found = len(zlib.decompressobj().decompress(b"".join(parts), expected))
    if found < expected:
        raise ValueError(f"its pixels end after {found:,} of {expected:,} bytes")
