"""Which settings of a sampler are measured, and which of them are chosen: the search alone.

Nothing here knows a model. A setting is a dict of all keys of config.sample; what is measured of
it, one dict of numbers a seed, comes of a function.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95  # ours: of the error bars
ALIKE = 1.2  # ours: costs whose ratio is less do not differ: clocks are no better

Setting = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is known of a setting.

    distances: to real images, one of each seed; the lower the better.
    shares: of samples in their class, one of each seed; empty: not measured.
    seconds: that an image takes, the least of all seeds.
    """

    setting: Setting
    distances: tuple[float, ...]
    shares: tuple[float, ...]
    seconds: float

    @property
    def distance(self) -> float:
        """The mean distance."""
        return float(np.mean(self.distances))


def half_width(a: Sequence[float], b: Sequence[float]) -> float:
    """Return how far two means may lie apart by chance: Student's interval of their difference.

    a, b: numbers of as many seeds. Of one seed nothing is known, and it is 0.
    """
    if min(len(a), len(b)) < 2:
        return 0.0
    error = math.sqrt(sum(np.var(x, ddof=1) / len(x) for x in (a, b)))
    return float(stats.t.ppf((1 + LEVEL) / 2, len(a) + len(b) - 2)) * error


def is_less(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether the mean of a is below that of b, beyond the error bars."""
    return float(np.mean(a)) < float(np.mean(b)) - half_width(a, b)


def chosen(found: Iterable[Measured], preset: Measured) -> Measured:
    """Return the setting to take.

    It has the least distance. Those that do not differ from it beyond the error bars tie with it,
    and the cheapest of them is taken; of equally cheap ones that which changes the fewest keys of
    the preset, and of these that of the least distance. A setting with a smaller share of samples
    in their class than the preset, beyond the error bars, is not taken.
    """

    def changes(x: Measured) -> int:
        return sum(value != preset.setting[key] for key, value in x.setting.items())

    allowed = [x for x in found if not (x.shares and is_less(x.shares, preset.shares))]
    best = min(allowed, key=lambda x: x.distance)
    tied = [x for x in allowed if not is_less(best.distances, x.distances)]
    cheapest = min(x.seconds for x in tied)
    alike = [x for x in tied if x.seconds < cheapest * ALIKE]
    return min(alike, key=lambda x: (changes(x), x.distance))


def holds(choice: Measured, preset: Measured) -> bool:
    """Return whether a choice is better than the preset beyond the error bars, or ties and is
    cheaper; with no smaller share of samples in their class.
    """
    if choice.shares and is_less(choice.shares, preset.shares):
        return False
    if is_less(preset.distances, choice.distances):
        return False
    is_cheaper = choice.seconds * ALIKE < preset.seconds
    return is_cheaper or is_less(choice.distances, preset.distances)


def front_of(found: Iterable[Measured]) -> list[Measured]:
    """Return those than which no other is both nearer and cheaper, the cheapest first."""
    best: list[Measured] = []
    for one in sorted(found, key=lambda x: (x.seconds, x.distance)):
        if not best or one.distance < best[-1].distance:
            best.append(one)
    return best


def effective(setting: Mapping[str, Any], preset: Mapping[str, Any]) -> Setting:
    """Return a setting with the preset's value of each key that changes nothing beside the others.

    So that no two settings that are measured make the same images.
    """
    found = dict(setting)

    def unused(*keys: str) -> None:
        found.update({key: preset[key] for key in keys if key in found})

    if found.get("steps") == 1:
        unused("choice", "choice_temperature", "schedule", "remask", "final_temperature")
    if found.get("choice") == "halton":
        unused("choice_temperature")
    if not found.get("remask", 1):
        unused("remask_schedule")
    if not found.get("guidance", 1):
        unused("guidance_schedule")
    return found


def untried(values: Mapping[str, Sequence[Any]], found: Sequence[Measured]) -> Setting:
    """Return {key: its values that no setting of `found` has}, of the keys that have any.

    values: as in `search`.
    """
    left = {
        key: [x for x in of_key if all(one.setting[key] != x for one in found)]
        for key, of_key in values.items()
    }
    return {key: some for key, some in left.items() if some}


def search(
    preset: Setting,
    values: Mapping[str, Sequence[Any]],
    budget: int,
    measure: Callable[[Setting], Measured],
) -> list[Measured]:
    """Return what is measured of at most `budget` settings, the preset first.

    All combinations of `values`, where the budget allows; else one key after the other, from the
    best so far (`chosen`), until no key brings another one.

    values: {key: its values}; the preset's own is one of them whether it is there or not.
    measure: is called once for each setting.
    """
    found: list[Measured] = []

    def known(setting: Setting) -> bool:
        return any(x.setting == setting for x in found)

    def take(changes: Mapping[str, Any], best: Setting) -> None:
        setting = effective({**best, **changes}, preset)
        if not known(setting) and len(found) < budget:
            found.append(measure(setting))

    take({}, preset)
    options = {key: [preset[key], *of_key] for key, of_key in values.items()}
    whole = [dict(zip(options, x, strict=True)) for x in itertools.product(*options.values())]
    different = {repr(effective({**preset, **changes}, preset)) for changes in whole}
    if len(different) <= budget:
        for changes in whole:
            take(changes, preset)
        return found
    while True:
        before = chosen(found, found[0])
        for key, of_key in values.items():
            best = chosen(found, found[0]).setting
            for value in of_key:
                take({key: value}, best)
        if len(found) >= budget or chosen(found, found[0]) == before:
            return found
