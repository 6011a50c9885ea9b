"""What the checkpoints of a run take of a disk, compared with what is free there."""

import math
import pathlib
from typing import Any, NamedTuple

import jax

from evqgan.core import space, stores
from evqgan.core.errors import InputError
from evqgan.core.progress import warn
from evqgan.training import optim
from evqgan.training.setup import Setup

BESIDES = 2  # checkpoints beside config.keep: the best one, and the one that is being written
# Ours, measured on weights, averages and moments: what zstd leaves of numbers of so many bytes, and
# what orbax writes of each array beside its numbers, which is most of a small model's checkpoint.
LEFT = {4: 0.93, 2: 0.8}
EACH = 1400
ELSEWHERE = "or give a --workdir on another disk"


class Need(NamedTuple):
    """What the checkpoints of a run take, in bytes, to a tenth."""

    each: int  # of one
    number: int  # that there are at a time
    there: int  # of these, that are there already
    free: int  # bytes on the disk

    @property
    def needed(self) -> int:
        """The bytes of those that are not there yet, of one at least."""
        return self.each * max(self.number - self.there, 1)

    def in_words(self) -> str:
        """Return what is needed and what there is."""
        there = f"{self.number} checkpoints of {space.gib(self.each)} ({self.there} are there)"
        return f"{there}, {space.gib(self.free)} free"

    def lacking(self) -> str:
        """Return in words what to do where there is not enough."""
        return f"free {space.gib(self.needed - self.free)}, {ELSEWHERE}"


def need(state: Any, config: Any, workdir: pathlib.Path) -> Need:
    """Return the Need of a run in a local workdir; state: of its stage, shapes are enough."""
    shapes = jax.tree.leaves(optim.averaged(state))
    each = EACH * len(shapes)
    for x in shapes:
        size = x.dtype.itemsize
        each += round(LEFT.get(size, 1.0) * size * math.prod(x.shape))
    there = len(list((workdir / "checkpoints").glob("[0-9]*")))
    return Need(each, config.get("keep", 1) + BESIDES, there, space.free(workdir))


def check(setup: Setup, step: int) -> None:
    """Warn if the disk may not hold the checkpoints of a run that goes on from `step`.

    Raises InputError if there is not even room for one.
    """
    if step >= setup.length.total or stores.is_remote(setup.workdir):
        return  # nothing is saved any more; a bucket grows
    found = need(setup.compiled.abstract_state, setup.config, setup.workdir)
    if found.each > found.free:
        raise InputError(
            f"a checkpoint takes about {space.gib(found.each)}, and there are "
            f"{space.gib(found.free)} free in {setup.workdir}: free some, {ELSEWHERE}"
        )
    if found.needed > found.free:
        warn(f"the disk may get full: {found.in_words()}: {found.lacking()}")
