"""The keywords of the public functions, for type checkers: a misspelt one is an error they see."""

from collections.abc import Callable
from typing import Any, TypedDict


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
    """The keywords of `Model.generate`, see `Model.sample`."""

    report: Callable | None
    acceptance: float
    classifier: Any
    folder: Any
    part: tuple[int, int]
    force: bool


class EditKeywords(SamplerKeywords, total=False):
    """The keywords of `Model.edit` and `Model.outpaint`, see `editing.edit`."""

    margin: int | None
    feather: float | None
    report: Callable | None
    force: bool
