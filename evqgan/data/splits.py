"""Parts of a data set by name, in the notation of TensorFlow Datasets: train, train[:90%], train+validation[100:]."""

import re

from evqgan.core.build import nearest
from evqgan.core.errors import InputError

PART = re.compile(r"([^\[\]+:]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def select(spec, splits, where):
    """The examples that `spec` names, as a list, out of `splits` {name: sequence}; errors name the data set `where`.

    InputError on a malformed spec, on an unknown name and on an empty selection.
    """
    chosen = []
    for part in spec.split("+"):
        match = PART.fullmatch(part.strip())
        if not match:
            raise InputError(f"{where}: expected a split such as train, train[:90%] or train+test, got {spec!r}")
        name, start, stop = match.groups()
        if name not in splits:
            raise InputError(f"{where} has no split {name!r}: {nearest(name, splits)}")
        examples = splits[name]
        chosen.extend(examples[_bound(start, len(examples)) : _bound(stop, len(examples))])
    if not chosen:
        raise InputError(f"{where}: the split {spec!r} holds no example")
    return chosen


def _bound(text, length):
    """A slice bound: "10%" of `length` to the closest example, as tfds does, or the number as it stands."""
    if text is None:
        return None
    return round(length * int(text[:-1]) / 100) if text.endswith("%") else int(text)
