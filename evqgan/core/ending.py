"""What has to be removed before a process ends without unwinding.

It ends so where a thread ends it: after a signal of which the main thread does not hear
(`signals.ending_in_order`), or when it is stuck (`training.watchdog`). Nothing is removed by
SIGKILL, and by a second signal.
"""

import contextlib
from collections.abc import Callable, Iterator

_removals: list[Callable[[], None]] = []


@contextlib.contextmanager
def removing(remove: Callable[[], None]) -> Iterator[None]:
    """While the body runs, have `let_go` call `remove`; the end of the body does not.

    remove: may be called by another thread than the body's.
    """
    _removals.append(remove)
    try:
        yield
    finally:
        _removals.remove(remove)


def let_go() -> None:
    """Remove what is to be removed: the process is about to end, and nothing is restored.

    That is locks of `files.owned`, unfinished folders of `files.swapped`, and temporary folders
    (`core.scratch`).
    """
    for remove in [*_removals]:
        remove()
