"""The keywords of the public functions, for type checkers: a misspelt one is an error they see."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypedDict

import numpy as np

Label: TypeAlias = int | str | np.integer  # a class, by number or by name
Labels: TypeAlias = Label | Sequence[Label] | np.ndarray | None  # several in turn; None: all


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
    force: bool


class EditKeywords(SamplerKeywords, total=False):
    """The keywords of `Model.edit` and `Model.outpaint`, see `editing.edit`."""

    margin: int | None
    feather: float | None
    force: bool


def of(function: Callable, more: type = SamplerKeywords) -> list[str]:
    """Return the names of what a public function takes, but for changes to config.sample.

    more: the TypedDict of its **keywords, if it has any others.
    """
    named = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    ]
    others = inspect.get_annotations(more).keys() - inspect.get_annotations(SamplerKeywords).keys()
    return [*named, *sorted(others)]
