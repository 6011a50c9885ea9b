"""The model that people use: `evqgan.load` a workdir, then encode, decode, reconstruct, generate, edit and outpaint."""

import numpy as np

from evqgan.core import processes, room
from evqgan.core.config_files import of_workdir
from evqgan.inference import editing, rejection
from evqgan.inference.core import CoreModel, to_uint8


def load(workdir, config=None, step=None, batch_size=64):
    """A trained tokenizer or generator from its workdir (latest checkpoint, or `step`'s). -> Model"""
    saved, workdir = of_workdir(workdir)
    return Model(config or saved, workdir, step, batch_size)


class Model(CoreModel):
    """A trained tokenizer or generator; see `CoreModel` for what images are, and on what a generated one depends."""

    def generate(self, num, labels=None, seed=0, **sampler):
        """`num` new images of `labels`, one class or several to go through in turn (default: all) -> images.

        sampler: changes to config.sample, such as temperature=0.9; also `sample`'s acceptance and classifier.
        """
        return self.sample(num, labels, seed, **sampler)["images"]

    def sample(
        self, num, labels=None, seed=0, report=None, acceptance=1.0, classifier="resnet101", folder=None, part=(0, 1),
        force=False, **sampler,
    ):  # fmt: skip
        """`generate` with all it made: {"images", "ids" int32 [num,h,w,D], "labels" int32 [num] (if it has classes),
        "numbers" uint32 [num], by which `new` makes them again}.

        report(done, total, seconds) is called after each batch; no seconds of compilation count. An acceptance below 1
        keeps the best by `classifier` of num / acceptance candidates, and adds "scores" float32 [num]. In a `folder` it
        goes on where the same call was stopped; for both see `rejection.choose`. part: (i, n) makes the i-th of n parts
        alone, as many images as `processes.share` gives it; what is reported counts all parts, as if each were as far
        as this one. force: more than `room.IMAGES` too.
        """
        labels = self.planned(num, labels, seed, acceptance, force)
        room.require(num * int(np.prod(self.size)) * 3, f"{num:,} images of {self.size[1]}x{self.size[0]}")
        if acceptance != 1 or folder:
            judge = classifier if acceptance != 1 else None
            made = rejection.sample(self, labels, seed, acceptance, judge, folder, sampler, report, part)
        else:
            numbers = processes.share(num, part).astype(np.uint32)
            labels = labels[numbers]
            ids, images = self.new(labels, numbers, seed, sampler, processes.of_all(report, num, part))
            made = {"images": images, "ids": ids, "labels": labels, "numbers": numbers}
        return made if self.classes else {name: value for name, value in made.items() if name != "labels"}

    def edit(self, image, mask, label=None, num=1, seed=0, **how):
        """The part of `image` [H,W,3] where `mask` bool [H,W] is True, anew, in `num` ways -> images [num,H,W,3].

        With `label`, as that class. how: margin (tokens made anew around those that the mask touches), feather (known
        pixels over which results fade in), report, and changes to config.sample: see `inference.editing`.
        """
        return editing.edit(self, to_uint8(image), mask, label, num, seed, **how)

    def outpaint(self, image, left, top, right, bottom, label=None, num=1, seed=0, **how):
        """`image` [H,W,3] grown by so many pixels on each side, in `num` ways -> images [num,H',W',3]; how: `edit`."""
        return editing.outpaint(self, to_uint8(image), left, top, right, bottom, label, num, seed, **how)
