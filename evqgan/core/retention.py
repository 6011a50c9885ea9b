"""Which checkpoints of a run stay: the latest ones, and the best."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Score(NamedTuple):
    """How good a checkpoint is: the lower the better.

    It is compared with scores of the same number alone, measured in the same way.
    """

    value: float
    name: str  # of the number that it is made of, "" where it was saved without
    measured: str = ""  # how it was, `cards.measurement_digest`; "" where that is not known


def best(scores: Mapping[int, Score | None]) -> int | None:
    """Return the step of the lowest of the scores that compare with the last one; None: no score.

    Of equal ones it is the first. scores: {step: Score, or None where nothing was evaluated}.
    """
    rated = {step: score for step, score in scores.items() if score}
    if not rated:
        return None
    _, *kind = rated[max(rated)]
    return min((x.value, step) for step, x in rated.items() if [x.name, x.measured] == kind)[1]


class BestAndLatest:
    """Which checkpoints stay: the `number` latest, and of scores that compare that of the lowest.

    Orbax asks after every save. Its own BestN forgets the scores of checkpoints that an earlier
    process wrote, and keeps all that it knows no score of.

    scores: {step: Score, or None where nothing was evaluated}.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.scores: dict[int, Score | None] = {}

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Return for each of the checkpoints, which are in ascending order, whether it stays."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        best: dict[tuple[str, str], tuple[float, int]] = {}
        for step in steps:
            if score := self.scores.get(step):
                kind = score.name, score.measured
                best[kind] = min(best.get(kind, (np.inf, 0)), (score.value, step))
        kept = {*steps[-self.number :], *(step for _, step in best.values())}
        return [step in kept for step in steps]
