"""Work that the processes of a run share out: who does which rows, and waiting for each other."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from evqgan.core.errors import InputError
from evqgan.core.progress import say

Report = Callable[[int, int, float], None]  # report(done, total, seconds)


def this() -> tuple[int, int]:
    """Return the index of this process and how many there are: (0, 1) in a run of one."""
    return jax.process_index(), jax.process_count()


def tell(text: str) -> None:
    """Print a line at once, on the first process of a run alone."""
    if jax.process_index() == 0:
        say(text)


def share(number: int, part: tuple[int, int]) -> np.ndarray:
    """Return the rows of one part, int [ceil(number / n)].

    number: of all rows.
    part: (i, n) for the i-th of n parts of equal length, each of consecutive rows.

    Where the parts together are longer than `number`, the last row is repeated: all parts have the
    same length and so compile the same. All parts in turn, cut at `number`, are all rows in order.
    """
    index, parts = part
    each = -(-number // parts)
    return np.arange(index * each, (index + 1) * each).clip(max=number - 1)


@contextlib.contextmanager
def together(part: tuple[int, int] | None = None) -> Iterator[None]:
    """Leave the body only when all processes have done theirs.

    Where the body raised in some, InputError is raised in the others. What one process left on disk
    in the body is there for all after it. All processes of a run have to enter it, except with part
    (0, 1), which has no others. It is also a decorator: no process then ends while others are at
    work, for which JAX would wait only five minutes before it ends all.

    part: (index, number) of processes; None: those of the run.
    """
    raised = None
    try:
        yield
    except Exception as error:
        raised = error
    failed = np.array([raised is not None])
    if (part or this())[1] > 1:
        failed = multihost_utils.process_allgather(failed)
    if raised:
        raise raised
    if failed.any():
        raise stopped(int(np.argmax(failed)))


def stopped(index: int | None) -> InputError:
    """Return the error of a process that ends as another one failed: the one of this index.

    index: None where it is not known which.
    """
    which = "another process" if index is None else f"process {index}"
    return InputError(f"{which} of this run stopped: its own message says why")


def others_failed(failed: bool) -> str:
    """Return which other processes failed, such as "process 1, process 3"; all have to call it.

    failed: whether this one did.
    """
    index, number = this()
    if number == 1:
        return ""
    found = multihost_utils.process_allgather(np.array([failed])).reshape(-1)
    return ", ".join(f"process {i}" for i in np.flatnonzero(found) if i != index)


def agreed(value: bool) -> bool:
    """Return what the first process of the run says. All have to call it."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(value))) if this()[1] > 1 else value


def of_all(
    report: Report | None, number: int, part: tuple[int, int], done: int = 0
) -> Report | None:
    """Return a report of one part's work that calls `report` with that of all parts.

    The others are taken to be as far as this one. None stays None.

    number: of all rows.
    part: (index, number) of processes.
    done: how many rows there were before.
    """
    if report is None:
        return None
    return lambda here, _, seconds: report(min(done + here * part[1], number), number, seconds)
