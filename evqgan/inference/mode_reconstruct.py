"""The mode reconstruct: pictures beside what the tokenizer makes of them."""

import collections
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from evqgan.core import exported, files, pictures, processes, replacing, stores
from evqgan.core.errors import InputError
from evqgan.core.progress import Progress, counted, say
from evqgan.data import folder as folders
from evqgan.inference import tiled
from evqgan.inference.batched import at_once
from evqgan.inference.images import read_image
from evqgan.inference.mode_inputs import load_model, of_flag, read_whole_tokens
from evqgan.inference.model import Model

SECONDS = 10.0  # ours: between two lines of progress
MANY = 4  # ours: sizes of pictures from which on pieces of one size are proposed

Named = tuple[pathlib.Path, np.ndarray]  # where a reconstruction goes, and its picture


@processes.together()
def reconstruct(
    config: ConfigDict,
    workdir: pathlib.Path,
    out: pathlib.Path | None,
    image: str | None,
    batch_size: int | None = None,
    tiles: bool | None = None,
) -> None:
    """Write `input | reconstruction`, a PNG a picture, into `out`, by default reconstructions/.

    image: a picture's file, or a folder of pictures. They have any size; what a side has beyond a
        multiple of the tokenizer's factor is cropped, on both ends. A folder's pictures keep their
        places below it, and one that cannot be used is skipped with a line. The model is compiled
        anew for each of their sizes, which is said: padded pictures would not have the same bits.
    batch_size: images a device at a time at most; see `batched.at_once`.
    tiles: what becomes of pictures larger than the model's, as in `Model.encode`. Of a folder,
        pictures smaller than these are skipped if it is True.

    Of several processes the first one does it alone.
    """
    if not image:
        raise InputError("reconstruct needs --image=FILE, or --image=FOLDER of pictures")
    source, out = pathlib.Path(image), out or exported.results(workdir) / "reconstructions"
    if source.is_dir():
        paths = [source / name for name in folders.image_paths(str(source))]
    else:
        paths = [source]
        with of_flag("--image"):
            read_image(source)  # before anything is loaded
    top = source if source.is_dir() else source.parent
    targets = png_names([path.relative_to(top) for path in paths])
    check_apart(out, targets, paths)
    folders.check_apart(out, config.dataset.get("folder", ""), "--out", "--out")
    with processes.together():
        if processes.this()[0] == 0:
            files.tried(out)
            for target in targets:
                replacing.check(out / target, "reconstruct")
    model = load_model(config, workdir, batch_size)  # it takes all processes
    if processes.this()[0]:
        return
    skipped: list[pathlib.Path] = []
    images = readable(zip(targets, paths, strict=True), model.factor, source.is_dir(), skipped)
    made, began, report = 0, model.runner.clock(), Progress("reconstruct", every=SECONDS)
    sizes: set[tuple[int, ...]] = set()
    for batch in batches(images, model, batch_size):
        height, width = size = batch[0][1].shape[:2]
        if source.is_dir() and size not in sizes:
            say(f"pictures of {width}x{height}: each size is compiled once")
            sizes.add(size)
            if len(sizes) == MANY and tiles is None:
                say("many sizes: --tiles compiles once; pictures smaller than a tile are skipped")
        try:
            is_cut = tiled.choose(model, size, tiles, "reconstructed")
        except InputError as error:
            if not source.is_dir():
                raise InputError(f"--tiles: {error}") from error
            skipped += [target for target, _ in batch]
            print(*(f"skipped: {target}: {error}" for target, _ in batch), sep="\n", flush=True)
            continue
        write(out, model, batch, batch_size, is_cut)
        made += len(batch)
        if source.is_dir():
            report(made + len(skipped), len(paths), model.runner.clock() - began)
    if not made:
        raise InputError(
            f"none of {counted(len(skipped), 'picture')} in {source} can be reconstructed, see "
            "above"
        )
    missing = ""
    if skipped:
        missing = f"; {len(skipped):,} {'was' if len(skipped) == 1 else 'were'} skipped"
    are = "is" if made == 1 else "are"
    print(f"{counted(made, 'reconstruction')} {are} in {out}{missing}")


def check_apart(
    out: pathlib.Path, targets: Sequence[pathlib.Path], paths: Sequence[pathlib.Path]
) -> None:
    """Raise InputError where a reconstruction would replace one of the pictures to be read."""
    if stores.is_remote(out):
        return
    sources = {path.resolve() for path in paths}
    for target in targets:
        if (out / target).resolve() in sources:
            raise InputError(
                f"--out={out} would replace the picture {out / target} by its reconstruction: "
                "give another folder"
            )


def png_names(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Return the PNG that is made of each relative path: a.jpg -> a.png, if no other becomes it."""
    ends = [path.with_suffix(".png") for path in paths]
    counts = collections.Counter(ends)
    pairs = zip(paths, ends, strict=True)
    return [end if counts[end] == 1 else path.with_name(f"{path.name}.png") for path, end in pairs]


def readable(
    pairs: Iterator[tuple[pathlib.Path, pathlib.Path]],
    factor: int,
    skip: bool,
    skipped: list[pathlib.Path],
) -> Iterator[Named]:
    """Yield (target, picture) of each (target, path).

    factor: pixels of a token's side.
    skip: whether a picture that cannot be used is left out with a line, and put into `skipped`.
    """
    for target, path in pairs:
        try:
            yield target, read_whole_tokens(path, factor)
        except InputError as error:
            if not skip:
                raise InputError(f"--image: {error}") from error
            skipped.append(path)
            print(f"skipped: {error}", flush=True)


def batches(images: Iterator[Named], model: Model, most: int | None) -> Iterator[list[Named]]:
    """Yield consecutive pictures of one size, as many at a time as the devices take."""
    for shape, alike in itertools.groupby(images, lambda pair: pair[1].shape):
        while batch := list(itertools.islice(alike, together(model, shape, most))):
            yield batch


def together(model: Model, shape: tuple[int, ...], most: int | None) -> int:
    """Return how many pictures of a shape (H, W, 3) all devices take at a time."""
    return at_once(shape, most) * model.runner.mesh.size


def write(
    out: pathlib.Path, model: Model, batch: list[Named], most: int | None, is_cut: bool
) -> None:
    """Write the reconstructions of a batch of pictures of one size, made whole or in tiles."""
    before = np.stack([image for _, image in batch])
    if is_cut:
        after = tiled.decode(model, tiled.encode(model, before))
    else:
        size = min(together(model, before.shape[1:], most), model.runner.rows(len(before)))
        after = model.to_images(model.to_ids(before, size), size)
    for (target, image), again in zip(batch, after, strict=True):
        pictures.save_png(out / target, pictures.row([image, again]), {"mode": "reconstruct"})
