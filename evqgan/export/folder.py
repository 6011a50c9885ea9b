"""The folder of an exported model, written whole or not at all."""

import pathlib

import evqgan
from evqgan.core import exported, exported_weights, files
from evqgan.core.errors import InputError
from evqgan.export import card, check, sources
from evqgan.export.gathered import Gathered
from evqgan.inference.model import load

README, LICENCE, EVALUATION = "README.md", "LICENSE.txt", "evaluation.json"


def require_new(dest: pathlib.Path) -> None:
    """Raise InputError unless `dest` is new or an empty folder that can be written."""
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        what = "holds files" if dest.is_dir() else "is a file"
        raise InputError(f"expected a new or empty folder, {dest} {what}: give another DEST")
    files.tried(dest.absolute().parent)


def write(dest: pathlib.Path, found: Gathered, dtype: str, num: int = 0) -> int:
    """Write the folder of a model; return the bytes of its weights.

    dtype: of the weights, see `exported_weights.save`. num: samples of `check`, 0 for none.

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
            files.save_json(part / EVALUATION, found.evaluation)
        source = sources.source_of(found.config)
        text = card.Card(dest.resolve().name, found, source, dtype, size, checked).text()
        (part / README).write_text(text, encoding="utf-8")
        (part / LICENCE).write_text(card.licences(source, found.origin), encoding="utf-8")
    return size
