"""The folder of an exported model, written whole or not at all."""

import pathlib
import shutil

import evqgan
from evqgan.core import exported, exported_weights, files, stores
from evqgan.core.errors import InputError
from evqgan.core.progress import say
from evqgan.export import card, check, programs, sources
from evqgan.export.gathered import Gathered
from evqgan.inference.model import load


def require_new(dest: pathlib.Path) -> None:
    """Raise InputError unless `dest` is new or an empty folder that can be written."""
    files.check_elsewhere(dest)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        what = "holds files" if dest.is_dir() else "is a file"
        raise InputError(f"expected a new or empty folder, {dest} {what}: give another DEST")
    files.tried(dest.absolute().parent)


def write(
    dest: pathlib.Path, found: Gathered, dtype: str, num: int = 0, runs_alone: bool = True
) -> int:
    """Write the folder of a model; return the bytes of its weights.

    dtype: of the weights, see `exported_weights.save`. num: samples of `check`, 0 for none.
    runs_alone: whether to write the programs that JAX alone runs.

    What was written is read again before it takes its name. Raises InputError if a file cannot be
    written, or a check cannot be made.
    """
    with files.swapped(dest) as part:
        about = {"stage": exported.STAGE, "evqgan": evqgan.__version__, "steps": found.steps}
        files.save_json(part / exported.CONFIG, {**about, **found.configs})
        size = exported_weights.save(part, found.state, dtype)
        model = load(part)
        checked = check.write(part, model, found.dataset, num) if num else None
        if found.evaluation["numbers"]:
            files.save_json(part / exported.EVALUATION, found.evaluation)
        alone = written(part, part) if runs_alone else ""
        source = sources.UNKNOWN if found.is_converted else sources.source_of(found.config)
        text = card.Card(stores.real(dest).name, found, source, dtype, size, checked, alone).text()
        (part / exported.CARD).write_text(text, encoding="utf-8")
        (part / exported.LICENCE).write_text(card.licences(source, found.origin), encoding="utf-8")
    return size


def copy(source: pathlib.Path, dest: pathlib.Path) -> None:
    """Write a copy of an exported model whose programs are of this version of JAX.

    Raises InputError as `write`, and for a source that is damaged.
    """
    with files.swapped(dest) as part:
        text, readme = written(source, part), part / exported.CARD
        for name in exported.FILES:
            if name not in exported.PROGRAMS and (source / name).is_file():
                shutil.copyfile(source / name, part / name)
        before = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        readme.write_text(programs.with_section(before, text), encoding="utf-8")


def written(model: pathlib.Path, dest: pathlib.Path) -> str:
    """Write the programs of `model` into `dest`, and say so before; return their part of the card.

    model: the folder of an exported model, which is read before anything is written.
    """
    say("writing programs that JAX alone can run (--noprograms leaves them out)")
    return programs.write(model, dest)
