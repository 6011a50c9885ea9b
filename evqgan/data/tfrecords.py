"""TFRecord files, read without TensorFlow, every checksum verified.

A record is its length (8 bytes, little-endian), a checksum of these, the data, and a checksum of
the data. A checksum is CRC-32C, rotated and shifted (TensorFlow, core/lib/hash/crc32c.h). A file
may be compressed by gzip as a whole.
"""

import gzip
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import google_crc32c

HEAD, TAIL = struct.Struct("<QI"), struct.Struct("<I")
LONGEST = 2**31  # bytes of a serialized Example at most (protobuf)
GZIP = b"\x1f\x8b"

Damaged = Callable[[str], None]  # is told where a record is damaged, and how; it may raise


def checksum(data: bytes) -> int:
    """Return the masked CRC-32C of bytes as TFRecord files have it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: str | os.PathLike[str], damaged: Damaged) -> Iterator[bytes]:
    """Yield the data of all whole records of a file, in order.

    damaged: is called once for each record that is not whole, with "FILE, record 7 (byte 1,024):
      why". If it returns, the record is left out; behind a damaged length nothing can be read.
    """
    path = pathlib.Path(path)
    number, at = 0, 0
    with _opened(path) as file:
        while True:

            def where(number: int = number, at: int = at) -> str:
                return f"{path}, record {number} (byte {at:,})"

            try:
                head = file.read(HEAD.size)
                if not head:
                    return
                if len(head) < HEAD.size:
                    damaged(f"{where()}: the file is cut short")
                    return
                length, expected = HEAD.unpack(head)
                if checksum(head[:8]) != expected or length > LONGEST:
                    what = "this is no TFRecord file" if not at else "its length is damaged"
                    damaged(f"{where()}: {what}, and what follows it cannot be read")
                    return
                body = file.read(length + TAIL.size)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                damaged(f"{where()}: the compressed file is cut short or damaged ({error})")
                return
            if len(body) < length + TAIL.size:
                damaged(f"{where()}: the file is cut short")
                return
            if checksum(body[:length]) == TAIL.unpack(body[length:])[0]:
                yield body[:length]
            else:
                damaged(f"{where()}: its data are not those that were written")
            number, at = number + 1, at + HEAD.size + length + TAIL.size


def _opened(path: pathlib.Path) -> BinaryIO:
    """Return an open file, decompressed if need be."""
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP
    return cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb")
