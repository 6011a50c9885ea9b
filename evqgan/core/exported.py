"""Exported models: folders as `python -m evqgan.export` writes them, and those that ship.

Such a folder is read wherever a workdir is, and never written into. It holds

    config.json         {"stage": "exported", "steps": {part: step, null if not known},
                        "tokenizer": a config of stage 1, "generator": one of stage 2, unless it
                        is a tokenizer alone}
    model.safetensors   the weights of both, see `core.exported_weights`
    README.md           the model card; and what else `evqgan.export` says, see FILES
"""

import difflib
import os
import pathlib
from typing import Any

from evqgan.core import files, hub, public_names, stores
from evqgan.core.errors import InputError, leads_nowhere

STAGE = "exported"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
RECONSTRUCT, DECODE, SAMPLE = PROGRAMS = ("reconstruct.jax", "decode.jax", "sample.jax")
CARD, LICENCE, EVALUATION = "README.md", "LICENSE.txt", "evaluation.json"
CHECK, REFERENCE = "check.json", "reference.npz"
# All that such a folder may hold; the first two it does.
FILES = (CONFIG, WEIGHTS, CARD, LICENCE, EVALUATION, CHECK, REFERENCE, *PROGRAMS)
PARTS = ("tokenizer", "generator")
EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"  # a folder for each model that ships
# What makes a folder a workdir or an exported model, if maybe not a whole one.
RUN = (CONFIG, "checkpoints")  # of a run of one stage, or of a part of one of both
OF_WORKDIR = (*RUN, WEIGHTS, *(f"{part}/{name}" for part in PARTS for name in RUN))
# What the workdir of a run of both stages has besides its parts, from its start: see
# `quickstart_record`.
BOTH = ("quickstart.json", "plan.json")


def names() -> list[str]:
    """Return the names of the models that ship with this package."""
    return sorted(path.parent.name for path in EXAMPLES.glob(f"*/{CONFIG}"))


def meant(path: pathlib.Path) -> str:
    """Return "did you mean the model 'drawings'? Or " for a path that is like a name, else ""."""
    close = difflib.get_close_matches(path.name, [*names(), *public_names.NAMES], n=1)
    is_name = path.parent == pathlib.Path(".")
    return f"did you mean the model {close[0]!r}? Or " if is_name and close else ""


def no_workdir(path: pathlib.Path) -> str:
    """Return the message for a path that was given as a workdir but has no config.json."""
    if not stores.is_remote(path) and (link := leads_nowhere(path)):
        return f"{link}: give the folder that a run was trained in, its workdir"
    if path.is_file():
        return f"{path} is a file: give the folder that a run was trained in, its workdir"
    if path.parent.name == "checkpoints":
        return f"{path} is a checkpoint: give its workdir, {path.parent.parent}"
    if advice := public_names.advice(path):
        return advice
    tokenizer = path / "tokenizer"
    for run in (path, path / "generator", tokenizer):
        if (run / "checkpoints").is_dir() and not (run / "config.json").is_file():
            hint = f"bring it back from a copy, or {files.ANEW}"
            return f"{run / 'config.json'} is missing beside checkpoints/: {hint}"
    if (tokenizer / "config.json").is_file():
        return (
            f"{path} holds a run of both stages, whose generator has not begun: the command that "
            f"began it goes on with it; the tokenizer alone is {tokenizer}"
        )
    if any((path / name).is_file() for name in BOTH):
        return (
            f"{path} holds a run of both stages that was stopped before its tokenizer began: the "
            "command that began it goes on with it"
        )
    hint = f"train one with --config=FILE --workdir={path}"
    if str(path) in names():  # as "./drawings" was given: the name alone is the model
        return f"there is no ./{path / 'config.json'}: the model that ships is {path}, without ./"
    if shipped := names():
        hint += f", or give the name of a model that ships: {', '.join(shipped)}"
    hint = meant(path) + hint
    is_pair = len(path.parts) == 2 and not path.is_absolute() and path.parts[0] != ".."
    if is_pair and path.parts[0] != "workdirs" and not path.parent.is_dir():
        hint += f", or one of the Hugging Face Hub as hf://{path.as_posix()}"
    return f"{path} is no workdir: there is no {path / 'config.json'}; {hint}"


def is_one(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds an exported model."""
    return (stores.path(folder) / WEIGHTS).is_file()


def find(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder that `workdir` names: a path, or a model that ships, of the Hub or public.

    The last three are told by their names. A folder of that name comes first where it is a workdir
    or an exported model. A model of the Hub is fetched (`core.hub`). Of a public model, it is the
    place of the converted one, there or not.
    """
    path, name = stores.path(workdir).expanduser(), os.fspath(workdir)
    if any((path / place).exists() for place in OF_WORKDIR):
        return path
    if hub.is_named(name):
        return hub.fetch(hub.parse(name).place, FILES, (CONFIG, WEIGHTS), STAGE)
    if name in public_names.NAMES:
        return public_names.folder(name)
    return EXAMPLES / name if name in names() else path


def results(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder where results go if --out does not say: of a workdir, itself.

    Of an exported model, which may lie in an installed package, it is workdirs/NAME; of a public
    one or one of the Hub, which lies in a cache, too.
    """
    folder = find(workdir)
    if name := hub.name_of(folder):
        return pathlib.Path("workdirs", *name.split("/"))
    if public_names.home() in folder.parents:
        return "workdirs" / folder.relative_to(public_names.home())
    if not is_one(folder):
        return stores.path(workdir)
    name = folder.name if stores.is_remote(folder) else stores.real(folder).name
    return pathlib.Path("workdirs", name)


def again(folder: str | os.PathLike[str]) -> str:
    """Return what to do about a folder that is damaged."""
    folder = stores.path(folder) if stores.is_remote(folder) else pathlib.Path(folder).absolute()
    if hub.name_of(folder):
        return f"remove {folder.parents[1]}, and give the command again, which fetches it anew"
    return "copy the whole folder again, or export the model again"


def part_of(found: dict[str, Any], part: str, folder: pathlib.Path) -> dict[str, Any] | None:
    """Return the config of a part of an exported model, None where there is no generator.

    found: what its config.json holds. part: one of PARTS.

    Raises InputError for a folder that is not whole.
    """
    file = folder / CONFIG
    if not is_one(folder):
        raise InputError(f"{folder} holds an exported model, but no {WEIGHTS}: {again(folder)}")
    section = found.get(part)
    if not isinstance(found.get("tokenizer"), dict) or not isinstance(section, dict | None):
        why = f"it has no tokenizer; {again(folder)}"
        raise InputError(f"{file} is not what evqgan.export writes: {why}")
    return section


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Return what the config.json in a folder holds: a workdir's, or that of an exported model.

    Raises InputError for a damaged one, which says what to do about a folder of its kind.
    """
    file = folder / CONFIG
    if is_one(folder):
        return files.read_json(file, "the config of an exported model", again(folder))
    return files.read_json(file)


def step_of(folder: str | os.PathLike[str], part: str) -> int:
    """Return the step of the checkpoint that a part was exported from, 0 if that is not known.

    part: one of PARTS. Raises InputError where the folder does not say it.
    """
    file = stores.path(folder) / CONFIG
    steps = read_config(file.parent).get("steps")
    if isinstance(steps, dict) and steps.get(part, "") is None:
        return 0
    step = steps.get(part) if isinstance(steps, dict) else None
    if not isinstance(step, int):
        why = f"it has no steps; {again(folder)}"
        raise InputError(f"{file} is not what evqgan.export writes: {why}")
    return step


def check_step(folder: str | os.PathLike[str], part: str, step: int | None) -> int:
    """Return `step_of` a part; InputError unless it is `step`; None: any."""
    found = step_of(folder, part)
    if step not in (None, found):
        raise InputError(
            f"{folder} is an exported model of step {found:,}, not of step {step:,}: leave step out"
        )
    return found
