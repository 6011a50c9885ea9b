"""From a workdir to images: generate, inpaint, outpaint, class-conditional editing are one call with four masks."""

import difflib
import functools
import json
import pathlib
import time

import jax
import ml_collections
import numpy as np
from scipy import ndimage

from evqgan.core import build, checkpoint
from evqgan.core.errors import InputError
from evqgan.data import pipeline, transforms
from evqgan.tokenizers import tokenizer as tokenizers

GREY = np.uint8(128)  # what hides a pixel: as near to 0 in [-1, 1] as 8 bits come
NAMES = 20  # ours: of more class names than this, an error lists none


def read_config(workdir):
    """The config of a workdir, and that workdir: of a quickstart's, its generator."""
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").is_file() and (workdir / "generator" / "config.json").is_file():
        workdir = workdir / "generator"
    file = workdir / "config.json"
    if not file.is_file():
        raise InputError(
            f"{workdir} is no workdir: there is no {file}; train one with --config=FILE --workdir={workdir}"
        )
    try:
        config = ml_collections.ConfigDict(json.loads(file.read_text()))
        build.module("", config.stage, f"the stage in {file}")
        return config, workdir
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not the JSON that training writes: {error}") from error


def load(workdir, config=None, step=None, batch_size=64):
    """A trained tokenizer or generator from its workdir (latest checkpoint, or `step`'s). -> Loaded"""
    saved, workdir = read_config(workdir)
    return Loaded(config or saved, workdir, step, batch_size)


class Loaded:
    """What a workdir holds, ready to use; NumPy in, NumPy out.

    Images are uint8 or float in [-1, 1], [H,W,3] or [B,H,W,3]; results are uint8 [B,H,W,3]. Work is done in batches of
    `batch_size`, the last one filled up, so that nothing compiles twice. A generated image depends on (seed, its
    number) alone, but for rounding, which the size of the batch may change.
    """

    def __init__(self, config, workdir, step=None, batch_size=64):
        self.config, self.workdir, self.batch_size = config, workdir, batch_size
        if batch_size < 1:
            raise InputError(f"expected a batch_size of at least 1, got {batch_size}")
        stage = build.module("", config.stage, "config.stage").make(config)
        generative = stage.sample is not None
        like = jax.eval_shape(stage.init)
        like = {key: like[key] for key in (("ema", "tokenizer") if generative else ("ema", "codebook"))}
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
        checkpoints = checkpoint.Checkpoints(workdir, create=False)
        self.step = max(checkpoints.steps(), default=None) if step is None else step
        self.state = checkpoints.restore(like, self.step)
        checkpoints.close()

        keys = config.tokenizer.model if generative else config.tokenizer
        model = tokenizers.make(keys, config.dtype)
        self.factor, self.codes, self.depth = model.factor, model.quantizer.codes, model.quantizer.depth
        self.size = build.call(pipeline.Dataset, config.dataset, "config.dataset").shape
        self.classes = config.generator.get("classes", 0) if generative else 0
        self.class_names = tuple(config.get("class_names", ()))
        self._tokenizer = self.state.get("tokenizer") or {
            "params": self.state["ema"],
            "codebook": self.state["codebook"],
        }
        self._encode = jax.jit(lambda w, x: model.apply(w, transforms.scale(x), method="encode")[1])
        self._decode = jax.jit(
            lambda w, ids: transforms.unscale(model.apply(w, model.apply(w, ids, method="embed"), method="decode"))
        )
        self._fill = functools.cache(lambda **sampler: filler(stage.sample, sampler)) if generative else None

    def encode(self, images):
        """-> ids [B,h,w,D] int32."""
        return self._batched(lambda x: self._encode(self._tokenizer, x), to_uint8(images))

    def decode(self, ids):
        """ids [B,h,w,D] or [h,w,D] int -> images."""
        ids = np.asarray(ids)
        ids = ids[None] if ids.ndim == 3 else ids
        if ids.ndim != 4 or ids.shape[-1] != self.depth or ids.dtype.kind not in "iu":
            raise InputError(f"expected ids as int [B,h,w,{self.depth}], got {ids.dtype} {list(ids.shape)}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.codes:
            raise InputError(f"expected ids from 0 to {self.codes - 1}, got {ids.min()} to {ids.max()}")
        return self._batched(lambda x: self._decode(self._tokenizer, x), ids.astype(np.int32))

    def reconstruct(self, images):
        """-> images, each encoded, quantized and decoded."""
        return self.decode(self.encode(images))

    def label_of(self, name):
        """A class by its number (int or text) or its name -> int."""
        if not self.classes:
            raise InputError(f"{self.workdir} holds an unconditional model: it takes no labels, got {name!r}")
        if str(name) in self.class_names:
            return self.class_names.index(str(name))
        if str(name).isdecimal() and int(name) < self.classes:
            return int(name)
        names = self.class_names
        names = names if len(names) <= NAMES else difflib.get_close_matches(str(name), names)
        hint = f", or a name: {build.nearest(name, names)}" if names else ""
        raise InputError(f"there is no class {name!r}: expected a number from 0 to {self.classes - 1}{hint}")

    def generate(self, num, labels=None, seed=0, **sampler):
        """`num` new images of `labels`, classes by number or name to go through in turn (default: all) -> images.

        sampler: changes to config.sample, such as temperature=0.9.
        """
        return self.sample(num, labels, seed, **sampler)["images"]

    def sample(self, num, labels=None, seed=0, report=None, **sampler):
        """`generate` with all it made: {"images", "ids" int32 [num,h,w,D], "labels" int32 [num] (if it has classes)}.

        report(done, seconds) is called after each batch.
        """
        self._check_generates(num)
        labels = [self.label_of(x) for x in labels] if labels else range(max(self.classes, 1))
        labels = np.resize(np.array(labels, np.int32), num)
        ids = np.zeros((num, self.size[0] // self.factor, self.size[1] // self.factor, self.depth), np.int32)
        ids, images = self._generate(ids, np.ones(ids.shape[:-1], bool), labels, seed, sampler, report)
        return {"images": images, "ids": ids} | ({"labels": labels} if self.classes else {})

    def edit(self, image, mask, label=None, num=1, seed=0, **sampler):
        """The part of `image` [H,W,3] where `mask` bool [H,W] is True, anew, in `num` ways -> images [num,H,W,3].

        Tokens that the mask touches are generated (with `label`, as that class); outside them pixels are as they were.
        The hidden pixels are painted over before encoding, so that nothing of them can come back.
        """
        labels = self._labels(label, num)
        image, mask = one_image(image), np.asarray(mask, bool)
        if image.shape[:2] != self.size or mask.shape != self.size:
            raise InputError(
                f"expected an image and a mask of {self.size[1]} x {self.size[0]} pixels (width x height), got "
                f"{image.shape[1]} x {image.shape[0]} and {' x '.join(map(str, mask.shape[::-1]))}"
            )
        if not mask.any():
            raise InputError("the mask hides nothing: it must be white where the image is to be made anew")
        return self._renew(np.repeat(image[None], num, axis=0), mask, labels, seed, sampler)

    def outpaint(self, image, left, top, right, bottom, label=None, num=1, seed=0, **sampler):
        """`image` [H,W,3] grown by so many pixels on each side, in `num` ways -> images [num,H',W',3].

        A canvas larger than the model's images is filled window by window, half a window at a time, outwards from
        what is known. A margin that is no multiple of the factor costs a strip of the image: its tokens are made anew.
        """
        labels = self._labels(label, num)
        image = one_image(image)
        if min(left, top, right, bottom) < 0 or not any((left, top, right, bottom)):
            raise InputError(
                "expected margins of at least 0 pixels, one of them more, got left,top,right,bottom = "
                f"{left},{top},{right},{bottom}"
            )
        margins = ((top, bottom), (left, right))
        unknown = np.pad(np.zeros(image.shape[:2], bool), margins, constant_values=True)
        height, width = unknown.shape
        if height < self.size[0] or width < self.size[1] or height % self.factor or width % self.factor:
            raise InputError(
                f"the image with its margins is {width} x {height} pixels; this model needs multiples of "
                f"{self.factor}, at least {self.size[1]} x {self.size[0]}"
            )
        canvas = np.repeat(np.pad(image, (*margins, (0, 0)))[None], num, axis=0)
        for n, (y, x) in enumerate(windows(unknown, self.size, self.factor)):
            rows, columns = slice(y, y + self.size[0]), slice(x, x + self.size[1])
            if unknown[rows, columns].any():
                part = canvas[:, rows, columns]
                canvas[:, rows, columns] = self._renew(part, unknown[rows, columns], labels, [seed, n], sampler)
                unknown[rows, columns] = False
        return canvas

    def _check_generates(self, num):
        if self._fill is None:
            raise InputError(f"{self.workdir} holds a tokenizer; generating needs the workdir of a generator")
        if num < 1:
            raise InputError(f"expected at least one image to generate, got {num}")

    def _labels(self, label, num):
        """One class for `num` images -> int32 [num]."""
        self._check_generates(num)
        if self.classes and label is None:
            raise InputError("this model is class-conditional: editing needs a label")
        return np.full(num, 0 if label is None else self.label_of(label), np.int32)

    def _renew(self, images, mask, labels, seed, sampler):
        """images uint8 [B,H,W,3] with the tokens that mask [H,W] touches anew."""
        ids = self.encode(painted_over(images, mask))
        f = self.factor
        touched = mask.reshape(ids.shape[1], f, ids.shape[2], f).any(axis=(1, 3))
        _, new = self._generate(ids, np.repeat(touched[None], len(ids), axis=0), labels, seed, sampler)
        return np.where(touched.repeat(f, axis=0).repeat(f, axis=1)[..., None], new, images)

    def _generate(self, ids, mask, labels, seed, sampler, report=None):
        """ids [B,h,w,D] with those where mask [B,h,w] is True anew -> ids, images."""
        try:
            seed = np.random.SeedSequence(seed).generate_state(1)[0]
        except (TypeError, ValueError):
            raise InputError(f"expected a seed that is a whole number from 0, got {seed!r}") from None
        fill, began, done, number = self._fill(**sampler), time.perf_counter(), 0, len(ids)

        def one(ids, mask, labels, numbers):
            nonlocal done
            result = jax.block_until_ready(fill(self.state, ids, mask, labels, seed, numbers))
            done = min(done + len(ids), number)
            if report:
                report(done, time.perf_counter() - began)
            return result

        return self._batched(one, ids, mask, labels, np.arange(number, dtype=np.uint32))

    def _batched(self, function, *arrays):
        """function over batches, the last filled up with copies of its last row, as NumPy.

        Batches have `batch_size` rows, or the next power of two where fewer are asked for: few sizes to compile for.
        """
        number, results = len(arrays[0]), []
        if not number:
            raise InputError("expected at least one image, got none")
        size = min(self.batch_size, 1 << (number - 1).bit_length())
        for i in range(0, number, size):
            rows = np.minimum(np.arange(i, i + size), number - 1)
            out = function(*(array[rows] for array in arrays))
            results.append(jax.tree.map(lambda x, n=number - i: np.asarray(x)[:n], out))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def filler(sample, sampler):
    """A stage's `sample` with the settings `sampler`, compiled; image n draws from the n-th key of the seed."""

    def fill(state, ids, mask, labels, seed, numbers):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
        return sample(state, ids, mask, labels, keys, **sampler)

    return jax.jit(fill)


def to_uint8(images):
    """uint8 or float in [-1, 1], [H,W,3] or [B,H,W,3] -> uint8 [B,H,W,3]."""
    images = np.asarray(images)
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
    return transforms.unscale(images)


def one_image(image):
    """As `to_uint8`, of one image -> uint8 [H,W,3]."""
    images = to_uint8(image)
    if len(images) != 1:
        raise InputError(f"expected one image to edit, got {len(images)}")
    return images[0]


def painted_over(images, mask):
    """images [B,H,W,3] with the pixels where mask [H,W] is True in the colour of the nearest one where it is not.

    So the tokens beside a hole see what usually lies beside such pixels, and nothing of what the hole hides.
    """
    if mask.all():
        return np.full_like(images, GREY)
    y, x = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    return images[:, y, x]


def windows(mask, size, factor):
    """Corners (y, x) of windows of `size` that cover a canvas, half a window apart, those nearest to the known first.

    mask bool [H,W]: True where the canvas is unknown; what is known is one rectangle. Every window overlaps known
    pixels or an earlier window.
    """
    centre = np.argwhere(~mask).mean(axis=0)

    def starts(length, window):
        step = max(window // 2 // factor * factor, factor)
        return sorted({*range(0, length - window, step), length - window})

    corners = [(y, x) for y in starts(mask.shape[0], size[0]) for x in starts(mask.shape[1], size[1])]
    return sorted(corners, key=lambda c: np.hypot(*(np.array(c) + np.array(size) / 2 - centre)))
