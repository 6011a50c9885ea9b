"""From a data set to batches: one path for tfds names, plain folders and generated images.

The order is reproducible and does not depend on the number of processes. The stream of examples
is one sequence, which (data, seed) fixes, crops and flips included. A process reads of every batch
the rows that its devices hold (`core.mesh.rows`), so that the batches are the same on any number
of processes, and training restarts at any batch, on any number of them, as if it had not stopped.
"""

import functools
import hashlib
import os
import threading
from typing import Any

import cv2
import grain
import numpy as np

from evqgan.core.errors import InputError, cut
from evqgan.core.progress import counted
from evqgan.data import named, stored_ids, stored_split
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import DecodedImages
from evqgan.data.folder import Folder
from evqgan.data.generated import Generated
from evqgan.data.image_files import LETTERS
from evqgan.data.views import digest, numbered_view, training_view, validation_view
from evqgan.data.workers import Workers

CLASSES = 20  # ours: so many are counted one by one
MAX_THREADS = 16  # grain's own default; fewer cores get fewer, or the threads wait for each other

Examples = DecodedImages | stored_split.StoredSplit
Late = list[InputError] | None  # takes errors that are not raised yet
Ended = threading.Event | None  # once it is set, threads make no more of a batch under way


def threads() -> int:
    """Return how many threads make batches where there are no workers."""
    return min(MAX_THREADS, os.cpu_count() or 1)


def buffered() -> int:
    """Return how many batches a process holds at a time, those that are being made included."""
    return threads() + 2


class Batches:
    """Iterator over batches, dicts of arrays."""

    def __init__(self, iterator: Any, examples: Examples, ended: Ended = None) -> None:
        """Wrap an iterator with `close`, of batches made of `examples`; `close` sets `ended`."""
        self.iterator, self.examples, self.ended = iterator, examples, ended

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self.iterator)

    def skipped(self) -> int:
        """Return the number of bad images met."""
        return len(self.examples.bad)

    def pids(self) -> list[int]:
        """Return the ids of its worker processes, none where it has threads."""
        workers = self.iterator
        return [x.pid for x in workers.processes] if isinstance(workers, Workers) else []

    def awaited(self) -> str:
        """Return in words from where a batch is waited for, if it is a worker process, or ""."""
        pid = self.iterator.awaited if isinstance(self.iterator, Workers) else None
        return f"process {pid} of config.dataset.workers" if pid else ""

    def kill(self) -> None:
        """End its worker processes at once, even if they are stopped."""
        if isinstance(self.iterator, Workers):
            self.iterator.kill()

    def close(self) -> None:
        """End its threads or processes; threads end once they have made the image at hand."""
        if self.ended:
            self.ended.set()
        self.iterator.close()


def _in_threads(batches: grain.MapDataset, start: int = 0) -> grain.DatasetIterator:
    """Return an iterator over batches that threads make, from batch number `start` on."""
    options = grain.ReadOptions(num_threads=threads(), prefetch_buffer_size=buffered())
    # each thread prepares batches of its own; OpenCV's would only wait for each other
    cv2.setNumThreads(1)
    iterator = iter(batches.to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    return iterator


def prepare(dataset: Dataset) -> None:
    """Write the data of `dataset` where they will be read, if they are not there yet.

    Folders need nothing.
    """
    if dataset.name not in ("", "generated") and not dataset.codes:
        named.prepare(named.at_size(dataset.name, dataset.shape), dataset.data_dir)


def open_split(dataset: Dataset, split: str) -> Any:
    """Return the source of one split, a `data.Source`, prepared first if need be.

    With dataset.codes it is a `stored_split.StoredSplit`, which has a length and class names as
    well, and ids instead of images. Raises InputError if there is no such data set or split.
    """
    if dataset.codes:
        return open_stored(dataset, split, "train" if split == dataset.train else "validation")
    if dataset.folder:
        return Folder(dataset.folder, split, labelled=bool(dataset.label_key))
    if dataset.name == "generated":
        return Generated(split, dataset.shape, dataset.classes, dataset.num_examples)
    name = named.at_size(dataset.name, dataset.shape)
    return named.Named(name, split, dataset.data_dir, dataset.image_key, dataset.label_key)


def identity(source: Any) -> dict:
    """Return {"examples", "list"}, by which another data set is told from this source.

    examples: their number.
    list: a hash of the examples' paths, "" where they have none.
    """
    text = "\n".join(source.paths).encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(text).hexdigest()[:16] if source.paths else ""
    return {"examples": len(source), "list": digest}


def check_identity(batches: Batches, noted: dict) -> None:
    """Raise InputError unless `batches` are made of the images that `identity` has noted.

    Images may come or go between the moment at which a run notes them and its first batch, and the
    order of all depends on the list.
    """
    here = identity(getattr(batches.examples, "source", batches.examples))
    if here != noted:
        raise InputError(
            f"images came or went while the run began: {noted['examples']:,} at first, "
            f"{here['examples']:,} now, or others; give the same command again once they stay"
        )


def summary(dataset: Dataset, source: Any) -> str:
    """Return a line on the data of a run.

    It says how many images of which classes, how many are held out and how, what is ignored.
    source: `open_split` of dataset.train. Raises InputError if there is no dataset.validation.
    """
    of_folder = isinstance(source, Folder)
    held = source.part(dataset.validation) if of_folder else open_validation(dataset)
    names, labels = source.class_names, source.labels
    classes = f" in {counted(len(names), 'class')}" if names else ", no classes"
    text = f"{counted(len(source), 'training image')}{classes}"
    if names and labels is not None:
        counts = np.bincount(labels, minlength=len(names))
        each = f"{counts.min():,} to {counts.max():,} each"
        if len(names) <= CLASSES:
            each = ", ".join(f"{cut(x, LETTERS)} {n:,}" for x, n in zip(names, counts, strict=True))
        text += f" ({each})"
    ours = (dataset.train, dataset.validation) == ("train", "validation")
    by_hash = of_folder and source.divided and ours
    how = "one of ten by the hash of its name" if by_hash else f"the split {dataset.validation!r}"
    text += f"; {len(held):,} held out: {how}"
    return "; ".join([text, *(source.passed_over() if of_folder else [])])


def open_validation(dataset: Dataset) -> Any:
    """Return the source of dataset.validation, as `open_split`."""
    if dataset.codes:
        return open_stored(dataset, dataset.validation, "validation")
    return open_split(dataset, dataset.validation)


def open_stored(dataset: Dataset, split: str, which: str) -> stored_split.StoredSplit:
    """Return the stored ids of the data set's `split`.

    Only dataset.train and dataset.validation are stored; both may be the same split, in other
    views.
    which: "train" or "validation". Raises InputError if they are of other data.
    """
    if split != getattr(dataset, which):
        raise InputError(
            f"config.dataset.codes = {dataset.codes!r} has stored ids of config.dataset.train = "
            f"{dataset.train!r} and .validation = {dataset.validation!r} alone, not of {split!r}"
        )
    found = stored_split.StoredSplit(dataset.codes, which)
    stored_ids.require(dataset.codes, found.info, {"dataset": stored_ids.data_keys(dataset)})
    if os.path.isdir(os.path.expanduser(dataset.folder)):  # it need not be there
        here, there = identity(open_split(dataset.of_images(), split)), found.info["splits"][which]
        if here["examples"] != there["examples"] or here["list"] != there.get("list", here["list"]):
            is_number = here["examples"] != there["examples"]
            other = f"{there['examples']:,}" if is_number else "others, as many"
            raise InputError(
                f"config.dataset.folder = {dataset.folder!r} has {here['examples']:,} images in "
                f"{split!r}, the stored ids in {dataset.codes!r} are of {other}: --mode=encode "
                "into another folder"
            )
    return found


def _part(
    examples: grain.MapDataset, batch_size: int, rows: np.ndarray | None, ended: Ended
) -> grain.MapDataset:
    """Return the `rows` (None: all) of every batch of a grain.MapDataset of examples."""
    chosen = range(batch_size) if rows is None else [int(row) for row in rows]
    number = len(examples) // batch_size * len(chosen)
    positions = grain.MapDataset.range(number).map(
        lambda n: n // len(chosen) * batch_size + chosen[n % len(chosen)]
    )

    def one(position: int) -> dict:
        if ended and ended.is_set():
            raise RuntimeError("the batches were closed")
        return examples[position]

    return positions.map(one).batch(len(chosen))


def train_batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    start: int = 0,
    rows: np.ndarray | None = None,
) -> Batches:
    """Return an endless iterator of {"image": uint8 [b,H,W,3], "label": int32 [b]}.

    Every epoch has every example once, in an order of its own; a batch may reach over the end of an
    epoch. Example n of the stream depends on (data, seed, n) alone. With stored ids a batch is
    {"ids": int32 [b,h,w,D], "label"}, of the same examples in the same order; of V views epoch e
    has number e mod V, so that V epochs have each of them once (ours: no view waits for long).
    start: the number of the batch at which it begins.
    rows: which rows of a batch, int [b]; None is all.
    """
    examples = open_split(dataset, dataset.train)
    if not dataset.codes:
        examples = DecodedImages(examples, dataset.max_bad)
    stream = functools.partial(
        training_stream, dataset=dataset, batch_size=batch_size, seed=seed, rows=rows
    )
    if dataset.workers:
        return Batches(Workers(stream, examples, start, dataset.workers), examples)
    ended = threading.Event()
    return Batches(_in_threads(stream(examples, ended=ended), start), examples, ended)


def training_stream(
    examples: Any,
    dataset: Dataset,
    batch_size: int,
    seed: int,
    rows: np.ndarray | None,
    ended: Ended = None,
) -> grain.MapDataset:
    """Return the batches of `train_batches` as a sequence, each of which is made when asked for.

    examples: DecodedImages, or StoredSplit with dataset.codes.
    """
    if dataset.codes:
        order = grain.MapDataset.range(len(examples)).seed(seed % 2**32).shuffle().repeat()
        stream = order.map_with_index(
            lambda n, i: examples.load(int(i), n // len(examples) % examples.views)
        )
        return _part(stream, batch_size, rows, ended)

    def augment(example: dict, rng: np.random.Generator) -> dict:
        return {**example, "image": training_view(example["image"], dataset, rng)}

    stream = (
        grain.MapDataset.source(examples).seed(seed % 2**32).shuffle().repeat().random_map(augment)
    )
    return _part(stream, batch_size, rows, ended)


def eval_batches(
    dataset: Dataset, split: str, batch_size: int, rows: np.ndarray | None = None, late: Late = None
) -> Batches:
    """Return an iterator of {"image", "label"} as in training and "valid": bool [b].

    Every example comes once, in a fixed order, in one row of one batch. Examples that fill the last
    batch are black and not valid, and so is an image that does not decode: a replacement would
    count another one twice. "digest": uint32 [b,8] is that of each image, 0 where it is not valid.
    With stored ids a batch has "ids" in the place of images, and their digests.
    late: takes the errors of examples, which are then not valid, and not raised.
    """
    examples: Examples
    if dataset.codes:
        examples = open_stored(dataset, split, "validation")
        blank = {"ids": np.zeros_like(examples.load(0)["ids"])}
    else:
        examples = DecodedImages(open_split(dataset, split), dataset.max_bad)
        blank = {"image": np.zeros((*dataset.shape, 3), np.uint8)}
    blank |= {"label": np.int32(0), "valid": np.False_, "digest": np.zeros(8, np.uint32)}

    def load(index: int) -> dict:
        try:
            example = examples.load(index) if index < len(examples) else None
        except InputError as error:
            if late is None:
                raise
            late.append(error)
            return blank
        if example is None or example["label"] == stored_ids.BAD:
            return blank
        if not dataset.codes:
            example = {**example, "image": validation_view(example["image"], dataset)}
        pixels_or_ids = example["ids" if dataset.codes else "image"]
        return {**example, "valid": np.True_, "digest": digest(pixels_or_ids)}

    padded = -(-len(examples) // batch_size) * batch_size
    ended = threading.Event()
    batches = _part(grain.MapDataset.range(padded).map(load), batch_size, rows, ended)
    return Batches(_in_threads(batches), examples, ended)


def view_batches(
    examples: DecodedImages,
    dataset: Dataset,
    views: int,
    seed: int,
    batch_size: int,
    start: int,
    stop: int,
) -> Batches:
    """Return an iterator of {"image": uint8 [b,V,H,W,3], "label": int32 [b], "bad": bool [b]}.

    Examples start to stop come in turn; b = batch_size, in the last less; bad: not decodable.
    views: V, as in training and with its replacements of what does not decode; 0: the centre view
      of validation, where what does not decode is black, with the label -1.
    """
    black = {"image": np.zeros((1, *dataset.shape, 3), np.uint8), "bad": np.True_}
    black["label"] = np.int32(stored_ids.BAD)

    def load(index: int) -> dict:
        example = examples[index] if views else examples.load(index)
        if example is None:
            return black
        image = example["image"]
        some = [numbered_view(image, dataset, seed, index, v) for v in range(views)]
        stacked = np.stack(some or [validation_view(image, dataset)])
        return {**example, "image": stacked, "bad": np.bool_(index in examples.bad)}

    batches = grain.MapDataset.range(start, stop).map(load).batch(batch_size)
    return Batches(_in_threads(batches), examples)
