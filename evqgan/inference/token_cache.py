"""The mode encode: a data set to stored ids (`data.codes`), once, so that stage 2 trains from these."""

import pathlib

import jax
import numpy as np

from evqgan import models
from evqgan.core import build, mesh, processes, room
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.core.log import duration
from evqgan.data import codes, pipeline, transforms
from evqgan.data.decoded import Decoded
from evqgan.tokenizers import tokenizer as tokenizers

IMAGES, PIXELS = 64, 2**22  # ours: a device encodes at most 64 images, as `sample.load`, and 4 million pixels at a time
SECONDS = 5  # ours: between two lines of progress


def tokenizer_config(workdir):
    """The config and the workdir of a tokenizer; `workdir` may be a quickstart's."""
    inner = pathlib.Path(workdir) / "tokenizer"
    config, place = of_workdir(inner if (inner / "config.json").is_file() else workdir)
    if config.stage != "stage1":
        raise InputError(f"encode needs the workdir of a tokenizer, or of a quickstart; {place} is of {config.stage}")
    return config, place


@processes.together()
def encode(config, workdir, out=None, views=1, seed=0, batch_size=None, force=False):
    """The training split in `views` random views, the validation split in one, as ids in `out` (workdir/codes).

    config: of any stage; its dataset is what is encoded, by an encoder in the dtype that it was trained in, or in
    config.tokenizer.dtype if that is given. Shards that are there are not made again; of several hosts each makes its
    own. Ids are those that training computes from the same crops, but for rounding (the size of the batch) where two
    codes are equally near. batch_size: images a device at a time; force: more than `room.IMAGES` too.
    """
    config = config.generator if config.stage == "quickstart" else config
    theirs, place = tokenizer_config(workdir)
    out = pathlib.Path(out or place / "codes")
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset").of_images()
    dtype = config.tokenizer.get("dtype") or theirs.dtype
    tokenizer = models.ImageTokenizer(tokenizers.make(theirs.tokenizer, dtype), dataset.shape)
    model = tokenizer.network
    print(f"loading {place}", flush=True)
    weights, step = tokenizer.restored(place)
    pipeline.prepare(dataset)
    sources = {split: pipeline.open_split(dataset, getattr(dataset, split)) for split in codes.SPLITS}
    room.limit(len(sources["train"]) * views, room.IMAGES, "images to encode", force)
    examples = {split: Decoded(source, dataset.max_bad) for split, source in sources.items()}
    info = codes.describe(
        dataset, {split: pipeline.identity(source) for split, source in sources.items()},
        sources["train"].class_names, views, seed, model.quantizer.codes, tokenizer.grid, model.quantizer.depth,
        {"fingerprint": codes.fingerprint(weights), "step": step, "dtype": dtype,
         "config": theirs.tokenizer.to_dict()},
    )  # fmt: skip
    codes.begin(out, info)
    batch_size = batch_size or max(1, min(IMAGES, PIXELS // (dataset.shape[0] * dataset.shape[1])))
    size, to_ids = encoder(model, weights, min(batch_size, len(sources["train"]) * views), views)

    def batches(split, start, stop):
        number = info["splits"][split]["views"]
        random = number if split == "train" else 0
        return pipeline.view_batches(examples[split], dataset, random, seed, max(1, size // number), start, stop)

    print(f"{out}: {len(sources['train']):,} x {views} + {len(sources['validation']):,} images", flush=True)
    if not all(codes.finished(out, shard) for shard in codes.shards(info)):
        print(f"compiling the encoder for {size:,} images at a time", flush=True)
    done = codes.encode(out, info, batches, to_ids, jax.process_index(), jax.process_count(), progress())
    bad = sum(len(decoded.bad) for decoded in examples.values())
    parts = [f"{done:,} images encoded" if done else "all shards were there already"]
    parts += [f"{bad:,} did not decode (in training their neighbours stand for them)"] if bad else []
    missing = sum(not codes.finished(out, shard) for shard in codes.shards(info))
    parts += [f"still to come from other hosts: {missing:,} of {len(codes.shards(info)):,} shards"] if missing else []
    print(f"{'; '.join(parts)}. To train from them: --config.dataset.codes={out}", flush=True)
    return info


def encoder(model, weights, batch_size, views):
    """-> size, to_ids(uint8 [n,H,W,3]) -> ids [size,h,w,D], n up to `size`, at least `views`; on all local devices."""
    devices = mesh.make(devices=jax.local_devices())
    size = max(batch_size, -(-views // devices.size)) * devices.size
    weights, split = jax.device_put(weights, mesh.replicated(devices)), mesh.batch_sharding(devices)
    apply = jax.jit(
        jax.shard_map(  # each device by itself, so that ids do not change with how many there are
            lambda weights, image: model.apply(weights, transforms.scale(image), method="encode")[1],
            mesh=devices, in_specs=(mesh.replicated(devices).spec, split.spec), out_specs=split.spec, check_vma=False,
        )
    )  # fmt: skip

    def to_ids(images):
        rows = np.minimum(np.arange(size), len(images) - 1)  # filled up, so that nothing compiles twice
        return apply(weights, jax.device_put(images[rows], split))

    return size, to_ids


def progress():
    """A report(done, total, seconds) that prints images/s and the time left, every few seconds and at the end."""
    told = 0.0

    def report(done, total, seconds):
        nonlocal told
        if seconds - told >= SECONDS or done == total:
            told, rate = seconds, done / seconds
            left = duration((total - done) / rate)
            print(f"encode {done:,}/{total:,}  {rate:,.1f} images/s  ETA {left}", flush=True)

    return report
