"""The two forms of PyTorch's checkpoints: a zip file, and pickles before raw numbers.

Both hold a pickle of objects and the bytes of its storages. Source of the formats:
torch/serialization.py of PyTorch 0.1 to 2.13.
"""

import functools
import io
import mmap
import pathlib
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

from evqgan.convert import pickles
from evqgan.convert.torch_tensors import KNOWN, Read, Storage, persistent

# The first bytes of a file. Those of the old form are a pickled number.
ZIP = b"PK\x03\x04"
LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
HEADS = 3  # pickles of the old form before the object: magic number, protocol, system


class Content(NamedTuple):
    """What a checkpoint holds."""

    root: Any  # the object at its top, of plain values, Tensors and Foreign ones
    read: Read  # gives the bytes of a storage
    swapped: bool  # whether they are in the other byte order


def open_zip(path: pathlib.Path) -> Content:
    """Return what a checkpoint in a zip file holds (PyTorch since 1.6)."""
    archive = zipfile.ZipFile(path)
    entries = {entry.filename: entry for entry in archive.infolist()}
    root = _root(archive, entries, path.stat().st_size)
    name = f"{root}/byteorder"
    order = archive.read(name) if name in entries else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"its byte order is {order[:12]!r}")

    @functools.cache
    def content(key: str) -> np.ndarray:
        return np.frombuffer(archive.read(entries[key]), np.uint8)

    def read(storage: Storage) -> np.ndarray:
        key = f"{root}/data/{storage.key}"
        if key not in entries or entries[key].file_size != storage.total:
            raise ValueError(_wrong_size(storage))
        return content(key)

    found = pickles.load(io.BytesIO(archive.read(f"{root}/data.pkl")), KNOWN, persistent)
    return Content(found, read, order == b"big")


def _root(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], size: int) -> str:
    """Return the folder in a zip file that holds all of it.

    size: bytes of the file.

    Raises ValueError unless torch.save wrote it.
    """
    pickled = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    roots = [name.removesuffix("/data.pkl") for name in pickled]
    if len(roots) != 1 or f"{roots[0]}/constants.pkl" in entries:
        what = "one data.pkl and no constants.pkl (TorchScript)"
        raise ValueError(f"expected a zip file made by torch.save: {what}")
    if len(entries) != len(archive.infolist()):
        raise ValueError("two entries of the zip file have one name")
    if any(x.compress_type != zipfile.ZIP_STORED or x.flag_bits & 1 for x in entries.values()):
        what = "is compressed or encrypted, which torch.save does not do"
        raise ValueError(f"an entry of the zip file {what}")
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("the entries of the zip file overlap")
    return roots[0]


def open_legacy(path: pathlib.Path) -> Content:
    """Return what a checkpoint from before PyTorch 1.6 holds: pickles, then the storages."""
    storages: dict[str, Storage] = {}

    def noted(value: Any) -> Any:
        storage = persistent(value)
        if isinstance(storage, Storage):
            first = storages.setdefault(storage.key, storage)
            if first.total != storage.total:
                raise ValueError(f"storage {storage.key!r} has two sizes")
        return storage

    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for _ in range(HEADS):
        pickles.load(content, {})
    found = pickles.load(content, KNOWN, noted)
    offsets = _offsets(content, pickles.load(content, {}), storages)

    def read(storage: Storage) -> np.ndarray:
        if storage.key not in offsets:
            what = "is not in the file, or behind one of an unknown kind"
            raise ValueError(f"storage {storage.key!r} {what}")
        return np.frombuffer(content, np.uint8, storage.total, offsets[storage.key])

    return Content(found, read, False)


def _offsets(content: mmap.mmap, keys: Any, storages: dict[str, Storage]) -> dict[str, int]:
    """Return {key: offset in the file} of the storages, which lie there in the order of `keys`.

    content: the file, at the end of its last pickle.
    """
    offsets, at = {}, content.tell()
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:  # of a kind that we do not know: where it ends is not known either
            break
        (count,) = struct.unpack_from("<q", content, at)
        at += 8
        if count * storage.dtype.itemsize != storage.total or at + storage.total > len(content):
            raise ValueError(_wrong_size(storage))
        offsets[key] = at
        at += storage.total
    return offsets


def _wrong_size(storage: Storage) -> str:
    return f"storage {storage.key!r} should have {storage.total} bytes in the file"
