"""What a process takes away when it is about to end, however it ends but by SIGKILL."""

import contextlib
import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

_clears: list[Callable[[], None]] = []


@contextlib.contextmanager
def cleared(clear: Callable[[], None]) -> Iterator[None]:
    """Have `let_go` call `clear` while the body runs."""
    _clears.append(clear)
    try:
        yield
    finally:
        _clears.remove(clear)


def let_go() -> None:
    """Take away marks of folders that are owned, folders that are not whole, and scratch.

    It is for a process that is about to end: what it took away stays away.
    """
    for clear in [*_clears]:
        clear()


@contextlib.contextmanager
def scratch(
    prefix: str = "evqgan-", where: str | os.PathLike[str] | None = None
) -> Iterator[pathlib.Path]:
    """Yield a new folder of this user's alone, which is removed behind the body, or by `let_go`.

    where: the folder that it is made in, by default the system's for temporary files; OSError if
      that cannot be written.
    """
    folder = tempfile.mkdtemp(prefix=prefix, dir=where)
    clear = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    with cleared(clear):
        try:
            yield pathlib.Path(folder)
        finally:
            clear()
