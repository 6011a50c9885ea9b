"""Stored ids: a data set encoded once, so that stage 2 trains without reading images or running the encoder.

DIR/info.json                           what was encoded, by which tokenizer, in how many views and shards
DIR/train-00003-of-00016.npy            ids [n,V,h,w,D] uint16 or int32: V views, each a crop and flip, of n examples
DIR/train-00003-of-00016.labels.npy     int32 [n]; BAD in validation: the image did not decode, so it is not evaluated
DIR/validation-00000-of-00001.npy       the same with one view, the centre

A shard is finished when both of its files are there. View v of example i is a function of (seed, i, v) and the
tokenizer alone, so shards may be made in any order, by any number of hosts.
"""

import hashlib
import json
import os
import pathlib
import time
from typing import NamedTuple

import numpy as np

from evqgan.core import build, files
from evqgan.core.errors import InputError

FORMAT = "evqgan stored ids 1"
SPLITS = ("train", "validation")
ROWS, BYTES = 2**12, 2**26  # ours: a shard is at most 4,096 examples and 64 MiB: what a kill loses, and memory holds
BAD = -1  # the label of what did not decode
NAMED = 5  # ours: an error names as many missing shards
KEYS = (  # of config.dataset: what decides which ids are made; where the data lie does not
    "name", "train", "validation", "crop", "min_scale", "flip", "image_key", "label_key", "classes", "num_examples",
)


class Shard(NamedTuple):
    """Examples start to stop of a split, under `name`.npy and `name`.labels.npy."""

    split: str
    name: str
    start: int
    stop: int


def fingerprint(weights):
    """A tree of NumPy arrays, nested dicts -> hex text that other names, types, shapes or values change (SHA-256)."""
    found = hashlib.sha256()

    def add(path, node):
        if isinstance(node, dict):
            for key in sorted(node):
                add(f"{path}/{key}", node[key])
        else:
            found.update(f"{path} {node.dtype} {node.shape}\n".encode())
            found.update(np.ascontiguousarray(node).tobytes())

    add("", weights)
    return found.hexdigest()


def data_keys(dataset):
    """What of config.dataset (a `pipeline.Dataset`) decides the ids; of the folder only its name, as it may move."""
    folder = os.path.basename(os.path.abspath(os.path.expanduser(dataset.folder))) if dataset.folder else ""
    return {**{key: getattr(dataset, key) for key in KEYS}, "folder": folder, "size": list(dataset.shape)}


def describe(dataset, examples, class_names, views, seed, codes, latent, depth, tokenizer):
    """-> info, the content of info.json.

    examples: {split: what `pipeline.identity` says of it}; views: of a training example; codes: V of the tokenizer;
    latent (h,w); tokenizer: {"fingerprint", and whatever else says what it is}.
    """
    size = int(np.prod(latent)) * depth * np.dtype(id_type(codes)).itemsize
    splits = {}
    for split, number in zip(SPLITS, (views, 1), strict=True):
        rows = max(1, min(ROWS, BYTES // (size * number)))
        splits[split] = {**examples[split], "views": number, "rows": rows}
    info = {
        "format": FORMAT, "dataset": data_keys(dataset), "splits": splits, "seed": seed,
        "class_names": list(class_names), "codes": codes, "latent": list(latent), "depth": depth,
        "tokenizer": tokenizer,
    }
    return json.loads(json.dumps(info))


def id_type(codes):
    """The smallest type that holds ids below `codes`."""
    return "uint16" if codes <= 2**16 else "int32"


def shards(info):
    """The Shards of all splits, in order."""
    found = []
    for split, keys in info["splits"].items():
        number = -(-keys["examples"] // keys["rows"])
        for s in range(number):
            stop = min((s + 1) * keys["rows"], keys["examples"])
            found.append(Shard(split, f"{split}-{s:05d}-of-{number:05d}", s * keys["rows"], stop))
    return found


def paths(folder, shard):
    """The two files of a shard: ids, labels."""
    return tuple(pathlib.Path(folder) / f"{shard.name}{end}" for end in (".npy", ".labels.npy"))


def read_info(folder):
    """The info.json of a folder of stored ids; InputError if there is none, or it is not what `encode` writes."""
    file = pathlib.Path(folder) / "info.json"
    if not file.is_file():
        raise InputError(
            f"{str(folder)!r} holds no stored ids (there is no {file}): make them with --mode=encode "
            f"--workdir=TOKENIZER --out={folder}, or give another folder as config.dataset.codes"
        )
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        numbers = [info["codes"], info["depth"], *info["latent"]]
        numbers += [info["splits"][split][key] for split in SPLITS for key in ("examples", "views", "rows")]
        texts = [*info["class_names"], info["tokenizer"]["fingerprint"]]
        known = info["format"] == FORMAT and list(info["splits"]) == list(SPLITS) and len(info["latent"]) == 2
        known = known and isinstance(info["dataset"], dict) and isinstance(info["class_names"], list)
        known = known and all(isinstance(x, int) and 0 < x < 2**31 for x in numbers)
        known = known and all(isinstance(x, str) for x in texts) and isinstance(info["seed"], int)
        reason = f"expected the format {FORMAT!r} with all its keys"
    except (OSError, ValueError, KeyError, TypeError) as error:
        known, reason = False, f"{type(error).__name__}: {error}"
    if not known:
        raise InputError(f"{file} is not what --mode=encode writes ({reason}): encode into another folder")
    return info


def begin(folder, info):
    """Makes `folder` the place of `info`; InputError when it holds ids of other data or of another tokenizer."""
    shards_there = any(pathlib.Path(folder).glob("*-of-*.npy"))  # first, as another host may be about to begin
    if (pathlib.Path(folder) / "info.json").exists():
        for key, (here, there) in build.differences(info, read_info(folder)).items():
            raise InputError(f"{folder} holds ids with {key} = {there}, now it is {here}: give another --out")
    elif shards_there:
        raise InputError(f"{folder} holds shards of ids, but no info.json: give another --out, or remove them")
    else:
        files.save_json(pathlib.Path(folder) / "info.json", info)


def require(folder, info, expected):
    """InputError unless `info` has the `expected` values; both dicts, nested or not."""
    ours = {key: info.get(key) for key in expected}
    for key, (here, there) in build.differences(expected, ours).items():
        name = f"config.{key}" if key.startswith("dataset") else key
        other = key == "tokenizer.fingerprint"
        what = "other tokenizer weights" if other else f"{name} = {there!r}, now it is {here!r}"
        raise InputError(
            f"config.dataset.codes = {str(folder)!r} was made with {what}: use the tokenizer and config.dataset it was "
            "made with, or --mode=encode into another folder"
        )


def summary(info):
    """One short text that any difference in `info` changes: what a run that trained from these ids keeps of them."""
    views, digest = info["splits"]["train"]["views"], hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    return f"{views} views of each example, {digest.hexdigest()[:16]}"


def encode(folder, info, batches, to_ids, host=0, hosts=1, report=None):
    """Makes the shards that are this host's (every hosts-th) and are not there yet -> number of images encoded.

    batches(split, start, stop) -> iterator with close() over {"image" uint8 [b,V,H,W,3], "label" int32 [b]}, all
    examples of start to stop in turn. to_ids(uint8 [b*V,H,W,3]) -> ids [b*V or more,h,w,D], as an array or, still being
    computed, of a device: one batch is always under way. report(done, total, seconds) is called after each batch.
    """
    todo = [shard for shard in shards(info)[host::hosts] if not finished(folder, shard)]
    total = sum((shard.stop - shard.start) * info["splits"][shard.split]["views"] for shard in todo)
    done, began = 0, time.perf_counter()

    def images_of(shard):
        source = batches(shard.split, shard.start, shard.stop)
        try:
            for batch in source:
                image = batch["image"]
                yield to_ids(image.reshape(-1, *image.shape[2:])), batch["label"]  # [b*V,h,w,D]
        finally:
            source.close()

    for shard in todo:
        views, ids, labels = info["splits"][shard.split]["views"], [], []
        for some, label in behind(images_of(shard)):
            rows = np.asarray(some)[: len(label) * views].astype(id_type(info["codes"]))
            ids.append(rows.reshape(-1, views, *rows.shape[1:]))  # [b,V,h,w,D]
            labels.append(np.asarray(label, np.int32))
            done += len(rows)
            if report:
                report(done, total, time.perf_counter() - began)
        for path, parts in zip(paths(folder, shard)[::-1], (labels, ids), strict=True):  # the ids last
            with files.atomic(path) as file:
                np.save(file, np.concatenate(parts), allow_pickle=False)
    return done


def finished(folder, shard):
    return all(path.is_file() for path in paths(folder, shard))


def behind(items):
    """The items, each after the next one was asked for: a device computes while the host stores."""
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


class Stored:
    """One split of a folder of stored ids, memory-mapped; safe in threads.

    len(stored) examples; stored.load(i, view) -> {"ids" int32 [h,w,D], "label" int32}; class_names; views. The files
    are not trusted: type and shape of every shard are checked here, the range of the ids where they are read.
    """

    bad = ()  # as of `decoded.Decoded`: images that did not decode were counted when they were encoded

    def __init__(self, folder, split):
        """InputError if the folder is no place of stored ids, if shards of any split are missing, or one is damaged."""
        self.folder, self.info = pathlib.Path(folder), read_info(folder)
        keys = self.info["splits"][split]
        self.split, self.views, self.rows, self.examples = split, keys["views"], keys["rows"], keys["examples"]
        self.class_names, self.codes = tuple(self.info["class_names"]), self.info["codes"]
        everything = shards(self.info)
        missing = [shard.name for shard in everything if not finished(folder, shard)]
        if missing:
            others = f" and {len(missing) - NAMED} others" if len(missing) > NAMED else ""
            raise InputError(
                f"the stored ids in {str(folder)!r} are not complete: {', '.join(missing[:NAMED])}{others} of "
                f"{len(everything)} shards are missing; the same --mode=encode again makes them"
            )
        self.shards, labels = [], []
        for shard in (shard for shard in everything if shard.split == split):
            number, (ids, beside) = shard.stop - shard.start, paths(folder, shard)
            shape = (number, self.views, *self.info["latent"], self.info["depth"])
            self.shards.append(opened(ids, id_type(self.codes), shape))
            labels.append(np.array(opened(beside, "int32", (number,))))
            least, most = (0 if split == "train" else BAD), (len(self.class_names) or 2**31) - 1
            if not least <= labels[-1].min() <= labels[-1].max() <= most:
                raise damaged(beside, f"labels from {least} to {most}", f"{labels[-1].min()} to {labels[-1].max()}")
        self.labels = np.concatenate(labels)

    def __len__(self):
        return self.examples

    def load(self, index, view=0):
        """One view of example `index`; the label is BAD if its image did not decode."""
        shard, row = divmod(index, self.rows)
        ids = self.shards[shard][row, view].astype(np.int32)
        if not 0 <= ids.min() <= ids.max() < self.codes:
            file = paths(self.folder, [s for s in shards(self.info) if s.split == self.split][shard])[0]
            raise damaged(file, f"ids from 0 to {self.codes - 1}", f"{ids.min()} to {ids.max()}")
        return {"ids": ids, "label": self.labels[index]}


def opened(path, dtype, shape):
    """The memory-mapped array of an .npy file; InputError unless it is of this type and shape. Nothing is unpickled."""
    expected = f"{dtype} {list(shape)}"
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise damaged(path, expected, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if array.dtype != dtype or array.shape != shape:
        raise damaged(path, expected, f"{array.dtype} {list(array.shape)}")
    return array


def damaged(path, expected, found):
    return InputError(f"{path}: expected {expected}, got {found}; remove this file, and --mode=encode makes it again")
