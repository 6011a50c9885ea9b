"""The keywords of the public functions, for type checkers: a misspelt one is an error they see."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict

import numpy as np

Label: TypeAlias = int | str | np.integer  # a class, by number or by name
Labels: TypeAlias = Label | Sequence[Label] | np.ndarray | None  # several in turn; None: all

# The keywords of the public functions that are no changes to config.sample.
OF_LOAD = ("workdir", "config", "step", "batch_size", "device", "dtype")
OF_IMAGES = ("num", "seed", "output", "progress", "force")
OF_SAMPLE = (*OF_IMAGES, "labels", "acceptance", "classifier", "folder", "part")
OF_EDIT = (*OF_IMAGES, "image", "mask", "label", "margin", "feather")


class SamplerKeywords(TypedDict, total=False):
    """Changes to config.sample: the fields of the Settings of all generators.

    What each is stands there; which of them a generator has, and what values they may have, is
    checked when they are used.
    """

    steps: int
    first: int
    temperature: float
    final_temperature: float | None
    choice: str
    choice_temperature: float
    schedule: str
    top_k: int | tuple[int, ...]
    top_p: float | tuple[float, ...]
    guidance: float
    guidance_schedule: str
    remask: float
    remask_schedule: str
    order: str


class GenerateKeywords(SamplerKeywords, total=False):
    """The keywords that `Model.generate` passes on to `Model.sample`."""

    acceptance: float
    classifier: Any
    folder: Any
    part: tuple[int, int]
    force: bool


class EditKeywords(SamplerKeywords, total=False):
    """The keywords of `Model.edit` and `Model.outpaint`, see `editing.edit`."""

    margin: int | None
    feather: float | None
    force: bool
