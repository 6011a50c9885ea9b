"""The model that people use: `evqgan.load` a workdir, then encode, decode, generate, edit."""

import os
from collections.abc import Callable
from typing import Any, Never, Unpack

import numpy as np

from evqgan.core import processes, room
from evqgan.core.config_files import of_workdir
from evqgan.inference import editing, planning, rejection, resumable
from evqgan.inference.core import CoreModel, to_uint8
from evqgan.inference.keywords import EditKeywords, GenerateKeywords, SamplerKeywords
from evqgan.inference.resumable import SamplingTask

# The keywords of `Model.sample` that are no changes to config.sample.
KEYWORDS = (
    "num",
    "labels",
    "seed",
    "report",
    "acceptance",
    "classifier",
    "folder",
    "part",
    "force",
)


def load(
    workdir: Any,
    config: Any = None,
    step: int | None = None,
    batch_size: int | None = None,
    **unknown: Never,
) -> "Model":
    """Return a trained tokenizer or generator from its workdir.

    workdir: its path, "~" is the home folder; or that of an exported model, or the name of one that
      ships.
    config: None is the workdir's.
    step: of the checkpoint, None is the latest.
    batch_size: images per device at a time; None: 64 of up to 256x256, fewer of larger ones.
    unknown: InputError names what was most likely meant.
    """
    planning.check_keywords(unknown, (), ("workdir", "config", "step", "batch_size"))
    if isinstance(workdir, str | os.PathLike):
        workdir = os.path.expanduser(workdir)
    saved, workdir = of_workdir(workdir)
    return Model(config or saved, workdir, step, batch_size)


class Model(CoreModel):
    """A trained tokenizer or generator.

    See `CoreModel` for what images are, and on what a generated one depends.
    """

    def generate(
        self,
        num: int,
        labels: Any = None,
        seed: int = 0,
        **changes: Unpack[GenerateKeywords],
    ) -> np.ndarray:
        """Return `num` new images.

        labels: one class or several to go through in turn, numbers or names, also as "3,5"; None =
          all.
        changes: to config.sample, such as temperature=0.9; also acceptance and classifier, see
          `sample`.
        """
        self.known_classes("generate")
        return self.sample(num, labels, seed, **changes)["images"]

    def sample(
        self,
        num: int,
        labels: Any = None,
        seed: int = 0,
        report: Callable | None = None,
        acceptance: float = 1.0,
        classifier: Any = "resnet101",
        folder: Any = None,
        part: tuple[int, int] = (0, 1),
        force: bool = False,
        **changes: Unpack[SamplerKeywords],
    ) -> dict[str, np.ndarray]:
        """Return `generate` with all it made.

        {"images", "ids" int32 [num,h,w,D], "labels" int32 [num] (if it has classes), "numbers"
        uint32 [num], by which `new` makes them again}.

        report: report(done, total, seconds) is called after each batch; no seconds of compilation
          count.
        acceptance: below 1, keep the best by `classifier` of num / acceptance candidates, and add
          "scores" float32 [num]; see `rejection.choose`.
        folder: goes on where the same call was stopped, see `resumable.SamplingTask`.
        part: (i, n) makes the i-th of n parts alone, as many images as `processes.share` gives it;
          what is reported counts all parts, as if each were as far as this one.
        force: more than `room.IMAGES` too, and in the place of what other settings left in
          `folder`.
        changes: to config.sample.
        """
        self.known_classes("sample")
        planning.check_keywords(changes, self.sampler, KEYWORDS)
        labels = self.checked_labels(num, labels, seed, acceptance, force)
        self.check_settings(changes)
        what = f"{num:,} images of {self.size[1]}x{self.size[0]}"
        room.require(num * int(np.prod(self.size)) * 3, what)
        folder = folder and os.path.expanduser(folder)
        task = SamplingTask(labels, seed, changes, folder, report, part, force)
        with resumable.owned(task):
            made = self._made(task, acceptance, classifier)
        return made if self.classes else {k: x for k, x in made.items() if k != "labels"}

    def _made(
        self, task: SamplingTask, acceptance: float, classifier: Any
    ) -> dict[str, np.ndarray]:
        """Return what `sample` returns for a task, with labels even without classes."""
        if acceptance != 1:
            chosen = rejection.choose(self, task, acceptance, classifier)
            return resumable.with_images(self, task, *chosen)
        if task.folder:
            return resumable.with_images(self, task, *resumable.generate(self, task))
        number = len(task.labels)
        numbers = processes.share(number, task.part).astype(np.uint32)
        labels = task.labels[numbers]
        report = processes.of_all(task.report, number, task.part)
        ids, images = self.new(labels, numbers, task.seed, task.changes, report)
        return {"images": images, "ids": ids, "labels": labels, "numbers": numbers}

    def edit(
        self,
        image: Any,
        mask: Any,
        label: Any = None,
        num: int = 1,
        seed: int = 0,
        **how: Unpack[EditKeywords],
    ) -> np.ndarray:
        """Return `image` with the part that a mask hides generated, in `num` ways [num,H,W,3].

        image: [H,W,3]; mask: bool [H,W], True where it is generated.
        label: the class that it becomes.
        how: margin (tokens generated around those that the mask touches), feather (known pixels
          over which results fade in), report, force, and changes to config.sample: see
          `inference.editing`.
        """
        return editing.edit(self, to_uint8(image), mask, label, num, seed, **how)

    def outpaint(
        self,
        image: Any,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        label: Any = None,
        num: int = 1,
        seed: int = 0,
        **how: Unpack[EditKeywords],
    ) -> np.ndarray:
        """Return `image` grown by so many pixels on each side, in `num` ways [num,H',W',3].

        how: as in `edit`.
        """
        margins = left, top, right, bottom
        return editing.outpaint(self, to_uint8(image), *margins, label, num, seed, **how)
