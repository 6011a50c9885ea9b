"""The mode encode: a data set to stored ids (`data.stored_ids`), for stage 2.

`encode` opens data and tokenizer, `fill` makes this host's shards, and `data.stored_ids.encode` is
the loop: images from `batches_of`, ids from the function that `encoder` returns.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import build, chosen_step, exported, files, limits, mesh, processes, stores
from evqgan.core.config_files import of_tokenizer
from evqgan.core.progress import Progress, counted, heartbeat, say
from evqgan.data import pipeline, stored_ids
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import DecodedImages
from evqgan.inference.batched import at_once
from evqgan.tokenizers import tokenizer as tokenizers

SECONDS = 5  # ours: between two lines of progress


@dataclasses.dataclass(frozen=True)
class EncodeRequest:
    """What is to be encoded; each field is the flag of its name.

    views: random crops and flips of each training image.
    seed: of these.
    batch_size: images a device at a time; None: as `batched.at_once` has it.
    force: more than `limits.IMAGES`, too.
    step: of the tokenizer, as of `load`.
    """

    views: int = 1
    seed: int = 0
    batch_size: int | None = None
    force: bool = False
    step: chosen_step.Step = None


@processes.together()
def encode(
    config: ConfigDict,
    workdir: pathlib.Path,
    out: pathlib.Path | None = None,
    request: EncodeRequest = EncodeRequest(),
) -> dict[str, Any]:
    """Write the ids of config.dataset into `out`, by default workdir/codes; return its info.json.

    The training split is encoded in `views` random views, the validation split in one. Shards that
    are there are not made again; of several hosts each makes its own. The ids are those that
    training computes from the same crops; rounding, which depends on the size of the batch, may
    change one where two codes are equally near.

    config: of any stage; its dataset is encoded. The encoder computes in the dtype that it was
        trained in, or in config.tokenizer.dtype if that is given.
    workdir: of the tokenizer, or of a quickstart.
    """
    config = config.generator if config.stage == "quickstart" else config
    trained, folder = of_tokenizer(workdir)
    out = stores.path(out or exported.results(folder) / "codes")
    dataset = build.call(Dataset, config.dataset, "config.dataset").of_images()
    dtype = config.tokenizer.get("dtype") or trained.dtype
    tokenizer = models.ImageTokenizer(tokenizers.make(trained.tokenizer, dtype), dataset.shape)
    chosen = models.find_step(folder, trained, request.step)
    pipeline.prepare(dataset)
    sources = {
        split: pipeline.open_split(dataset, getattr(dataset, split)) for split in stored_ids.SPLITS
    }
    number = len(sources["train"]) * request.views
    limits.limit_work(number, limits.IMAGES, "images to encode", request.force)
    with own(out):
        with processes.together():
            print(f"loading {folder}", flush=True)
            weights, step = tokenizer.restored(folder, chosen)
            about = {
                "fingerprint": stored_ids.weights_digest(weights),
                "step": step,
                "dtype": dtype,
                "config": trained.tokenizer.to_dict(),
            }
            info = info_of(dataset, sources, request, tokenizer, about)
            if processes.this()[0] == 0:
                forget_empty(out)
                stored_ids.begin(out, info)
        stored_ids.begin(out, info)  # the others compare theirs
        with processes.together():
            done = fill(out, info, request, dataset, sources, tokenizer, weights)
        for split in stored_ids.SPLITS:  # of all hosts, which have ended
            stored_ids.check_bad(out, info, split, dataset.max_bad)
        print(summary(out, info, done), flush=True)
    return info


@contextlib.contextmanager
def own(out: pathlib.Path) -> Iterator[None]:
    """Make `out` the folder of the first process until all have left the body."""
    with contextlib.ExitStack() as stack:
        with processes.together():
            if processes.this()[0] == 0:
                files.tried(out)
                stack.enter_context(files.owned(out, "another --out"))
        with processes.together():
            yield


def info_of(
    dataset: Dataset,
    sources: Mapping[str, Any],
    request: EncodeRequest,
    tokenizer: models.ImageTokenizer,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of info.json, see `stored_ids.describe`.

    sources: the examples of each split.
    about: the entry `tokenizer`.
    """
    network = tokenizer.network
    return stored_ids.describe(
        dataset,
        {split: pipeline.identity(source) for split, source in sources.items()},
        sources["train"].class_names,
        request.views,
        request.seed,
        network.quantizer.codes,
        tokenizer.grid,
        network.quantizer.depth,
        about,
    )


def forget_empty(out: pathlib.Path) -> None:
    """Remove an info.json without shards, of a call that was stopped before it made one.

    Raises InputError if it is none of ours.
    """
    if (out / "info.json").is_file() and not any(out.glob("*-of-*.npy")):
        stored_ids.read_info(out)
        (out / "info.json").unlink()


def fill(
    out: pathlib.Path,
    info: Mapping[str, Any],
    request: EncodeRequest,
    dataset: Dataset,
    sources: Mapping[str, Any],
    tokenizer: models.ImageTokenizer,
    weights: Any,
) -> int:
    """Make this host's missing shards of stored ids; return how many images were encoded.

    info: the content of info.json in `out`.
    sources: the examples of each split.
    weights: the tokenizer's.
    """
    examples = {split: DecodedImages(source, dataset.max_bad) for split, source in sources.items()}
    images = len(sources["train"]), len(sources["validation"])
    number = images[0] * request.views
    most = request.batch_size or at_once(dataset.shape)
    size, to_ids = encoder(tokenizer, weights, min(most, number), request.views)
    views = f"{images[0]:,} x {request.views} + {images[1]:,}"
    print(f"{out}: {views} images", flush=True)
    if request.batch_size and size > request.batch_size * jax.local_device_count():
        print(f"{size} at a time: all views of an image are encoded together", flush=True)
    batches = batches_of(examples, dataset, info, request.seed, size)
    report = Progress("encode", every=SECONDS)
    host, max_bad = processes.this(), dataset.max_bad
    return stored_ids.encode(out, info, batches, to_ids, *host, report, max_bad)


def batches_of(
    examples: Mapping[str, DecodedImages],
    dataset: Dataset,
    info: Mapping[str, Any],
    seed: int,
    size: int,
) -> Callable[[str, int, int], Iterator[Any]]:
    """Return a function batches(split, start, stop) to the views of examples `start` to `stop`.

    info: the content of info.json.
    size: how many views are encoded at a time.
    """

    def batches(split: str, start: int, stop: int) -> Iterator[Any]:
        number = info["splits"][split]["views"]
        random, each = number if split == "train" else 0, max(1, size // number)
        return pipeline.view_batches(examples[split], dataset, random, seed, each, start, stop)

    return batches


def summary(out: pathlib.Path, info: Mapping[str, Any], done: int) -> str:
    """Return the line printed at the end: what was encoded, and what to do next."""
    bad = sum(stored_ids.count_bad(out, info, split) for split in stored_ids.SPLITS)
    shards = stored_ids.shards(info)
    missing = sum(not stored_ids.finished(out, shard) for shard in shards)
    several = info["splits"]["train"]["views"] > 1
    made = f"{counted(done, 'view' if several else 'image')} encoded"
    parts = [made if done else "all shards were there already"]
    if bad:
        parts.append(f"{bad:,} did not decode (in training their neighbours stand for them)")
    if missing:
        parts.append(f"still to come from other hosts: {missing:,} of {len(shards):,} shards")
    return f"{'; '.join(parts)}. To train a new run from them: --config.dataset.codes={out}"


def encoder(
    tokenizer: models.ImageTokenizer, weights: Any, batch_size: int, views: int
) -> tuple[int, Callable[[np.ndarray], jax.Array]]:
    """Return the size of a batch, and to_ids(uint8 [n,H,W,3]), which gives ids [size,h,w,D].

    n is up to `size` and at least `views`; all local devices take part. The first call compiles.
    """
    devices = mesh.make(devices=jax.local_devices())
    size = max(batch_size, -(-views // devices.size)) * devices.size
    weights, split = jax.device_put(weights, mesh.replicated(devices)), mesh.batch_sharding(devices)

    # Each device by itself, so that ids do not change with how many there are.
    alone = jax.shard_map(
        tokenizer.encode,
        mesh=devices,
        in_specs=(mesh.replicated(devices).spec, split.spec),
        out_specs=split.spec,
        check_vma=False,
    )

    @functools.cache
    def compiled() -> Any:
        say(f"compiling the encoder for {counted(size, 'image')} at a time")
        images = jax.ShapeDtypeStruct((size, *tokenizer.shape, 3), np.uint8, sharding=split)
        with heartbeat("compiling"):
            return jax.jit(alone).lower(weights, images).compile()

    def to_ids(images: np.ndarray) -> jax.Array:
        index = np.minimum(np.arange(size), len(images) - 1)  # filled up: nothing compiles twice
        return compiled()(weights, jax.device_put(images[index], split))

    return size, to_ids
