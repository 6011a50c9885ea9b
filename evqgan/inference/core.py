"""What a workdir holds, as functions of arrays: encode, decode, and draw the tokens of any part of an image."""

import difflib
import functools
import numbers
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from evqgan import models
from evqgan.core import build, checkpoint, kinds, mesh, room
from evqgan.core.errors import InputError, first_line
from evqgan.data import transforms
from evqgan.inference.batched import Rows

SEED = Annotated[int, kinds.Range(0, 2**63 - 1)]  # as the int64 of a samples.npz holds it
NAMES = 20  # ours: of more class names than this, an error lists none


class CoreModel:
    """What a workdir holds, ready to use; NumPy in, NumPy out.

    Images are uint8 or float in [-1, 1], [H,W,3] or [B,H,W,3]; results are uint8 [B,H,W,3]. Work is split over all
    devices of this host, `batch_size` rows each at a time, the last batch filled up (`rows`, a `batched.Rows`).

    A generated image depends on (seed, its number) alone: how many others there are, their labels, and where a batch
    begins change nothing. With the same rows a device it is the same to the bit on any number of devices of a kind;
    with other rows a device (another batch_size, or few images) it is the same but for rounding, and then now and then
    a token that was drawn on a knife's edge becomes another one, and with it its image.
    """

    def __init__(self, config, workdir, step=None, batch_size=64):
        self.config, self.workdir = config, workdir
        self.rows = Rows(batch_size)
        model = models.of(config)
        self.generator = model if config.stage == "stage2" else None
        sharding = mesh.replicated(self.rows.mesh)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), model.shapes())
        checkpoints = checkpoint.Checkpoints(workdir, create=False)
        self.step = max(checkpoints.steps(), default=None) if step is None else step
        self.state = checkpoints.restore(like, self.step)
        checkpoints.close()

        tokenizer = model.tokenizer if self.generator else model
        network = tokenizer.network
        self.factor, self.codes, self.depth = network.factor, network.quantizer.codes, network.quantizer.depth
        self.size = tokenizer.shape
        self.classes = config.generator.get("classes", 0) if self.generator else 0
        self.class_names = tuple(config.get("class_names", ()))
        self._tokenizer = self.state.get("tokenizer") or {
            "params": self.state["ema"],
            "codebook": self.state["codebook"],
        }
        self._encode, self._decode = coders(tokenizer)
        given = build.plain(config.get("sample", {}))
        # All settings of the sampler: those of config.sample, and the generator's defaults for the others.
        self.sampler = {**self.generator.settings(), **given} if self.generator else {}
        self._fill = functools.cache(lambda **changes: filler(self.generator, {**given, **changes}))

    def encode(self, images, size=None):
        """-> ids [B,h,w,D] int32. size: of the batches, if not as `rows` has it."""
        return self.rows(self._encode, self._tokenizer, to_uint8(images), size=size)

    def decode(self, ids, size=None):
        """ids [B,h,w,D] or [h,w,D] int -> images. size: as in `encode`."""
        ids = np.asarray(ids)
        ids = ids[None] if ids.ndim == 3 else ids
        if ids.ndim != 4 or ids.shape[-1] != self.depth or ids.dtype.kind not in "iu":
            raise InputError(f"expected ids as int [B,h,w,{self.depth}], got {ids.dtype} {list(ids.shape)}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.codes:
            raise InputError(f"expected ids from 0 to {self.codes - 1}, got {ids.min()} to {ids.max()}")
        return self.rows(self._decode, self._tokenizer, ids.astype(np.int32), size=size)

    def reconstruct(self, images, size=None):
        """-> images, each encoded, quantized and decoded. size: as in `encode`."""
        return self.decode(self.encode(images, size), size)

    def label_of(self, name):
        """A class -> its number: of an int, that; of a text, the class of that name, or else the number it spells.

        Where classes have numbers for names, a text is a name alone.
        """
        if not self.classes:
            raise InputError(f"{self.workdir} holds an unconditional model: it takes no labels, got {name!r}")
        names, whole = self.class_names, isinstance(name, numbers.Integral) and not isinstance(name, bool)
        if not whole and str(name) in names:
            return names.index(str(name))
        spelt = isinstance(name, str) and name.isdecimal() and not any(map(str.isdecimal, names))
        if (whole or spelt) and 0 <= int(name) < self.classes:
            return int(name)
        names = names if len(names) <= NAMES else difflib.get_close_matches(str(name), names)
        hint = f", or a name: {build.nearest(name, names)}" if names else ""
        raise InputError(f"there is no class {name!r}: expected a number from 0 to {self.classes - 1}{hint}")

    def planned(self, num, labels=None, seed=0, acceptance=1.0, force=False):
        """The label of each image that `sample` makes of the same arguments -> int32 [num]; InputError if it cannot."""
        self.check_generates(num, seed)
        if not 0 < acceptance <= 1:
            raise InputError(f"expected an acceptance above 0 and at most 1, got {acceptance}")
        room.limit(num / acceptance, room.IMAGES, "images to generate", force)
        every = range(max(self.classes, 1))
        labels = [np.asarray(labels).item()] if np.ndim(labels) == 0 and labels is not None else labels
        labels = every if labels is None or not len(labels) else [self.label_of(x) for x in labels]
        return np.resize(np.array(labels, np.int32), num)

    def new(self, labels, numbers, seed, sampler, report=None, size=None, decode=True):
        """The images of `seed` with these `numbers` [B], of `labels` int32 [B] -> ids, images, or as `fill` has it.

        size: as in `decode`; sampler with trace=True: -> how they are filled, ids [B,S,h,w,D] (`Stage.sample`).
        """
        ids = np.zeros((len(labels), *(side // self.factor for side in self.size), self.depth), np.int32)
        mask = np.ones(ids.shape[:-1], bool)
        return self.fill(ids, mask, labels, seed, sampler, report, numbers, size, decode)

    def check_mask(self, mask):
        """InputError if the generator cannot make just the tokens where mask NumPy bool [B,h,w] is True."""
        self.generator.check_mask(mask)

    def check_generates(self, num, seed=0):
        """InputError unless this is a generator, and there can be `num` images of this seed."""
        if self.generator is None:
            raise InputError(f"{self.workdir} holds a tokenizer; generating needs the workdir of a generator")
        if not kinds.fits(num, kinds.Positive):
            raise InputError(f"expected at least one image to generate, a whole number, got {num!r}")
        if not kinds.fits(seed, SEED):
            raise InputError(f"expected a seed that is {kinds.describe(SEED)}, got {seed!r}")

    def fill(self, ids, mask, labels, seed, sampler, report=None, numbers=None, size=None, decode=True):
        """ids [B,h,w,D] with those where mask [B,h,w] is True anew -> ids, images, or ids alone without `decode`.

        With trace=True in the sampler: -> ids [B,S,h,w,D].
        """
        seed, sampler = np.random.SeedSequence(seed).generate_state(1)[0], build.plain(sampler)
        numbers = np.arange(len(ids), dtype=np.uint32) if numbers is None else numbers
        rows, alone = (ids, mask, labels, np.full(len(ids), seed), numbers), sampler.get("trace") or not decode
        fill, size, results, began = self._fill(**sampler), size or self.rows.size(len(ids)), [], self.rows.clock()
        for start in range(0, len(ids), size):
            new = self.rows(fill, self.state, *(x[start : start + size] for x in rows), size=size)
            results.append([new] if alone else [new, self.decode(new, size)])
            if report:
                report(min(start + size, len(ids)), len(ids), self.rows.clock() - began)
        results = [np.concatenate(parts) for parts in zip(*results, strict=True)]
        return results[0] if alone else results


def coders(tokenizer):
    """An ImageTokenizer's encoder and decoder, functions of `Rows`, whose names people see."""

    def encoder(weights, images):
        return tokenizer.encode(weights, images)

    def decoder(weights, ids):
        return tokenizer.decode(weights, ids)

    return encoder, decoder


def filler(generator, settings):
    """A TokenGenerator's `sample` with all its `settings`, a function of `Rows`; key n of a seed draws its image n."""

    def sampler(state, ids, mask, labels, seeds, numbers):
        keys = jax.vmap(lambda seed, number: jax.random.fold_in(jax.random.key(seed), number))(seeds, numbers)
        made = generator.sample(state["ema"], state["tokenizer"], ids, mask, labels, keys, **settings)
        return jnp.swapaxes(made, 0, 1) if settings.get("trace") else made  # [S,B,...] -> [B,S,...]

    return sampler


def to_uint8(images):
    """uint8 or float in [-1, 1], [H,W,3] or [B,H,W,3] -> uint8 [B,H,W,3]; InputError for all else.

    Floats of which none in the batch is negative are most likely of [0, 1], and are refused, too: read as they stand
    they would be pale, unnoticed. Images that are so bright can be given as uint8; all 1 is white in either range.
    """
    try:
        images = np.asarray(images)
    except ValueError as error:  # a list of images of several sizes
        raise InputError(f"expected images of one size: {first_line(error)}") from error
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] != 3 or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise InputError(
            "expected images as uint8, or as floats in [-1, 1], of shape [H,W,3] or [B,H,W,3], got "
            f"{images.dtype} {list(images.shape)}"
        )
    if images.dtype == np.uint8:
        return images
    if not (np.abs(images) <= 1).all():
        found = f"{images.min():.4g} to {images.max():.4g}"
        raise InputError(f"expected floats in [-1, 1], got {found}: scale or clip them")
    if images.size and images.min() >= 0 and images.min() < 1:
        raise InputError(
            "expected floats in [-1, 1], got none below 0, as if they were in [0, 1]: give 2 * images - 1, or, if they "
            "are in [-1, 1] and as bright as that, ((images + 1) * 127.5).round().astype('uint8')"
        )
    return transforms.unscale(images)
