"""Checkpoints with orbax: asynchronous, the last and the best kept, checked on restore.

They are readable on any devices.
"""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from evqgan.core import cards, files, integrity, manifests, signals, space, stores
from evqgan.core.errors import InputError, first_line
from evqgan.core.manifests import Manifest, changed, row_of
from evqgan.core.mesh import path_name
from evqgan.core.retention import BestAndLatest, Score

# What of an error's text says that bytes on the disk are missing or changed (tensorstore's and
# zlib's words).
DAMAGE = re.compile(
    r"NOT_FOUND|DATA_LOSS|OUT_OF_RANGE"
    r"|ZSTD|Zstd|not found|checksum|corrupt|truncated|[Ee]rror (decod|read)ing"
)
# What a checkpoint holds and how: "state", the arrays by orbax as OCDBT with zarr; "manifest", see
# `manifests.manifest_of`; "score", {"score", "best", "measured", "format"}, of which some had no
# "best" or "measured" yet. A change after which this code cannot read what it wrote before makes it
# 2. tests/kept holds a checkpoint of each.
FORMAT = 1


def advice(folder: os.PathLike[str]) -> str:
    """Return what to do where `folder`, a workdir's checkpoints/, holds no checkpoint."""
    workdir = stores.path(folder).parent
    if not workdir.is_dir():
        return f"{workdir} is no folder: give the path of a workdir that is there"
    return (
        "the run has saved nothing yet, or what it saved was removed; training goes on by the "
        "command that began it"
    )


def steps_in(workdir: str | os.PathLike[str]) -> list[int]:
    """Return the steps of the checkpoints in a workdir, ascending."""
    found = (stores.path(workdir) / "checkpoints").glob("*")
    return sorted(int(x.name) for x in found if x.name.isdecimal() and stores.is_saved(x))


def check_step(workdir: str | os.PathLike[str], step: int | None) -> None:
    """Raise InputError unless a workdir has a checkpoint of `step`; None: any."""
    require_step(steps_in(workdir), step, stores.absolute(workdir) / "checkpoints")


def require_step(steps: list[int], step: int | None, folder: os.PathLike[str]) -> None:
    """Raise InputError unless `step` is one of `steps`, those in `folder`; None: any."""
    if steps and step in (None, *steps):
        return
    which = "" if step is None else f"of step {step} "
    hint = f"expected one of {', '.join(map(str, steps))}" if steps else advice(folder)
    raise InputError(f"there is no checkpoint {which}in {folder}: {hint}")


def trained(step: int) -> str:
    """Return how far the weights of a checkpoint are trained: those of step 0 are converted."""
    return f"step {step:,}" if step else "converted weights"


def latest(workdir: str | os.PathLike[str]) -> int:
    """Return the step of the latest checkpoint in a workdir, 0 if there is none."""
    return max(steps_in(workdir), default=0)


def parts_of(workdir: str | os.PathLike[str], step: int | None = None) -> set[str]:
    """Return `Checkpoints.parts` of a workdir, of which nothing is changed; empty without any."""
    step = latest(workdir) if step is None else step
    if not step:
        return set()
    return _parts(manifest_in(stores.absolute(workdir) / "checkpoints" / str(step)))


def _parts(rows: Manifest) -> set[str]:
    """Return the top-level keys of the state that a manifest is of."""
    return {name.split("/")[0] for name in rows}


def manifest_in(folder: pathlib.Path) -> Manifest:
    """Return the manifest (`manifests.manifest_of`) that was saved with a checkpoint.

    It is not read by orbax, which reads something of the others, too, and these may be damaged.
    Raises InputError if it is damaged, or of another step than the name of the folder.
    """
    if what := integrity.damage(folder, "manifest"):
        raise damaged(folder, what)
    try:
        text = (folder / "manifest" / "metadata").read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read checkpoint {folder}: {first_line(error)}") from error
    rows: Manifest = json.loads(text)
    if not manifests.is_valid(rows):
        raise damaged(folder, "manifest/metadata is changed")
    if manifests.is_of_step(rows, int(folder.name)):
        return rows
    try:
        there = int(integrity.array(folder / "state", "step").read().result())
    except (ValueError, TypeError, OSError) as error:  # what tensorstore raises
        integrity.check_readable(folder, error)
        raise damaged(folder, integrity.changed_array(folder, "step")) from error
    if there == int(folder.name):
        raise damaged(folder, integrity.changed_array(folder, "step"))
    raise InputError(
        f"checkpoint {folder} holds step {there}, so its folder was renamed: give it the name "
        f"{there} again"
    )


def damaged(folder: pathlib.Path, what: str) -> InputError:
    """Return the error for a damaged checkpoint; it names an earlier one if there is any.

    folder: the checkpoint's. what: what is wrong with it, in words.

    Raises InputError for one that is there no more, which is no damage.
    """
    integrity.check_readable(folder)
    steps = steps_in(folder.parent.parent)
    earlier = max((other for other in steps if other < int(folder.name)), default=None)
    if earlier is None:
        hint = "there is no earlier one: bring that back from a copy, or move this folder "
        hint += "elsewhere and train again"
    else:
        hint = f"move this folder elsewhere to use that of step {earlier} (to train, "
        hint += "--config.resume=last_good does so)"
    return InputError(f"checkpoint {folder} is damaged: {what}; {hint}")


class Checkpoints:
    """The checkpoints of a run, in the folder `workdir/checkpoints`."""

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        keep: int = 1,
        create: bool = True,
    ) -> None:
        """Keep the `keep` latest checkpoints and the one with the lowest score.

        Scores of other numbers, or of such that were measured otherwise, as an earlier part of a
        run may have saved, are not compared with these, and their best one stays, too.

        create: False, to read only, makes no folder and raises InputError where there is none.
        """
        self.folder = stores.absolute(workdir) / "checkpoints"
        self.kept, self.writes = BestAndLatest(keep), create
        if not create and not self.folder.is_dir():
            raise InputError(f"there is no checkpoint in {self.folder}: {advice(self.folder)}")
        with files.writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self.kept,
                cleanup_tmp_directories=create and stores.is_remote(self.folder),
            )
            self.manager = self._opened(options)
        self.kept.scores = self.scores() if create else {}

    def _opened(self, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
        """Return orbax's manager; InputError for a checkpoint whose description is changed."""
        try:
            return ocp.CheckpointManager(self.folder, options=options)
        except Exception as error:  # of many kinds, by what it does not understand
            for step in steps_in(self.folder.parent):
                if what := integrity.undescribed(self.folder / str(step)):
                    raise damaged(self.folder / str(step), what) from error
            raise

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending.

        Saves that were cut off do not count.
        """
        return sorted(self.manager.all_steps())

    def save(self, step: int, state: Any, score: Score | None = None) -> None:
        """Start to save; the state may be donated or changed right after.

        score: None, or one that is not finite: it is never the best.

        Raises InputError if the save before this one could not be written (a full disk); what was
        saved earlier stays.
        """
        self.wait()
        if step in self.manager.all_steps():
            return
        found = score if score and np.isfinite(score.value) else None
        self.kept.scores[step] = found
        number: dict[str, Any] = {"score": None, "best": "", "measured": "", "format": FORMAT}
        if found:
            number |= {"score": found.value, "best": found.name, "measured": found.measured}
        rows = manifests.manifest_of(state)
        items = {"state": ocp.args.PyTreeSave(state), "manifest": ocp.args.JsonSave(rows)}
        items = ocp.args.Composite(**items, score=ocp.args.JsonSave(number))
        with files.writable(self.folder / str(step)):
            self.manager.save(step, args=items, force=True)

    def parts(self, step: int | None = None) -> set[str]:
        """Return the top-level keys of the state in a checkpoint, but for empty ones.

        step: default: the latest. Raises InputError if it is damaged.
        """
        step = self.steps()[-1] if step is None else step
        return _parts(manifest_in(self.folder / str(step)))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {path: shape} of every array of the latest checkpoint.

        Raises InputError if there is none, or it is damaged.
        """
        steps = self.steps()
        require_step(steps, None, self.folder)
        rows = manifest_in(self.folder / str(steps[-1]))
        return {name: tuple(row[0]) for name, row in rows.items()}

    def restore(self, like: Any, step: int | None = None) -> Any:
        """Return the state saved at `step`, with the structure, shapes and shardings of `like`.

        like: it may hold a part of the state's top-level keys: only these are read.
        step: default: the latest.

        Raises InputError when there is no checkpoint, when its arrays are not those of `like`, and
        when one is missing, cut short or changed.
        """
        steps = self.steps()
        require_step(steps, step, self.folder)
        step = steps[-1] if step is None else step
        if (number := self._noted(step).get("format") or 1) != FORMAT:
            raise InputError(
                f"checkpoint {self.folder / str(step)} has format {number}, and this code reads "
                f"{FORMAT}: take the evqgan that wrote it, or a newer one"
            )
        saved = manifest_in(self.folder / str(step))
        for path, leaf in jax.tree_util.tree_leaves_with_path(like):
            name, here = path_name(path), list(leaf.shape)
            there, _, dtype, _ = row_of(saved, name)
            if there == here and dtype not in (None, np.dtype(leaf.dtype).name):
                there, here = dtype, np.dtype(leaf.dtype).name
            if there != here:
                where = f"checkpoint {self.folder / str(step)} is of another model"
                raise InputError(f"{where}: {name} is {there} there, {here} was expected")
        # The target's shardings rule, whatever devices wrote the checkpoint.
        arguments = ocp.checkpoint_utils.construct_restore_args(like)
        target = ocp.args.PyTreeRestore(like, restore_args=arguments, partial_restore=True)
        state = self._read(step, "state", target, like)
        if any(not isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(state)):
            # It named no such array.
            raise damaged(self.folder / str(step), "state/_METADATA is changed")
        if names := changed(state, saved):
            folder = self.folder / str(step)
            raise damaged(folder, integrity.changed_array(folder, names[0]))
        return state

    def differs(self, tree: Any) -> bool:
        """Return whether an array differs from the one of its name in the latest checkpoint.

        Shapes and bytes are compared.
        """
        saved = manifest_in(self.folder / str(self.steps()[-1]))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if row_of(saved, path_name(path))[0] != list(leaf.shape):
                return True
        return bool(changed(tree, saved))

    def _read(self, step: int, item: str, args: Any, parts: Collection[str] = ()) -> Any:
        """Return an item of a step's checkpoint; parts: the top-level keys of the state, if it is.

        Raises InputError where it cannot be read: damaged, or what the system said.
        """
        if damage := integrity.damage(self.folder / str(step), item, parts):
            raise damaged(self.folder / str(step), damage)
        try:
            with integrity.one_voice():
                return self.manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        except Exception as error:  # orbax and tensorstore raise many kinds
            cause: BaseException = error
            while cause.__cause__:  # orbax wraps what tensorstore says
                cause = cause.__cause__
            integrity.check_readable(self.folder / str(step), error)
            what = integrity.changed(self.folder / str(step), str(cause))
            if what or isinstance(cause, FileNotFoundError) or DAMAGE.search(str(cause)):
                raise damaged(self.folder / str(step), what or first_line(cause)) from error
            reason = "not enough memory" if isinstance(cause, MemoryError) else first_line(cause)
            what = f"cannot read checkpoint {self.folder / str(step)}"
            raise InputError(f"{what}: {reason}") from error

    def scores(self) -> dict[int, Score | None]:
        """Return {step: the score that was saved with it, None if there is none}."""
        return {step: self._score(step) for step in self.steps()}

    def _score(self, step: int) -> Score | None:
        """Return the score that was saved with a step.

        It is None where there is none, as in checkpoints made before it was saved. How it was
        measured is what the evaluation's card says where older checkpoints do not.
        """
        noted = self._noted(step)
        value, name = noted.get("score"), str(noted.get("best", ""))
        if not isinstance(value, int | float):
            return None
        if (measured := noted.get("measured")) is None:
            there = cards.measurements(cards.of_step(self.folder.parent, step))
            measured = there.get(name, "")
        return Score(value, name, str(measured))

    def _noted(self, step: int) -> dict[str, Any]:
        """Return {"score", "best", "measured", "format"} of a step; older checkpoints lack some."""
        wanted = ocp.args.Composite(score=ocp.args.JsonRestore())
        try:
            found = self.manager.restore(step, args=wanted).get("score")
        except Exception:  # whatever is damaged, `restore` says it when it is asked for
            return {}
        return found if isinstance(found, dict) else {}

    def wait(self) -> None:
        """Wait until what was saved is on disk; InputError if it could not be written."""
        try:
            self.manager.wait_until_finished()
            self.manager.check_for_errors()
            if self.writes and (steps := self.steps()):
                signals.note_saved(f"step {steps[-1]:,} in {self.folder.parent}")
        except Exception as error:  # the writing threads hand on whatever the file system raised
            why = space.why_unwritten(error, self.folder)
            raise InputError(f"cannot write checkpoints in {self.folder}: {why}") from error

    def close(self) -> None:
        """Wait for running saves and let go of the folder, which goes if it is empty."""
        self.wait()
        self.manager.close()
        # There may be something in it (epath's ValueError), or another process was faster.
        with contextlib.suppress(OSError, ValueError):
            self.folder.rmdir()
