"""Class names and numbers as people give them, resolved to labels."""

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evqgan.core import build, kinds
from evqgan.core.errors import InputError

NAMES = 20  # ours: of more class names than this, an error lists none


class Classes(NamedTuple):
    """The classes of a workdir's generator.

    number: how many there are; 0 of an unconditional one.
    names: theirs, or none.
    workdir: what errors call the generator.
    """

    number: int
    names: Sequence[str]
    workdir: Any

    def label_of(self, name: Any) -> int:
        """Return the number of a class: of an int, that; of a text, of the class of that name.

        A text that is no name is the number that it spells, unless classes have numbers for names;
        blanks around it do not count.
        """
        if not self.number:
            model = f"{self.workdir} holds an unconditional model"
            raise InputError(f"{model}: it takes no labels, got {name!r}")
        if isinstance(name, str) and name not in self.names:
            name = name.strip()
        is_whole = kinds.fits(name, int)
        if not is_whole and str(name) in self.names:
            return list(self.names).index(str(name))
        numbered = any(map(str.isdecimal, self.names))
        spelt = isinstance(name, str) and name.isdecimal() and not numbered
        if (is_whole or spelt) and int(name) < self.number:
            return int(name)
        expected = f"a whole number from 0 to {self.number - 1}"
        if not is_whole and (numbered or not is_number(name)):  # else no name was meant
            near = self.names
            if len(near) > NAMES:
                near = difflib.get_close_matches(str(name), near)
            hint = build.suggestion(name, near).removeprefix("expected ")
            expected += f", or a name: {hint}" if near else ""
        raise InputError(f"there is no class {name!r}: expected {expected}")

    def labels_of(self, labels: Any, num: int) -> np.ndarray:
        """Return the class of each of `num` images, int32 [num].

        labels: one class or several to go through in turn, by number or name; a text may be several
          with commas between them. None: all.
        """
        if labels is None:
            return np.resize(np.arange(max(self.number, 1), dtype=np.int32), num)
        if isinstance(labels, set | frozenset | Mapping):
            got = type(labels).__name__
            raise InputError(f"labels come in an order: expected a list of classes, got a {got}")
        if isinstance(labels, Iterator):
            labels = list(itertools.islice(labels, num))
        is_scalar = isinstance(labels, str | bytes) or getattr(labels, "ndim", 1) == 0
        if is_scalar or not hasattr(labels, "__len__"):
            one = labels.item() if hasattr(labels, "item") else labels
            several = isinstance(one, str) and one not in self.names
            labels = [text.strip() for text in one.split(",") if one] if several else [one]
        if not len(labels):
            raise InputError(
                "labels names no class: give one or several, such as 3 or 3,5, or leave it out for "
                "all classes"
            )
        return np.resize(np.array([self.label_of(x) for x in labels], np.int32), num)


def is_number(value: Any) -> bool:
    """Return whether a value is a number, or a text that spells one."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)
