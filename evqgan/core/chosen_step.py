"""Which checkpoint of a workdir is meant: that of a step, the best one, or the last one."""

import os
from typing import Literal, TypeAlias

from evqgan.core import checkpoint, retention, stores
from evqgan.core.errors import InputError

# As people give it: a number, or one of `flag_kinds.STEPS`; None is "last".
Step: TypeAlias = int | Literal["best", "last"] | None


def number_of(workdir: str | os.PathLike[str], step: Step) -> int | None:
    """Return the step of the checkpoint that is meant; None stands for the last one.

    Which is the last is looked up when the checkpoint is read: it may be a newer one by then.
    workdir: of a run; of an exported model see `models.find_step`. Raises InputError if it has no
    such checkpoint.
    """
    if step == "best":
        return best(workdir)
    number = None if step == "last" else step
    checkpoint.check_step(workdir, number)
    return number


def best(workdir: str | os.PathLike[str]) -> int:
    """Return the step of the best checkpoint of a run, by the number that config.best names.

    It has the lowest score of those that were measured as the last one was, see `retention.best`.
    Raises InputError if there is no checkpoint, or none has such a number.
    """
    checkpoint.check_step(workdir, None)
    checkpoints = checkpoint.Checkpoints(workdir, create=False)
    found = retention.best(checkpoints.scores())
    checkpoints.close()
    if found is None:
        there = ", ".join(map(str, checkpoint.steps_in(workdir)))
        raise InputError(
            f"no checkpoint in {stores.absolute(workdir) / 'checkpoints'} has a score by which it "
            f"could be the best, as config.best named no number that was measured: give the step "
            f"of one, expected one of {there}, or leave it out"
        )
    return found
