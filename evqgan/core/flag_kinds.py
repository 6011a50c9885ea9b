"""The kinds of values that the flags of a command line take, as parsers of absl."""

import os
import re
from typing import Any

from absl import flags

from evqgan.core import stores


class _Whole(flags.IntegerParser):
    """Whole numbers in decimal digits alone: 0x10 and 1_000 are more often a slip than a wish."""

    def convert(self, argument: Any) -> int:
        if isinstance(argument, str) and not re.fullmatch(r"[+-]?\d+", argument):
            raise ValueError(f"expected a whole number, got {argument!r}")
        return int(argument)


STEPS = ("best", "last")  # which checkpoint of a run, in place of a number (`chosen_step`)


class _Step(flags.ArgumentParser):
    """The step of a checkpoint, or one of STEPS."""

    syntactic_help = "the step of a checkpoint, best or last"

    def parse(self, argument: Any) -> Any:
        return argument if argument in STEPS else whole(0).parse(argument)


class _Texts(flags.ListParser):
    """Texts with commas between them: none at all would not say whether all are meant."""

    def __init__(self) -> None:
        super().__init__()
        self.syntactic_help = "values with commas between them; leave the flag out for its default"

    def parse(self, argument: Any) -> list[str]:
        found: list[str] = super().parse(argument)
        if not all(found) or not found:
            raise ValueError("empty")
        return found


class _Path(flags.ArgumentParser):
    """Paths, in which "~" is the home folder: a shell leaves it as it is in --name=~/folder."""

    def __init__(self, on_bucket: bool = False) -> None:
        super().__init__()
        self._on_bucket = on_bucket

    def parse(self, argument: Any) -> str:
        if stores.is_remote(argument) and not self._on_bucket:
            raise ValueError("expected a local path; copy it first, as by `gcloud storage cp`")
        return os.path.expanduser(argument)


TEXT: flags.ArgumentParser = flags.ArgumentParser()
PATH, PLACE = _Path(), _Path(on_bucket=True)  # the latter may be as gs://bucket/run
TEXTS = _Texts()
SWITCH = flags.BooleanParser()
STEP = _Step()


def whole(low: int, high: int | None = None) -> flags.ArgumentParser:
    """Return the kind of a flag that takes a whole number from `low`, and to `high` if given."""
    return _Whole(low, high)


def number(low: float, high: float) -> flags.ArgumentParser:
    """Return the kind of a flag that takes a number from `low` to `high`."""
    return flags.FloatParser(low, high)


def choice(*values: str) -> flags.ArgumentParser:
    """Return the kind of a flag that takes one of `values`."""
    return flags.EnumParser(list(values))
