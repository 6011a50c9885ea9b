"""What the page does with the model, in plain functions: one piece of work at a time."""

import contextlib
import functools
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evqgan.core import pictures, png_records, scratch
from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.demo import choices, filling, shell
from evqgan.demo.choices import EVERY, OWN, Preset
from evqgan.demo.jobs import Event
from evqgan.demo.results import Result, ResultFiles
from evqgan.inference import planning, records
from evqgan.inference.model import Model

IMAGES = 16  # ours: images of one click
SEED = 2**53 - 1  # the largest whole number that a browser has

Tell = Callable[[Event], None]


class Studio:
    """A model, what the page offers of it, and the files of what was made.

    workdir: as --workdir was given. step: the model's where --step was given, else None.
    files: those of results; presets: by name.
    """

    def __init__(
        self,
        model: Model,
        workdir: str,
        folder: pathlib.Path,
        paths: Sequence[str] = (),
        step: int | None = None,
    ) -> None:
        """Read the presets in the files `paths` beside the model's own."""
        self.model, self.workdir, self.files = model, workdir, ResultFiles(folder)
        self.step = step
        self.generates = model.generator is not None
        self.presets: dict[str, Preset] = {}
        self.of_model: dict[str, Any] = {}  # what the records of all its images say
        if self.generates:
            self.presets = choices.all_presets(model, paths)
            self.of_model = records.of_model(model)
        elif paths:
            raise InputError(
                f"{workdir} holds a tokenizer, which has no sampler: leave out --preset"
            )
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def working(self, tell: Tell) -> Iterator[None]:
        """Have the model for the body alone; that it is at work, and that it compiles, is told."""

        def say(line: str) -> None:
            once = ", once for this size and these settings"
            tell(Event(line=f"{line}{once if line.startswith('compiling') else ''} ..."))

        with self._lock:
            tell(Event(line="at work ..."))
            before, self.model.runner.tell = self.model.runner.tell, say
            try:
                yield
            finally:
                self.model.runner.tell = before

    def changes(self, preset: Any, values: Mapping[str, Any]) -> tuple[dict, list[str]]:
        """Return the changes to config.sample of a preset and the fields, and their arguments."""
        if not isinstance(preset, str) or preset not in self.presets:
            raise InputError(f"there is no preset {preset!r}: choose one of the list")
        chosen = self.presets[preset]
        changes, beside = choices.changed(self.model, chosen, values)
        return changes, [chosen.flag, *shell.settings(beside)]

    def generate(
        self,
        label: Any,
        num: Any,
        seed: Any,
        preset: Any = OWN,
        values: Mapping[str, Any] | None = None,
        watched: bool = True,
        tell: Tell = lambda event: None,
    ) -> Result:
        """Generate `num` images of a class, or with EVERY of all in turn.

        values: of the settings' fields; watched: whether pictures of the filling are told.
        """
        number, seed = checked(num, seed, IMAGES)
        changes, arguments = self.changes(preset, values or {})
        labels = self.labels_of(label, number)
        given = labels, np.arange(number, dtype=np.uint32), seed, changes
        with self.working(tell):
            began = self.model.runner.clock()
            if watched:
                images = filling.generate(self.model, *given, tell)
            else:
                images = self.model.new(*given)[1]
            seconds = self.model.runner.clock() - began
        made = self.records_of(labels, seed, changes)
        one = None if label == EVERY or not self.model.classes else self.word(label)
        flags = {"num": number, "labels": one, "seed": seed}
        command = self.command("sample", flags, *arguments)
        line = f"{number} made in {seconds:.1f} s; seed {seed}"
        return self.files.keep("image", images, self.captions(labels), command, line, made)

    def repeat(self, path: str | None, tell: Tell = lambda event: None) -> tuple[Result, dict]:
        """Make the image of a PNG again, by what the file says; also return that record."""
        if path is None:
            raise InputError("choose a PNG that this page or --mode=sample has written")
        try:
            record = records.checked(png_records.read(path))
        except InputError as error:  # the page has put the file where its reader has not
            raise InputError(str(error).replace(path, pathlib.Path(path).name)) from None
        self.require("repeating an image")
        with self.working(tell):
            image = records.repeat(self.model, self.of_model, record)
        text = self.captions(np.array([record["label"]]))[0]
        line = f"image {record['number']} of seed {record['seed']}, made again"
        again = {**record, "class": text} if self.model.class_names else record
        flags = {"image": "FILE.png"}
        command = self.command("sample", flags)
        return self.files.keep("image", [image], [text], command, line, [again]), record

    def edit(
        self,
        image: np.ndarray,
        hidden: np.ndarray,
        label: Any,
        num: Any,
        seed: Any,
        tell: Tell = lambda event: None,
    ) -> Result:
        """Make anew what is hidden, bool [H,W], of a picture uint8 [H,W,3], in `num` ways."""
        make = functools.partial(self.model.edit, image, hidden)
        flags, extra = {"mask": "mask.png"}, {"picture.png": image, "mask.png": white(hidden)}
        return self.edited(make, label, num, seed, flags, extra, tell)

    def outpaint(
        self,
        image: np.ndarray,
        sides: Sequence[int],
        label: Any,
        num: Any,
        seed: Any,
        tell: Tell = lambda event: None,
    ) -> Result:
        """Grow a picture uint8 [H,W,3] by so many pixels left, top, right, bottom."""
        make = functools.partial(self.model.outpaint, image, *sides)
        flags, extra = {"outpaint": ",".join(map(str, sides))}, {"picture.png": image}
        return self.edited(make, label, num, seed, flags, extra, tell)

    def reclass(
        self,
        image: np.ndarray,
        hidden: np.ndarray,
        labels: Sequence[Any],
        seed: Any,
        tell: Tell = lambda event: None,
    ) -> Result:
        """Make anew what is hidden of a picture, once as each of some classes."""
        if not labels:
            raise InputError("choose one class or more that the picture is to become")
        number, seed = checked(len(labels), seed, IMAGES, "the number of classes")
        images, commands = [], []
        with self.working(tell):
            for label in labels:
                images.append(self.model.edit(image, hidden, self.one_label(label), 1, seed)[0])
                flags = self.edit_flags({"mask": "mask.png"}, label, 1, seed)
                commands.append(self.command("edit", flags))
        extra = {"picture.png": image, "mask.png": white(hidden)}
        made = self.records_of(np.array(labels), seed, {}, "edit", 1)
        texts = self.captions(np.array(labels))
        line = f"made anew as {counted(number, 'class')}; seed {seed}"
        return self.files.keep("edit", images, texts, "\n".join(commands), line, made, extra)

    def reconstruct(
        self, image: np.ndarray, tell: Tell = lambda event: None
    ) -> tuple[Result, np.ndarray]:
        """Encode and decode a picture of the model's size; also return its ids [h,w,D]."""
        with self.working(tell):
            ids = self.model.encode(image)
            again = self.model.decode(ids)[0]
        error = pictures.error_map(image, again)
        far = np.abs(image.astype(int) - again).mean()
        map_ = filling.map_of(ids[0], self.model.codes, max(self.model.size))
        images = [image, again, error, map_]
        texts = ["input", "output", f"{pictures.GAIN} x difference", "ids"]
        command = self.command("reconstruct", {"image": "picture.png"})
        h, w = ids.shape[1:3]
        line = f"{h * w} tokens of {w} x {h}; a channel is off by {far:.1f} of 255 on average"
        extra = {"picture.png": image}
        return self.files.keep("reconstruct", images, texts, command, line, (), extra), ids[0]

    def command(self, mode: str, flags: Mapping[str, Any], *more: str) -> str:
        """Return the `shell.command` of the model."""
        return shell.command(self.workdir, mode, {"step": self.step, **flags}, *more)

    def require(self, what: str) -> None:
        """Raise InputError unless the model can generate."""
        planning.require_generator(self.generates, self.workdir, what)

    def labels_of(self, label: Any, number: int) -> np.ndarray:
        """Return the labels of images, int32 [number]; EVERY is all classes in turn."""
        chosen = None if label == EVERY or not self.model.classes else label
        return self.model.checked_labels(number, chosen)

    def one_label(self, label: Any) -> Any:
        """Return the class of an edit, None of a model without classes."""
        return label if self.model.classes else None

    def word(self, label: int) -> str:
        """Return how a class is called on a command line."""
        return choices.word(self.model, self.model.label_of(label))

    def edit_flags(self, where: Mapping[str, str], label: Any, num: int, seed: int) -> dict:
        """Return the flags of an edit. where: that which says what is made anew."""
        one = self.word(label) if self.model.classes else None
        return {"image": "picture.png", **where, "label": one, "num": num, "seed": seed}

    def captions(self, labels: np.ndarray) -> list[str]:
        """Return a text below each image: the name of its class, or its number."""
        if self.model.class_names:
            return [self.model.class_names[label] for label in labels]
        if self.model.classes:
            return [f"class {label}" for label in labels]
        return [f"image {i}" for i in range(len(labels))]

    def records_of(
        self,
        labels: np.ndarray,
        seed: int,
        changes: Mapping[str, Any],
        mode: str = "sample",
        at_once: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the record of each image of a seed. at_once: how many were made together."""
        size = self.model.runner.rows(at_once or len(labels))
        given: dict[str, Any] = {"seed": seed, "size": size, "changes": changes, "mode": mode}
        numbers = [0] * len(labels) if at_once == 1 else range(len(labels))
        pairs = zip(numbers, labels, strict=True)
        return [
            records.of_image(self.model, self.of_model, number=i, label=x, **given)
            for i, x in pairs
        ]

    def edited(
        self,
        make: Callable[[Any, int, int], np.ndarray],
        label: Any,
        num: Any,
        seed: Any,
        flags: Mapping[str, str],
        extra: Mapping[str, np.ndarray],
        tell: Tell,
    ) -> Result:
        """Return the result of an edit in several ways: `make(class, number, seed)`.

        flags: that which says what is made anew. extra: the pictures that the edit is of.
        """
        ways, seed = checked(num, seed, IMAGES // 2)
        chosen = self.one_label(label)
        with self.working(tell):
            images = make(chosen, ways, seed)
        command = self.command("edit", self.edit_flags(flags, label, ways, seed))
        labels = np.full(ways, label if self.model.classes else 0)
        made = self.records_of(labels, seed, {}, "edit")
        line = f"made anew in {counted(ways, 'way')}; seed {seed}"
        return self.files.keep("edit", images, self.captions(labels), command, line, made, extra)


def white(hidden: np.ndarray) -> np.ndarray:
    """Return the mask of what is hidden, bool [H,W], as a picture [H,W,1]: white there."""
    return np.where(hidden[..., None], 255, 0)


def checked(num: Any, seed: Any, most: int, named: str = "the number") -> tuple[int, int]:
    """Return a number of images and a seed, as fields give them; InputError for all else."""
    pair = []
    for value, low, high, what in ((num, 1, most, named), (seed, 0, SEED, "the seed")):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or value != int(value):
            raise InputError(
                f"{what}: expected a whole number from {low} to {high:,}, got {value!r}"
            )
        pair.append(int(value))
    return pair[0], pair[1]


@contextlib.contextmanager
def opened(
    model: Model, workdir: str, paths: Sequence[str] = (), step: int | None = None
) -> Iterator[Studio]:
    """Yield the studio of a model; its files are removed at the end. Arguments: see `Studio`."""
    with scratch.folder("evqgan-page-") as folder:
        results = folder / "results"
        results.mkdir()
        yield Studio(model, workdir, results, paths, step)
