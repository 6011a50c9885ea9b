"""The model that people use: `evqgan.load` a workdir, then encode, decode, generate, edit."""

from __future__ import annotations  # so that help() shows the names of types

import os
from collections.abc import Callable, Mapping
from typing import Any, Never, Unpack, overload

import numpy as np
from PIL.Image import Image

from evqgan.core import chosen_step, limits, processes
from evqgan.core.config_files import of_workdir
from evqgan.inference import devices, editing, images, keywords, planning, rejection, resumable
from evqgan.inference.batched import Progressing
from evqgan.inference.coding import CodingModel, Pictures, Rows
from evqgan.inference.images import ImageLike, Output, PathLike
from evqgan.inference.keywords import EditKeywords, GenerateKeywords, Label, Labels
from evqgan.inference.masks import to_mask
from evqgan.inference.resumable import SamplingTask


def load(
    workdir: PathLike,
    config: Any = None,
    step: chosen_step.Step = None,
    batch_size: int | None = None,
    device: devices.Device | None = None,
    dtype: devices.Dtype | Any = None,
    **unknown: Never,
) -> Model:
    """Return a trained tokenizer or generator, ready to use.

    workdir: the folder of a run ("~" is the home folder), or an exported model, or the name of one
      that ships, or of a public one (`evqgan.convert`), or hf://USER/NAME@REVISION of the Hugging
      Face Hub. A quickstart's is its generator, which holds its tokenizer, too.
    config: None is the workdir's.
    step: of the checkpoint, or "best", by config.best, or "last"; None is the last.
    batch_size: images a device computes at a time; None is 64 of up to 256x256, fewer of larger
      ones.
    device: "cpu", "gpu" or "tpu", all of these that this process has; "gpu:0" is one of them; or
      one or several of `jax.devices()`. None is JAX's default.
    dtype: "float32" or "bfloat16", in which the networks compute; weights are float32. None is that
      of `config`; without one it is float32 on a CPU, where bfloat16 is no faster and less exact,
      and elsewhere that of the workdir.
    unknown: InputError names what was most likely meant.

    >>> import evqgan
    >>> model = evqgan.load("drawings", device="cpu")
    >>> model.size, model.classes, model.config.dtype
    ((64, 64), 9, 'float32')
    """
    planning.check_keywords(unknown, (), keywords.of(load))
    if isinstance(workdir, str | os.PathLike):
        workdir = os.path.expanduser(workdir)
    saved, folder = of_workdir(workdir)
    places = devices.of(device)
    planning.check_config(config)
    if config is None or dtype is not None:
        config = devices.in_dtype(config or saved, dtype, places)
    return Model(config, folder, step, batch_size, places)


class Model(CodingModel):
    """A trained tokenizer or generator, as `evqgan.load` gives it.

    A tokenizer can `encode`, `decode` and `reconstruct`. A generator holds its tokenizer, and can
    `generate`, `sample`, `edit` and `outpaint`, too. What is inherited from `CoreModel` are the
    parts of these, functions of arrays.

    Given: an image is an array, uint8 or float in [-1, 1], [height,width,3], or [B,height,width,3]
    for several; or a PIL image, or the path of a picture's file, or a list of these, all of one
    size. A class is a number or a name. A mistake raises `evqgan.InputError`, a ValueError whose
    message is one line.

    Returned: images are uint8 [B,height,width,3], or with output="pil" a list of PIL images.

    Progress: progress=True prints how far the work is, and progress=function calls it as
    function(done, total, seconds) after each batch, or window of an edit.

    Compilation: the first call for a size of images and of batches compiles, and the next ones do
    not. On one device one to four images are padded to one size of batch.

    Seeds: a generated image depends on its seed, number and label alone, not on how many others
    there are or where a batch begins. With the same number of images per device it is the same to
    the bit on any number of devices of one kind. With another number (another batch_size, or few
    images) it is the same up to rounding; a token that was drawn near a tie may then change, and
    with it the tokens generated after it.

    size: (height, width) of the images; factor: pixels of a token's side; grid: (rows, columns).
    codes: how many codes there are; depth: codes a token; codebook: the codes' vectors.
    classes: how many, 0 if there are none; class_names: theirs, or ().
    sampler: the settings that keywords such as temperature=0.9 change for a call; read-only.
    config, workdir, step: what it was loaded from.

    >>> import evqgan
    >>> model = evqgan.load("drawings", device="cpu")
    >>> images = model.generate(2, labels=["flags", "people"], seed=1)
    >>> images.shape, images.dtype
    ((2, 64, 64, 3), dtype('uint8'))
    >>> model.encode(images).shape
    (2, 8, 8, 1)
    """

    @overload
    def generate(
        self,
        num: int,
        labels: Labels = None,
        seed: int = 0,
        *,
        output: Rows = "numpy",
        progress: Progressing = False,
        **changes: Unpack[GenerateKeywords],
    ) -> np.ndarray: ...
    @overload
    def generate(
        self,
        num: int,
        labels: Labels = None,
        seed: int = 0,
        *,
        output: Pictures,
        progress: Progressing = False,
        **changes: Unpack[GenerateKeywords],
    ) -> list[Image]: ...
    def generate(
        self,
        num: int,
        labels: Labels = None,
        seed: int = 0,
        *,
        output: Output = "numpy",
        progress: Progressing = False,
        **changes: Unpack[GenerateKeywords],
    ) -> np.ndarray | list[Image]:
        """Return `num` new images.

        labels: one class or several to go through in turn, numbers or names, also as "3,5"; None is
          all.
        seed: from 0; the same seed makes the same images.
        output, progress: see `Model`.
        changes: to `sampler`, such as temperature=0.9; also acceptance, classifier and
          force, see `sample`.

        >>> made = model.generate(2, labels="flags", seed=3, temperature=0.9)
        >>> made.shape
        (2, 64, 64, 3)
        >>> model.generate(2, labels=["flags", "people"], seed=1, output="pil")[1].size
        (64, 64)
        """
        images.check_output(output)
        self.known_classes("generate")
        known = keywords.of(Model.generate, GenerateKeywords)
        planning.check_keywords(changes, self.sampler, known)
        made = self.sample(num, labels, seed, progress=progress, **changes)
        return images.to_output(made["images"], output)

    def sample(
        self,
        num: int,
        labels: Labels = None,
        seed: int = 0,
        *,
        progress: Progressing = False,
        acceptance: float = 1.0,
        classifier: Any = "resnet101",
        folder: Any = None,
        part: tuple[int, int] = (0, 1),
        force: bool = False,
        **changes: Unpack[keywords.SamplerKeywords],
    ) -> dict[str, np.ndarray]:
        """Return `generate` with all it made, as NumPy arrays by name.

        "images" uint8 [num,H,W,3], "ids" int32 [num,h,w,D], "labels" int32 [num] (if it has
        classes), and "numbers" uint32 [num], by which `new` makes them again.

        num, labels, seed, changes: as in `generate`.
        progress: see `Model`; no seconds of compilation count.
        acceptance: below 1, keep the best by `classifier` of num / acceptance candidates, and add
          "scores" float32 [num]; see `rejection.choose`.
        folder: goes on where the same call was stopped, see `resumable.SamplingTask`.
        part: (i, n) makes the i-th of n parts alone, as many images as `processes.share` gives it;
          what is reported counts all parts, as if each were as far as this one.
        force: more than `limits.IMAGES` too, and in the place of what other settings left in
          `folder`.

        >>> sorted(model.sample(2, labels=[8, 0], seed=1))
        ['ids', 'images', 'labels', 'numbers']
        """
        self.known_classes("sample")
        planning.check_keywords(changes, self.sampler, keywords.of(Model.sample))
        planning.check_part(part)
        planning.check_folder(folder)
        checked = self.checked_labels(num, labels, seed, acceptance, force)
        num, seed = len(checked), int(seed)
        self.check_settings(changes)
        limits.require_images(num, self.size)
        folder = folder and os.path.expanduser(folder)
        with self.runner.reporting(progress, "sample", "images") as report:
            task = SamplingTask(checked, seed, changes, folder, report, part, force)
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

    @overload
    def edit(
        self,
        image: ImageLike,
        mask: Any,
        label: Label | None = None,
        num: int = 1,
        seed: int = 0,
        *,
        output: Rows = "numpy",
        progress: Progressing = False,
        **how: Unpack[EditKeywords],
    ) -> np.ndarray: ...
    @overload
    def edit(
        self,
        image: ImageLike,
        mask: Any,
        label: Label | None = None,
        num: int = 1,
        seed: int = 0,
        *,
        output: Pictures,
        progress: Progressing = False,
        **how: Unpack[EditKeywords],
    ) -> list[Image]: ...
    def edit(
        self,
        image: ImageLike,
        mask: Any,
        label: Label | None = None,
        num: int = 1,
        seed: int = 0,
        *,
        output: Output = "numpy",
        progress: Progressing = False,
        **how: Unpack[EditKeywords],
    ) -> np.ndarray | list[Image]:
        """Return an image with the part that a mask hides generated, in `num` ways.

        image: of any size; the model fills it in windows of its own size.
        mask: bool [H,W], True where it is generated, or numbers, there all the same and elsewhere
          0; or a PIL image or a file, white there.
        label: the class of what is generated, needed of a model with several.
        seed: from 0; result n depends on (seed, n).
        output: see `Model`; [num,H,W,3], or a list of `num`.
        progress: see `Model`; it counts windows, of which a large hole has several.
        how: margin, tokens generated around those that the mask touches, and feather, known pixels
          over which results fade in (for None see `editing.extent`); force, of more than 2,000
          windows, too; and changes to `sampler`.

        >>> import numpy as np
        >>> mask = np.zeros((64, 64), bool)
        >>> mask[16:48, 16:48] = True
        >>> model.edit(images[0], mask, label="flags", num=2).shape
        (2, 64, 64, 3)
        """
        self._check_edit(Model.edit, output, how)
        given, hidden = images.to_uint8(image), to_mask(mask)
        with self.runner.reporting(progress, "edit", "windows") as report:
            made = editing.edit(self, given, hidden, label, num, seed, report=report, **how)
        return images.to_output(made, output)

    @overload
    def outpaint(
        self,
        image: ImageLike,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        label: Label | None = None,
        num: int = 1,
        seed: int = 0,
        *,
        output: Rows = "numpy",
        progress: Progressing = False,
        **how: Unpack[EditKeywords],
    ) -> np.ndarray: ...
    @overload
    def outpaint(
        self,
        image: ImageLike,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        label: Label | None = None,
        num: int = 1,
        seed: int = 0,
        *,
        output: Pictures,
        progress: Progressing = False,
        **how: Unpack[EditKeywords],
    ) -> list[Image]: ...
    def outpaint(
        self,
        image: ImageLike,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        label: Label | None = None,
        num: int = 1,
        seed: int = 0,
        *,
        output: Output = "numpy",
        progress: Progressing = False,
        **how: Unpack[EditKeywords],
    ) -> np.ndarray | list[Image]:
        """Return an image with generated margins around it, in `num` ways.

        left, top, right, bottom: their pixels.
        image, label, seed, output, progress, how: as in `edit`.

        >>> model.outpaint(images[0], left=16, right=16, label="flags").shape
        (1, 64, 96, 3)
        """
        self._check_edit(Model.outpaint, output, how)
        given, margins = images.to_uint8(image), (left, top, right, bottom)
        with self.runner.reporting(progress, "outpaint", "windows") as report:
            made = editing.outpaint(self, given, *margins, label, num, seed, report=report, **how)
        return images.to_output(made, output)

    def _check_edit(self, method: Callable, output: str, how: Mapping[str, Any]) -> None:
        """Raise InputError for an output or keywords that `edit` or `outpaint` does not have."""
        images.check_output(output)
        if self.generator:
            planning.check_keywords(how, self.sampler, keywords.of(method, EditKeywords))
