"""Exported models: folders as `python -m evqgan.export` writes them, and those that ship.

Such a folder is read wherever a workdir is, and never written into. It holds

    config.json         {"stage": "exported", "steps": {part: step}, "tokenizer": a config of
                        stage 1, "generator": one of stage 2, unless it is a tokenizer alone}
    model.safetensors   the weights of both, see `core.exported_weights`
    README.md           the model card; and what else `evqgan.export` says
"""

import os
import pathlib
from typing import Any

from evqgan.core import files, public
from evqgan.core.errors import InputError

STAGE = "exported"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PARTS = ("tokenizer", "generator")
EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"  # a folder for each model that ships
# What makes a folder a workdir or an exported model, if maybe not a whole one.
OF_WORKDIR = (CONFIG, WEIGHTS, "checkpoints", f"generator/{CONFIG}", "generator/checkpoints")
AGAIN = "copy the whole folder again, or export the model again"


def names() -> list[str]:
    """Return the names of the models that ship with this package."""
    return sorted(path.parent.name for path in EXAMPLES.glob(f"*/{CONFIG}"))


def is_one(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds an exported model."""
    return pathlib.Path(folder, WEIGHTS).is_file()


def find(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder that `workdir` names: that path, or a model that ships or is public.

    The last two are told by their names. A folder of that name comes first where it is a workdir or
    an exported model. Of a public model, it is the place of the converted one, there or not.
    """
    path, name = pathlib.Path(workdir).expanduser(), os.fspath(workdir)
    if any((path / place).exists() for place in OF_WORKDIR):
        return path
    if name in public.NAMES:
        return public.folder(name)
    return EXAMPLES / name if name in names() else path


def results(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder where results go if --out does not say: of a workdir, itself.

    Of an exported model, which may lie in an installed package, it is workdirs/NAME; of a public
    one, which lies in a cache, too.
    """
    folder = find(workdir)
    if public.home() in folder.parents:
        return "workdirs" / folder.relative_to(public.home())
    is_part = is_one(folder)
    return pathlib.Path("workdirs", folder.resolve().name) if is_part else pathlib.Path(workdir)


def part_of(found: dict[str, Any], part: str, folder: pathlib.Path) -> dict[str, Any] | None:
    """Return the config of a part of an exported model, None where there is no generator.

    found: what its config.json holds. part: one of PARTS.

    Raises InputError for a folder that is not whole.
    """
    file = folder / CONFIG
    if not is_one(folder):
        raise InputError(f"{folder} holds an exported model, but no {WEIGHTS}: {AGAIN}")
    section = found.get(part)
    if not isinstance(found.get("tokenizer"), dict) or not isinstance(section, dict | None):
        raise InputError(f"{file} is not what evqgan.export writes: it has no tokenizer; {AGAIN}")
    return section


def step_of(folder: str | os.PathLike[str], part: str) -> int:
    """Return the step of the checkpoint that a part was exported from; part: one of PARTS."""
    file = pathlib.Path(folder) / CONFIG
    steps = files.read_json(file, "the config of an exported model", AGAIN).get("steps")
    step = steps.get(part) if isinstance(steps, dict) else None
    if not isinstance(step, int):
        raise InputError(f"{file} is not what evqgan.export writes: it has no steps; {AGAIN}")
    return step
