"""Checkpoints with orbax: asynchronous, the last and the best kept, checked on restore, readable on any devices."""

import pathlib
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from evqgan.core import files
from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name


def manifest(tree):
    """{path: [shape, CRC-32 of the bytes or None]} of every array; None for those that this process holds in part.

    Orbax restores flipped bits without a word; these numbers, stored beside the arrays, tell.
    """
    rows = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        whole = getattr(leaf, "is_fully_addressable", True)
        rows[path_name(path)] = [list(leaf.shape), zlib.crc32(np.ascontiguousarray(leaf).tobytes()) if whole else None]
    return rows


class Kept:
    """Which checkpoints stay: the `number` latest, and the one of the lowest score (orbax asks after every save).

    scores: {step: number, or None where nothing was evaluated}. Not orbax' BestN: it forgets the scores of checkpoints
    that an earlier process wrote, and keeps all that it knows no score of.
    """

    def __init__(self, number):
        self.number, self.scores = number, {}

    def should_preserve(self, checkpoints, *, context):
        """One bool a checkpoint, which are in ascending order."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        scored = [step for step in steps if self.scores.get(step) is not None]
        kept = {*steps[-self.number :], *sorted(scored, key=self.scores.get)[:1]}
        return [step in kept for step in steps]


class Checkpoints:
    """The folder `workdir/checkpoints`: save(step, state, score), restore(like, step), steps(), close()."""

    def __init__(self, workdir, keep=1, create=True):
        """Keeps the `keep` latest checkpoints and the one with the lowest score.

        create=False, to read only, makes no folder and raises InputError where there is none.
        """
        self.folder = pathlib.Path(workdir).absolute() / "checkpoints"
        self.kept = Kept(keep)
        if not create and not self.folder.is_dir():
            raise InputError(f"there is no checkpoint in {self.folder}")
        with files.writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(preservation_policy=self.kept)
            self.manager = ocp.CheckpointManager(self.folder, options=options)
        self.kept.scores = {step: self._score(step) for step in self.steps()} if create else {}

    def steps(self):
        """The steps that have a checkpoint, ascending. Saves that were cut off do not count."""
        return sorted(self.manager.all_steps())

    def save(self, step, state, score=float("inf")):
        """Starts to save; the state may be donated or changed right after. `score`: lower is better.

        InputError if the save before this one could not be written (a full disk); what was saved earlier stays.
        """
        self.wait()
        if step in self.manager.all_steps():
            return
        self.kept.scores[step] = float(score) if np.isfinite(score) else None
        rows, number = manifest(state), {"score": self.kept.scores[step]}
        items = {"state": ocp.args.PyTreeSave(state), "manifest": ocp.args.JsonSave(rows)}
        items = ocp.args.Composite(**items, score=ocp.args.JsonSave(number))
        with files.writable(self.folder / str(step)):
            self.manager.save(step, args=items, force=True)

    def parts(self):
        """The top-level keys of the latest checkpoint's state, but for empty ones; InputError if it is damaged."""
        return {name.split("/")[0] for name in self._manifest(self.steps()[-1])}

    def restore(self, like, step=None):
        """The state saved at `step` (default: the latest), with the structure, shapes and shardings of `like`.

        `like` may hold a part of the state's top-level keys: only these are read. Raises InputError when there is no
        checkpoint, when its arrays are not those of `like`, and when one is missing, cut short or changed.
        """
        steps = self.steps()
        step = steps[-1] if step is None and steps else step
        if step not in steps:
            raise InputError(f"there is no checkpoint {'' if step is None else f'of step {step} '}in {self.folder}")
        where, damaged = self.folder / str(step), self._damaged(step)
        saved = self._manifest(step)
        try:
            for path, leaf in jax.tree_util.tree_leaves_with_path(like):
                name = path_name(path)
                shape = saved.get(name, ["nothing"])[0]
                if shape != list(leaf.shape):
                    here = list(leaf.shape)
                    raise InputError(
                        f"checkpoint {where} is of another model: {name} is {shape} there, {here} was expected"
                    )
            # The target's shardings rule, whatever devices wrote the checkpoint.
            target = ocp.args.PyTreeRestore(
                like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
            )
            state = self.manager.restore(step, args=ocp.args.Composite(state=target))["state"]
        except InputError:
            raise
        except Exception as error:  # orbax and tensorstore raise many kinds; all mean that this folder cannot be read
            raise InputError(f"{damaged}: {first_line(error)}") from error
        for name, (_, crc32) in manifest(state).items():
            if None not in (crc32, saved[name][1]) and crc32 != saved[name][1]:
                raise InputError(f"{damaged}: {name} is not what was saved")
        return state

    def _score(self, step):
        """The score that was saved with a step; None where there is none, as in checkpoints made before it was."""
        try:
            saved = self.manager.restore(step, args=ocp.args.Composite(score=ocp.args.JsonRestore()))
            return (saved.get("score") or {}).get("score")
        except Exception:  # whatever is damaged, `restore` says it when it is asked for
            return None

    def _manifest(self, step):
        """The `manifest` that was saved with a step."""
        try:
            return self.manager.restore(step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))["manifest"]
        except Exception as error:  # as in `restore`
            raise InputError(f"{self._damaged(step)}: {first_line(error)}") from error

    def _damaged(self, step):
        return f"checkpoint {self.folder / str(step)} is damaged (remove that folder to go on from an earlier one)"

    def wait(self):
        """Returns when what was saved is on disk; raises InputError if it could not be written."""
        try:
            self.manager.wait_until_finished()
            self.manager.check_for_errors()
        except Exception as error:  # the writing threads hand on whatever the file system raised
            raise InputError(f"cannot write checkpoints in {self.folder}: {first_line(error)}") from error

    def close(self):
        """Waits for running saves, then lets go of the folder."""
        self.wait()
        self.manager.close()


def first_line(error):
    """The first line of an error's message, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
