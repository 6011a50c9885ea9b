"""Equal files of a folder: an image that is there twice may be trained on and held out at once."""

import collections
import hashlib
import os
from collections.abc import Sequence


def copies(folder: str, paths: Sequence[str], sizes: Sequence[int]) -> list[list[str]]:
    """Return groups of equal files, each sorted: those of one length are read and hashed.

    sizes: the files' lengths in bytes, 0 for one that is left out.
    """
    of_size = collections.defaultdict(list)
    for path, size in zip(paths, sizes, strict=True):
        if size:
            of_size[size].append(path)
    found: list[list[str]] = []
    for group in of_size.values():
        if len(group) > 1:
            of_hash = collections.defaultdict(list)
            for path in group:
                of_hash[_digest(os.path.join(folder, path))].append(path)
            equal = (some for digest, some in of_hash.items() if digest and len(some) > 1)
            found += map(sorted, equal)
    return sorted(found)


def _digest(path: str) -> bytes:
    """Return the hash of a file, b"" of one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""
