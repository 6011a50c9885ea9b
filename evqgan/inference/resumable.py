"""Sampling that goes on where it was stopped, in one process or in several.

Images are generated as ids, a batch at a time, into a folder (`unfinished_samples`), and decoded
when all are there. `generate` makes just the images of a task; `rejection.choose` makes more of
them, and keeps the best. Both do so in `filled_folder`, by a function `make` (`MakeBatch`) of their
own.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from evqgan.core import files, limits, processes, scratch, signals
from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.evals.provenance import MadeBy, fingerprints
from evqgan.inference import unfinished_samples
from evqgan.inference.core import CoreModel
from evqgan.inference.sample_settings import Settings, describe
from evqgan.inference.unfinished_samples import SamplingFolder

BYTES_PER_IMAGE = 32  # ours, of memory, for an image to make: its label, its score, where it lies

# make(labels [n], numbers [n]) -> ids [n,h,w,D], scores float32 [n]; n is the same for all batches.
MakeBatch = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class SamplingTask:
    """What to sample: new images of a seed. Image n depends on (seed, n) and its label alone.

    labels: int32 [num], of images 0 to num - 1.
    changes: to config.sample.
    folder: where ids are kept, a file a batch, until `unfinished_samples.remove`. A call that was
      stopped goes on there and ends as if it had not been; a folder made with other settings is
      refused. None is a temporary one.
    report: report(done, total, seconds) is called after each batch; when a stopped task goes on,
      it is first called with 0 seconds.
    part: (i, n) for the i-th of n processes. They share the images that are still to be made,
      whatever number of processes made the others, wait for each other, and all return the same.
    force: what was made with other settings in `folder` is removed, not refused.
    """

    labels: np.ndarray
    seed: int = 0
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folder: Any = None
    report: processes.Report | None = None
    part: tuple[int, int] = (0, 1)
    force: bool = False

    def batch_size(self, model: CoreModel) -> int:
        """Return how many images are made, and to be decoded, at a time."""
        return model.runner.rows(len(processes.share(len(self.labels), self.part)))


def generate(model: CoreModel, task: SamplingTask) -> tuple[dict[str, np.ndarray], int]:
    """Generate the images of a task, as ids.

    Returns {"ids" int32 [num,h,w,D], "labels" int32 [num], "numbers" uint32 [num]}, and how many of
    them are to be decoded at a time.
    """
    number = len(task.labels)
    require_memory(model, number, number, f"the ids of {number:,} images")

    def make(labels: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids = model.new_ids(labels, numbers, task.seed, task.changes, rows=len(labels))
        return ids, np.zeros(len(labels), np.float32)  # nothing rates them

    numbers = np.arange(number, dtype=np.uint32)
    with filled_folder(model, task, settings_of(model, task), make) as folder:
        made = {"ids": folder.ids(numbers), "labels": task.labels, "numbers": numbers}
    return made, task.batch_size(model)


def with_images(
    model: CoreModel, task: SamplingTask, made: dict[str, np.ndarray], size: int
) -> dict[str, np.ndarray]:
    """Return the arrays `made` for a task, and "images", decoded `size` at a time.

    Of a task with the part (i, n) only the i-th of n parts is returned and decoded.
    """
    mine = processes.share(len(made["labels"]), task.part)
    made = {name: value[mine] for name, value in made.items()}
    return {"images": model.to_images(made["ids"], size), **made}


def require_memory(model: CoreModel, kept: int, total: float, what: str) -> None:
    """Raise InputError unless there is room for `total` images to make, and the ids of `kept`."""
    tokens = math.prod(model.size) // model.factor**2 * model.depth
    limits.require_memory(BYTES_PER_IMAGE * total + 4 * kept * tokens, what)


def settings_of(
    model: CoreModel, task: SamplingTask, acceptance: float = 1.0, classifier: str | None = None
) -> Settings:
    """Return all settings that decide which images a task makes; its folder, if any, keeps them.

    acceptance, classifier: of rejection sampling.
    """
    sampler, folder = {**model.sampler, **task.changes}, task.folder or "."
    known = describe(model.workdir, folder, sampler, task.seed, task.labels, acceptance)
    weights = made_by(model) if task.folder else MadeBy(model.step)
    return {**known, **weights._asdict(), "classifier": classifier}


def made_by(model: CoreModel) -> MadeBy:
    """Return which model it is, as cards say it."""
    return MadeBy(model.step, *fingerprints(model.state))


@contextlib.contextmanager
def owned(task: SamplingTask) -> Iterator[None]:
    """Make the folder of a task, if it has one, this call's while the body runs."""
    with contextlib.ExitStack() as stack:
        if task.folder:
            with processes.together(task.part):
                if task.part[0] == 0:
                    stack.enter_context(files.owned(task.folder, "another folder"))
        yield


@contextlib.contextmanager
def filled_folder(
    model: CoreModel, task: SamplingTask, settings: Settings, make: MakeBatch
) -> Iterator[SamplingFolder]:
    """Generate the images of a task that its folder lacks, and yield the folder with all of them.

    make: generates one batch.
    """
    total = len(task.labels)
    own = contextlib.nullcontext(task.folder) if task.folder else scratch.folder()
    with own as path:
        with processes.together(task.part):
            if task.part[0] == 0:
                unfinished_samples.begin(path, settings, task.force)
        with processes.together(task.part):
            missing = SamplingFolder(path, total).missing
        keep(task, total - len(missing))
        if len(missing) < total and task.report:
            task.report(total - len(missing), total, 0.0)
        with processes.together(task.part):
            make_share(model, task, missing, make, path)
        folder = SamplingFolder(path, total)
        if len(folder.missing):
            lacking = f"{path} lacks {len(folder.missing):,} candidates"
            raise InputError(f"{lacking}: it has to be one folder for all processes")
        yield folder


def keep(task: SamplingTask, done: int) -> None:
    """Note for `signals.print_stopped` how many of a task's images its folder keeps, if any."""
    if task.folder:
        what = f"{done:,} of {counted(len(task.labels), 'image')} in {task.folder}"
        signals.note_saved(what if done else "")


def make_share(
    model: CoreModel, task: SamplingTask, missing: np.ndarray, make: MakeBatch, path: Any
) -> None:
    """Make this process's share of the missing images, a batch at a time, into the folder `path`.

    missing: the numbers of all of them, uint32 [n].
    """
    size, total = task.batch_size(model), len(task.labels)
    report = processes.of_all(task.report, total, task.part, total - len(missing))
    mine = np.array_split(missing, task.part[1])[task.part[0]]
    began = model.runner.clock()
    for start in range(0, len(mine), size):
        numbers = mine[start : start + size]
        batch = np.resize(numbers, size)  # filled up: `make` sees batches of one size
        ids, scores = make(task.labels[batch], batch)
        unfinished_samples.save(path, numbers, ids[: len(numbers)], scores[: len(numbers)])
        keep(task, total - len(missing) + start + len(numbers))
        if report:
            report(start + len(numbers), len(mine), model.runner.clock() - began)
