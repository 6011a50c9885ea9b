"""The mode reconstruct: pictures beside what the tokenizer makes of them."""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from evqgan.core import chosen_step, exported, files, pictures, processes, replacing, stores
from evqgan.core.errors import InputError, size_text
from evqgan.core.progress import Progress, counted, say
from evqgan.data import folder as folders
from evqgan.data import image_files
from evqgan.inference import tiled
from evqgan.inference.images import read_image
from evqgan.inference.mode_inputs import load_model, of_flag, read_whole_tokens
from evqgan.inference.model import Model

SECONDS = 10.0  # ours: between two lines of progress
MANY_SIZES = 4  # ours: sizes of pictures from which on pieces of one size are proposed

Named = tuple[pathlib.Path, np.ndarray]  # where a reconstruction goes, and its picture
Size = tuple[int, ...]  # (H, W)


@processes.together()
def reconstruct(
    config: ConfigDict,
    workdir: pathlib.Path,
    out: pathlib.Path | None,
    image: str | None,
    batch_size: int | None = None,
    tiles: bool | None = None,
    step: chosen_step.Step = None,
) -> None:
    """Write `input | reconstruction`, a PNG a picture, into `out`, by default reconstructions/.

    image: a picture's file, or a folder of pictures. They have any size; what a side has beyond a
        multiple of the tokenizer's factor is cropped, on both ends. A folder's pictures keep their
        places below it, and one that cannot be used is skipped with a line. The model is compiled
        anew for each of their sizes, which is said: padded pictures would not have the same bits.
    batch_size: images a device at a time at most; see `tiled.most`.
    tiles: what becomes of pictures larger than the model's, as in `Model.encode`. Of a folder,
        pictures smaller than these are skipped if it is True.
    step: as of `load`.

    Of several processes the first one does it alone.
    """
    if not image:
        raise InputError("reconstruct needs --image=FILE, or --image=FOLDER of pictures")
    source, out = pathlib.Path(image), out or exported.results(workdir) / "reconstructions"
    is_folder = source.is_dir()
    if is_folder:
        paths = [source / name for name in image_files.image_paths(str(source))]
    else:
        paths = [source]
        with of_flag("--image"):
            read_image(source)  # before anything is loaded
    top = source if is_folder else source.parent
    targets = png_names([path.relative_to(top) for path in paths])
    check_apart(out, targets, paths)
    folders.check_apart(out, config.dataset.get("folder", ""), "--out", "--out")
    with processes.together():
        if processes.this()[0] == 0:
            files.tried(out)
            for target in targets:
                replacing.check(out / target, "reconstruct")
    model = load_model(config, workdir, batch_size, step)  # it takes all processes
    if processes.this()[0]:
        return
    work = Reconstruction(model, out, tiles, is_folder)
    made, skipped = work.run(dict(zip(targets, paths, strict=True)))
    if not made:
        raise InputError(
            f"none of {counted(skipped, 'picture')} in {source} can be reconstructed, see above"
        )
    missing = ""
    if skipped:
        missing = f"; {skipped:,} {'was' if skipped == 1 else 'were'} skipped"
    are = "is" if made == 1 else "are"
    here = {out / target for target in targets}
    if others := sum(file not in here for file in out.rglob("*.png")):
        stay = "stays" if others == 1 else "stay"
        missing += f"; {counted(others, 'PNG')} of before {stay} there, too"
    print(f"{counted(made, 'reconstruction')} {are} in {out}{missing}")


@dataclasses.dataclass
class Reconstruction:
    """The work of `reconstruct` once the model is loaded; its arguments are the first fields.

    is_folder: a picture that cannot be used is then skipped with a line, and is no error.
    """

    model: Model
    out: pathlib.Path
    tiles: bool | None
    is_folder: bool
    made: int = 0
    skipped: int = 0

    def run(self, paths: Mapping[pathlib.Path, pathlib.Path]) -> tuple[int, int]:
        """Reconstruct pictures {target below `out`: path}; return how many were made and skipped.

        Raises InputError for a single picture that cannot be used.
        """
        report, began = Progress("reconstruct", every=SECONDS), self.model.runner.clock()
        sizes: set[Size] = set()
        for size, batch in self._batches(self._readable(paths)):
            try:
                is_cut = tiled.choose(self.model, size, self.tiles, "reconstructed")
            except InputError as error:
                if not self.is_folder:
                    flag = "--image" if self.tiles is None else "--tiles"
                    raise InputError(f"{flag}: {error}") from error
                for target, _ in batch:
                    self._skip(f"{target}: {error}")
                continue
            if self.is_folder and not is_cut and size not in sizes:
                sizes.add(size)
                self._say_size(size, len(sizes))
            self._write(size, batch, is_cut)
            self.made += len(batch)
            if self.is_folder:
                done = self.made + self.skipped
                report(done, len(paths), self.model.runner.clock() - began)
        return self.made, self.skipped

    def _skip(self, line: str) -> None:
        self.skipped += 1
        print(f"skipped: {line}", flush=True)

    def _say_size(self, size: Size, number: int) -> None:
        """Say that a size is new, of which there are `number` by now."""
        say(f"pictures of {size_text(size)}: each size is compiled once")
        if number == MANY_SIZES and self.tiles is None:
            say("many sizes: --tiles takes pieces of one size, of pictures that are no smaller")

    def _readable(self, paths: Mapping[pathlib.Path, pathlib.Path]) -> Iterator[Named]:
        """Yield (target, picture) of each picture that can be read; skip the others."""
        for target, path in paths.items():
            try:
                yield target, read_whole_tokens(path, self.model.factor)
            except InputError as error:
                if not self.is_folder:
                    raise InputError(f"--image: {error}") from error
                self._skip(str(error))

    def _batches(self, images: Iterator[Named]) -> Iterator[tuple[Size, list[Named]]]:
        """Yield consecutive pictures of one size, as many at a time as the devices take."""
        for size, alike in itertools.groupby(images, lambda pair: pair[1].shape[:2]):
            while batch := list(itertools.islice(alike, tiled.most(self.model, size))):
                yield size, batch

    def _write(self, size: Size, batch: list[Named], is_cut: bool) -> None:
        """Write the reconstructions of a batch of pictures of one size, made whole or in tiles."""
        model, before = self.model, np.stack([image for _, image in batch])
        if is_cut:
            after = tiled.decode(model, tiled.encode(model, before))
        else:
            rows = tiled.rows(model, len(before), size)
            after = model.to_images(model.to_ids(before, rows), rows)
        for (target, image), again in zip(batch, after, strict=True):
            picture = pictures.row([image, again])
            pictures.save_png(self.out / target, picture, {"mode": "reconstruct"})


def check_apart(
    out: pathlib.Path, targets: Sequence[pathlib.Path], paths: Sequence[pathlib.Path]
) -> None:
    """Raise InputError where a reconstruction would replace one of the pictures to be read."""
    if stores.is_remote(out):
        return
    sources = {stores.real(path) for path in paths}
    for target in targets:
        if stores.real(out / target) in sources:
            raise InputError(
                f"--out={out} would replace the picture {out / target} by its reconstruction: "
                "give another folder"
            )


def png_names(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Return the PNG that is made of each relative path: a.jpg -> a.png, if no other becomes it.

    Those that others become, too, keep their ending: a.jpg -> a.jpg.png.
    """
    ends = [path.with_suffix(".png") for path in paths]
    for _ in paths:  # in each turn one or more take their longer name, or all are there
        counts, pairs = collections.Counter(ends), zip(paths, ends, strict=True)
        ends = [x if counts[x] == 1 else path.with_name(f"{path.name}.png") for path, x in pairs]
    return ends
