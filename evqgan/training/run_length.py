"""How long a run is, and durations in its steps."""

import dataclasses
from typing import Any

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import STEPS, duration_of


def to_steps(
    duration: int | float | str, examples: int, batch_size: int, total: int | None = None
) -> int:
    """Return a duration as a number of steps.

    duration: 1000 or "1000 steps", "20 epochs" of `examples`, or "5%" of `total` steps.
    Raises InputError for any other text, and for a share where there is no total.
    """
    found = duration_of(duration)
    if not found:
        raise InputError(
            f"a duration is a number of steps, '20 epochs', '1000 steps' or '5%', not {duration!r}"
        )
    number, unit = found
    if unit == "%" and total is None:
        raise InputError(
            f"{duration!r} would be a share of the whole run, whose length it is: give it in steps "
            "or epochs, such as 1000 or '20 epochs'"
        )
    if unit == "%" and total is not None:
        return round(number / 100 * total)
    return round(number * examples / batch_size) if unit == "epoch" else round(number)


def normalized(duration: Any) -> Any:
    """Return (number, unit) of a duration, so that "3000 steps", "3,000steps" and 3000 are equal.

    Any value that is no duration is returned as it is.
    """
    return duration_of(duration) or duration


@dataclasses.dataclass(frozen=True)
class RunLength:
    """How long a run is, in steps.

    A finished run that goes on with a longer duration has legs: the first ended where it was
    finished, the present one begins there.
    """

    examples: int  # of the training set
    batch_size: int
    total: int  # the step at which the run ends
    began: int = 0  # the step at which the present leg began

    @classmethod
    def of(cls, config: Any, examples: int) -> "RunLength":
        """Return the length that a stage's config asks for; examples: of the training set."""
        with build.at_key("config.duration"):
            total = to_steps(config.duration, examples, config.batch_size)
            if total >= STEPS:
                raise InputError(
                    f"{config.duration!r} is {total:,} steps, of {STEPS - 1:,} at most"
                )
        return cls(examples, config.batch_size, total, config.get("began", 0))

    @property
    def leg(self) -> int:
        """The number of steps of the present leg."""
        return self.total - self.began

    @property
    def first_leg(self) -> int:
        """The number of steps of the first leg."""
        return self.began or self.total

    def steps(self, duration: int | float | str, of: int | None = None) -> int:
        """Return a duration as a number of steps.

        of: the steps that "5%" is a share of; None is all of the run.
        """
        of = self.total if of is None else of
        return to_steps(duration, self.examples, self.batch_size, of)

    def epochs(self, steps: int) -> float:
        """Return a number of steps as a number of epochs."""
        return steps * self.batch_size / self.examples

    def after(self, start: int) -> "RunLength":
        """Return the length of what begins at step `start` of the run and counts from there."""
        total, began = max(self.total - start, 1), max(self.began - start, 0)
        return dataclasses.replace(self, total=total, began=began)
