"""What is asked of a generator, checked before anything is loaded or compiled."""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import build, kinds, limits, schema
from evqgan.core.errors import InputError, shown
from evqgan.inference.class_names import NAMES, Classes
from evqgan.inference.images import check_plain

LABEL = 16  # bytes that a label takes while those of all images are made
SEED = Annotated[int, kinds.Range(0, 2**63 - 1)]  # as the int64 of a samples.npz holds it


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
    for name, value in (changes or {}).items():
        check_plain(value, name)
    return generator.settings({**build.plain(config.get("sample", {})), **(changes or {})})


def sampler_of(config: ConfigDict) -> dict[str, Any]:
    """Return all settings of a config's sampler by name: of config.sample, defaults for others.

    InputError if its generator cannot sample so.
    """
    generator = models.of_stage2(config)
    settings = settings_of(config, generator)
    generator.check_settings(settings)
    return dataclasses.asdict(settings)


def check_config(config: Any) -> None:
    """Raise InputError unless it is the config of one stage, as models have it, or None."""
    if config is None:
        return
    if not isinstance(config, ConfigDict):
        expected = "a ConfigDict, such as another model's .config, with changes"
        raise InputError(f"expected config as {expected}, got {shown(config)}")
    schema.check(config)


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
        raise InputError(f"expected {expected}, got {shown(num)}")
    check_plain(seed, "a seed")
    if not kinds.fits(seed, SEED):
        raise InputError(f"expected a seed that is {kinds.describe(SEED)}, got {shown(seed)}")


def check_part(part: Any) -> None:
    """Raise InputError unless it is (i, n), the i-th of n parts of the work, i from 0."""
    expected = "a part (i, n), the i-th of n from 0 on"
    whole = isinstance(part, tuple | list) and all(kinds.fits(x, int) for x in part)
    if not whole or len(part) != 2 or not part[0] < part[1]:
        raise InputError(f"expected {expected}, got {shown(part)}")


def check_folder(folder: Any) -> None:
    """Raise InputError unless it is the path of a folder, or None."""
    if folder is None:
        return
    if not isinstance(folder, str | os.PathLike) or "\0" in os.fspath(folder):
        raise InputError(f"expected the path of a folder, got {shown(folder)}")


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
    check_plain(labels, "labels")
    if not kinds.fits(acceptance, float) or not 0 < acceptance <= 1:
        raise InputError(f"expected an acceptance above 0 and at most 1, got {shown(acceptance)}")
    limits.limit_work(num / acceptance, limits.IMAGES, "images to generate", force)
    # Not yet the images, which need not be in memory all at once.
    limits.require_memory(int(num) * LABEL, f"the labels of {num:,} images")
    return classes.labels_of(labels, int(num))


def checked_edit_labels(
    classes: Classes, shape: Sequence[int], label: Any, num: int, seed: int
) -> np.ndarray:
    """Check the arguments of an edit, and return the label of each result, int32 [num].

    Raises InputError for what cannot be made. shape: (H, W) of the model's images.
    """
    check_number(num, seed)
    check_plain(label, "a label")
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
