"""Temporary folders, which go with the work that they are for, and with its process."""

import contextlib
import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from evqgan.core import ending


@contextlib.contextmanager
def folder(
    prefix: str = "evqgan-", where: str | os.PathLike[str] | None = None
) -> Iterator[pathlib.Path]:
    """Yield a new folder that only this user can read; it is removed when the body ends.

    It is also removed by `ending.let_go`.

    where: the folder that it is made in, by default the system's for temporary files; OSError if
      that cannot be written.
    """
    made = tempfile.mkdtemp(prefix=prefix, dir=where)
    remove = functools.partial(shutil.rmtree, made, ignore_errors=True)
    with ending.removing(remove):
        try:
            yield pathlib.Path(made)
        finally:
            remove()
