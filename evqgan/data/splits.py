"""Parts of a data set by name, in the notation of TensorFlow Datasets.

Such as train, train[:90%], train+validation[100:].
"""

import re
from collections.abc import Mapping, Sequence

from evqgan.core.build import suggestion
from evqgan.core.errors import InputError

PART = re.compile(r"([^\[\]+:]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def select(spec: str, splits: Mapping[str, Sequence], where: str) -> list:
    """Return the examples that `spec` names.

    splits: {name: sequence}.
    where: what errors call the data set.
    Raises InputError on a malformed spec, on an unknown name and on an empty selection.
    """
    chosen: list = []
    for part in spec.split("+"):
        match = PART.fullmatch(part.strip())
        if not match:
            raise InputError(
                f"{where}: expected a split such as train, train[:90%] or train+test, got {spec!r}"
            )
        name, start, stop = match.groups()
        if name not in splits:
            raise InputError(f"{where} has no split {name!r}: {suggestion(name, splits)}")
        examples = splits[name]
        chosen.extend(examples[_bound(start, len(examples)) : _bound(stop, len(examples))])
    if not chosen:
        raise InputError(f"{where}: the split {spec!r} holds no example")
    return chosen


def _bound(text: str | None, length: int) -> int | None:
    """Return a slice bound: the number, or "10%" of `length` to the closest, as tfds does."""
    if text is None:
        return None
    return round(length * int(text[:-1]) / 100) if text.endswith("%") else int(text)
