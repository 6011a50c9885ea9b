"""Bytes in words, and those that are free on a disk."""

import pathlib
import shutil

from evqgan.core.errors import InputError, first_line

GIB = 2**30


def gib(size: float) -> str:
    """Return a number of bytes in words."""
    if size < 1e4:
        return f"{size:,.0f} bytes"
    return f"{size / GIB:,.2f} GiB" if size > GIB / 100 else f"{size / 1e6:.3g} MB"


def free(place: pathlib.Path) -> int:
    """Return the free bytes of the disk where `place` is, or would be made."""
    place = place.absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    try:
        return shutil.disk_usage(there).free
    except OSError as error:
        raise InputError(f"{there}: {first_line(error)}: give another --workdir") from error
