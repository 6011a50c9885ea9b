"""What a PNG says of how it was made: a JSON object in a text chunk of its own.

It is read from the chunks before the pixels, of a bounded length, and is never trusted: whoever
uses it checks each value.
"""

import json
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Never

from PIL.PngImagePlugin import PngInfo

from evqgan.core.errors import InputError, of_system

KEY = "evqgan"  # the keyword of the chunk
LONGEST = 2**14  # ours: bytes of a record; those of our models take below 1,000
HEAD = 2**17  # ours: bytes that the chunks before the pixels may take, colour profile included
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk_of(record: Mapping[str, Any]) -> PngInfo:
    """Return a record as Pillow writes it: `Image.save(..., pnginfo=chunk_of(record))`."""
    text = json.dumps(record, sort_keys=True)
    if len(text) > LONGEST:
        raise ValueError(f"expected a record of at most {LONGEST:,} bytes, got {len(text):,}")
    info = PngInfo()
    info.add_text(KEY, text)
    return info


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the record in a PNG file; InputError if it is none, or has none."""
    path = pathlib.Path(path).expanduser()
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise InputError(f"cannot read {path}: {of_system(error)}") from error
    try:
        return parse(head)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse(head: bytes) -> dict[str, Any]:
    """Return the record in the first bytes of a PNG; InputError if there is none, or a bad one."""
    if not head.startswith(SIGNATURE):
        raise InputError("expected a PNG, got another kind of file")
    start = KEY.encode() + b"\0"
    texts = [data for kind, data in _chunks(head) if kind == b"tEXt" and data.startswith(start)]
    if not texts:
        raise InputError(
            "this PNG does not say how it was made: expected one that --mode=sample or the web "
            "page has written, and that no other program has saved since"
        )
    text = texts[0].removeprefix(start)
    try:
        if len(texts) > 1 or len(text) > LONGEST:
            raise ValueError
        found = json.loads(text.decode("latin-1"), parse_constant=_refuse)
        if not isinstance(found, dict):
            raise ValueError
    except (ValueError, RecursionError) as error:
        what = f"expected one JSON object of at most {LONGEST:,} bytes"
        raise InputError(f"what this PNG says of how it was made is damaged: {what}") from error
    return found


def _chunks(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (type, data) of each whole chunk before the pixels whose checksum is right."""
    at = len(SIGNATURE)
    while at + 12 <= len(head):
        length, kind = struct.unpack(">I4s", head[at : at + 8])
        data = head[at + 8 : at + 8 + length]
        end = at + 8 + length
        if kind == b"IDAT" or end + 4 > len(head):
            return
        if zlib.crc32(kind + data) == struct.unpack(">I", head[end : end + 4])[0]:
            yield kind, data
        at = end + 4


def _refuse(constant: str) -> Never:
    """Refuse NaN and the infinities, which are no JSON."""
    raise ValueError(constant)
