"""What the fields of the page offer: classes by name, and the settings of the sampler."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evqgan.core import presets
from evqgan.core.errors import InputError
from evqgan.inference import planning
from evqgan.inference.core import CoreModel

EVERY = -1  # the value of "every class in turn"
OWN = "as the model comes"
STEPS = 64  # ours: steps in a block, or the model's own if they are more
# Settings with a field of their own; text of the field, and whether it is a whole number.
FIELDS = {
    "steps": ("Steps in a block", True),
    "temperature": ("Temperature", False),
    "choice_temperature": ("Noise in what stays", False),
    "guidance": ("Guidance by the class", False),
    "top_k": ("Likeliest codes (0: all)", True),
    "top_p": ("Share of likeliest codes", False),
}


def classes(model: CoreModel, every: bool) -> list[tuple[str, int]]:
    """Return the (text, value) of each class to choose; value is its number, or EVERY.

    every: whether all of them in turn can be chosen.
    """
    names = model.class_names or tuple(map(str, range(model.classes)))
    listed = [(name, label) for label, name in enumerate(names)]
    return ([("every class in turn", EVERY)] if every else []) + listed


def word(model: CoreModel, label: int) -> str:
    """Return how a class is called on a command line: its name, where that is clear there."""
    name = model.class_names[label] if model.class_names else ""
    is_clear = name and name == name.strip() and not set(name) & set(",\"'\n\r")
    return name if is_clear else str(label)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of the sampler to begin with.

    settings: all of them by name. flag: what a command line needs for them, "" if nothing.
    """

    settings: Mapping[str, Any]
    flag: str = ""


def all_presets(model: CoreModel, paths: Sequence[str | os.PathLike[str]]) -> dict[str, Preset]:
    """Return the presets of a model by name: its own, some that vary it, and those of files.

    paths: of files that `benchmark samplers` has written. InputError for one that does not fit.
    """
    found = {OWN: Preset(model.sampler)}
    for name, changes in variants(model).items():
        try:
            model.check_settings(changes)
        except InputError:  # such as guidance of a model that was trained without class dropout
            continue
        found[name] = Preset({**model.sampler, **changes})
    for path in paths:
        found[pathlib.Path(path).stem] = of_file(model, path)
    return found


def variants(model: CoreModel) -> dict[str, dict[str, Any]]:
    """Return changes to a model's settings that show what these do; the values are ours."""
    sampler, found = model.sampler, {}
    if isinstance(sampler.get("temperature"), float):
        found["calmer: temperature 0.8"] = {"temperature": 0.8}
        found["wilder: temperature 1.2"] = {"temperature": 1.2}
    if isinstance(sampler.get("steps"), int) and sampler["steps"] > 1:
        half = sampler["steps"] // 2
        found[f"quicker: {half} steps"] = {"steps": half}
    if "guidance" in sampler:
        found["truer to the class: guidance 1.5"] = {"guidance": 1.5}
    return {name: x for name, x in found.items() if {**sampler, **x} != sampler}


def of_file(model: CoreModel, path: str | os.PathLike[str]) -> Preset:
    """Return the preset in a file; InputError for none, or one of another generator."""
    config = model.config.copy_and_resolve_references()
    presets.apply(config, path)
    return Preset(planning.sampler_of(config), f"--preset={os.fspath(path)}")


def fields(model: CoreModel) -> list[str]:
    """Return which settings of a model's sampler have a field."""
    return [key for key in FIELDS if isinstance(model.sampler.get(key), int | float)]


def changed(
    model: CoreModel, preset: Preset, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes to config.sample that a preset and the fields make.

    values: of `fields`; None is the preset's.

    Returns all of them, and those that a command line needs beside the preset's flag. InputError
    for settings that there cannot be.
    """
    given = {key: number(key, x) for key, x in values.items() if x is not None}
    settings = {**preset.settings, **given}
    changes = {key: x for key, x in settings.items() if x != model.sampler[key]}
    if changes.get("steps", 0) > max(STEPS, model.sampler.get("steps") or 0):
        raise InputError(f"{FIELDS['steps'][0]}: expected at most {STEPS}, got {changes['steps']}")
    try:
        model.check_settings(changes)
    except InputError as error:
        raise InputError(in_fields(str(error))) from error
    start = preset.settings if preset.flag else model.sampler
    return changes, {key: x for key, x in settings.items() if x != start[key]}


def in_fields(message: str) -> str:
    """Return a message with the texts of the page's fields in the place of the config's keys."""
    for key, (text, _) in FIELDS.items():
        message = re.sub(rf"\b(config\.)?sample\.{key}\b", f"{text}:", message)
    return message


def number(key: str, value: Any) -> int | float:
    """Return the value of a setting's field as its kind of number; InputError for all else."""
    text, is_whole = FIELDS[key]
    try:
        found = float(value)
        if is_whole and found != int(found):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        kind = "a whole number" if is_whole else "a number"
        raise InputError(f"{text}: expected {kind}, got {value!r}") from None
    return int(found) if is_whole else found
