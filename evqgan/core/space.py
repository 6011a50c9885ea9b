"""Disks and folders: bytes in words, those that are free, why a file could not be written."""

import errno
import os
import pathlib
import re
import shutil

from evqgan.core import stores
from evqgan.core.errors import InputError, first_line, of_system, system_number

GIB = 2**30
SPACE = "free space there or give another folder"
LIMIT = "raise the limit of this shell (ulimit -f) or give another folder"
GONE = "the folder where this command was given no longer exists"
ADVICE = {errno.ENOSPC: SPACE, errno.EDQUOT: SPACE, errno.EFBIG: LIMIT}


def here() -> str:
    """Return the current folder, "" if it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


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


def why_unwritten(error: Exception, path: str | os.PathLike[str] = "") -> str:
    """Return in words why a file, that of `path`, could not be written, and what to do.

    A full disk is told by the error's number, or by the words of libraries that hide it: NumPy's
    "96 requested and 64 written", and TensorStore's long lines, which end in the system's number.
    """
    if stores.is_remote(path) and getattr(error, "errno", None) is None:
        return stores.reason(error, path)
    number = system_number(error)
    if not number and re.search(r"No space left|\d+ requested and \d+ written", str(error)):
        number = errno.ENOSPC
    if number == errno.ENOENT and not os.path.isabs(path) and not here():
        return f"{GONE}: change to another one"
    if number in ADVICE or (number and not isinstance(error, OSError)):
        return f"{os.strerror(number)}; {ADVICE.get(number, 'give another folder')}"
    reason = of_system(error) if isinstance(error, OSError) else first_line(error)
    return f"{reason}; give another folder"
