"""Presets: the settings of a sampler in a JSON file, as `benchmark samplers` chooses them.

{"generator": the name of the module that the settings are of, "sample": {key: value}}, and what
else whoever wrote it wants to say of them.
"""

import os
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from evqgan.core import files
from evqgan.core.errors import InputError

WHAT = "a preset of a sampler, as python -m evqgan.benchmark samplers writes it"


def save(
    path: str | os.PathLike[str], generator: str, settings: Mapping[str, Any], **more: Any
) -> None:
    """Write a preset.

    generator: the name of the module in evqgan/generators.
    settings: values of config.sample; one that is None is left out, as that is its default.
    more: what else the file says.
    """
    kept = {key: value for key, value in settings.items() if value is not None}
    files.save_json(path, {"generator": generator, "sample": kept, **more})


def apply(config: ConfigDict, path: str | os.PathLike[str]) -> None:
    """Let the settings in a preset take the place of config.sample.

    config: of a generator, or of a quickstart, whose generator's it is then.

    Raises InputError for a file that is no preset, or one of another generator.
    """
    found = files.read_json(path, WHAT, "give such a file")
    if not isinstance(found.get("sample"), dict) or not isinstance(found.get("generator"), str):
        raise InputError(f"{path} is not {WHAT}: it lacks generator or sample")
    part = config.generator if config.stage == "quickstart" else config
    name = part.get("generator", {}).get("name")
    if name != found["generator"]:
        there = f"the generator {name}" if name else "no generator"
        raise InputError(f"{path} is for the generator {found['generator']}: here is {there}")
    with part.unlocked():
        part.sample = ConfigDict(found["sample"])
