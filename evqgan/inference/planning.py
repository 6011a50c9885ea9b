"""What is asked of a generator, checked before anything is loaded or compiled."""

import dataclasses
import difflib
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import build, kinds, limits
from evqgan.core.errors import InputError

SEED = Annotated[int, kinds.Range(0, 2**63 - 1)]  # as the int64 of a samples.npz holds it
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


def classes_of(config: ConfigDict, workdir: Any, what: str) -> Classes:
    """Return the classes of a generator's config; InputError for a tokenizer's.

    what: needs them, in words.
    """
    require_generator(config.stage == "stage2", workdir, what)
    names = tuple(config.get("class_names", ()))
    return Classes(config.generator.get("classes", 0), names, workdir)


def require_generator(is_one: bool, workdir: Any, what: str) -> None:
    """Raise InputError unless a workdir's model is a generator.

    what: needs one, in words.
    """
    if not is_one:
        needed = f"{what} needs the workdir of a generator"
        raise InputError(f"{workdir} holds a tokenizer: {needed}")


def settings_of(
    config: ConfigDict, generator: models.TokenGenerator, changes: Mapping[str, Any] | None = None
) -> Any:
    """Return the settings of the sampler: those of config.sample with `changes`.

    Raises InputError for an unknown key or an impossible value.
    """
    return generator.settings({**build.plain(config.get("sample", {})), **(changes or {})})


def sampler_of(config: ConfigDict) -> dict[str, Any]:
    """Return all settings of a config's sampler by name: of config.sample, defaults for others.

    InputError if its generator cannot sample so.
    """
    generator = models.of_stage2(config)
    settings = settings_of(config, generator)
    generator.check_settings(settings)
    return dataclasses.asdict(settings)


def check_keywords(given: Iterable[str], sampler: Iterable[str], keywords: Iterable[str]) -> None:
    """Raise InputError for a keyword that `load` or a method of `Model` does not have.

    given: those that a caller gives, as changes to config.sample.
    sampler: the keys of the generator's settings; keywords: all others.
    """
    known = {*sampler, *keywords}
    for name in sorted({*given} - known):
        raise InputError(f"there is no keyword {name!r}: {build.suggestion(name, known)}")


def check_number(num: Any, seed: Any) -> None:
    """Raise InputError unless there can be `num` images of this seed."""
    if not kinds.fits(num, kinds.Positive):
        expected = "at least one image to generate, a whole number"
        raise InputError(f"expected {expected}, got {num!r}")
    if not kinds.fits(seed, SEED):
        raise InputError(f"expected a seed that is {kinds.describe(SEED)}, got {seed!r}")


def check_part(part: Any) -> None:
    """Raise InputError unless it is (i, n), the i-th of n parts of the work, i from 0."""
    expected = "a part (i, n), the i-th of n from 0 on"
    whole = isinstance(part, tuple | list) and all(kinds.fits(x, int) for x in part)
    if not whole or len(part) != 2 or not part[0] < part[1]:
        raise InputError(f"expected {expected}, got {part!r}")


def check_folder(folder: Any) -> None:
    """Raise InputError unless it is the path of a folder, or None."""
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise InputError(f"expected the path of a folder, got {folder!r}")


def checked_labels(
    classes: Classes,
    num: int,
    labels: Any = None,
    seed: int = 0,
    acceptance: float = 1.0,
    force: bool = False,
) -> np.ndarray:
    """Check the arguments of `Model.sample`, and return the label of each image, int32 [num].

    Raises InputError for what cannot be sampled.
    """
    check_number(num, seed)
    if not 0 < acceptance <= 1:
        raise InputError(f"expected an acceptance above 0 and at most 1, got {acceptance}")
    limits.limit_work(num / acceptance, limits.IMAGES, "images to generate", force)
    return classes.labels_of(labels, int(num))


def checked_edit_labels(
    classes: Classes, shape: Sequence[int], label: Any, num: int, seed: int
) -> np.ndarray:
    """Check the arguments of an edit, and return the label of each result, int32 [num].

    Raises InputError for what cannot be made. shape: (H, W) of the model's images.
    """
    check_number(num, seed)
    limits.require_memory(int(num) * math.prod(shape) * 3, f"{num:,} results")
    if classes.number > 1 and label is None:
        which = f"a whole number from 0 to {classes.number - 1}"
        if classes.names:
            which += f", or a name such as {', '.join(classes.names[:NAMES])}"
        raise InputError(
            "this model is class-conditional: editing needs a label, the class of what is new "
            f"(--label, in Python label=): {which}"
        )
    one = label.item() if getattr(label, "shape", None) == () else label
    if hasattr(one, "__len__") and not isinstance(one, str):
        expected = "one class for an edit, a number or a name"
        got = f"a {type(one).__name__} of {len(one)}"
        raise InputError(f"expected {expected}, got {got}: edit once for each class")
    return np.full(num, 0 if one is None else classes.label_of(one), np.int32)
