"""Work that the processes of a run share out: who does which rows, and waiting for each other."""

import contextlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from evqgan.core.errors import InputError


def this():
    """(index of this process, how many there are): (0, 1) in a run of one."""
    return jax.process_index(), jax.process_count()


def share(number, part):
    """The rows, of `number` in all, of the part (i, n): int [ceil(number / n)], the i-th of n equal runs of them.

    The last row is repeated where the runs are longer than `number`: all parts have as many, so that all compile the
    same, and one after the other, cut at `number`, they are all rows in order.
    """
    index, parts = part
    each = -(-number // parts)
    return np.arange(index * each, (index + 1) * each).clip(max=number - 1)


@contextlib.contextmanager
def together(part=None):
    """No process leaves the body before all have done theirs; where it raised in some, InputError in the others.

    So what one process left on disk in the body is there for all after it. All processes of a run have to come by, but
    with part (0, 1), which has no others. Also a decorator, with which no process ends while others are at work: JAX
    waits for them for five minutes alone, and then ends all.
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
        raise InputError(f"process {np.argmax(failed)} of this run stopped: its own message says why")


def of_all(report, number, part, done=0):
    """A report(done here, total here, seconds) of one part that calls `report` with what all parts have of `number`.

    The others are taken to be as far as this one. done: how many there were before. None stays None.
    """
    return report and (lambda here, _, seconds: report(min(done + here * part[1], number), number, seconds))
