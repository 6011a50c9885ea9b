"""From a workdir to images: generate, inpaint, outpaint, class-conditional editing are one call with four masks."""

import functools
import json
import pathlib
import time

import jax
import ml_collections
import numpy as np

from evqgan.core import build, checkpoint
from evqgan.core.errors import InputError
from evqgan.data import pipeline, transforms
from evqgan.tokenizers import tokenizer as tokenizers


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
        return ml_collections.ConfigDict(json.loads(file.read_text())), workdir
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not the JSON that training writes: {error}") from error


def load(workdir, config=None, step=None, batch_size=64):
    """A trained tokenizer or generator from its workdir (latest checkpoint, or `step`'s). -> Loaded"""
    saved, workdir = read_config(workdir)
    return Loaded(config or saved, workdir, step, batch_size)


class Loaded:
    """What a workdir holds, ready to use; NumPy in, NumPy out.

    Images are uint8 or float in [-1, 1], [H,W,3] or [B,H,W,3]; results are uint8 [B,H,W,3]. Work is done in batches of
    `batch_size`, the last one filled up, so that nothing compiles twice; an image depends on (seed, its number) alone.
    """

    def __init__(self, config, workdir, step=None, batch_size=64):
        self.config, self.workdir, self.batch_size = config, workdir, batch_size
        stage = build.module("", config.stage, "config.stage").make(config)
        generative = stage.sample is not None
        like = jax.eval_shape(stage.init)
        like = {key: like[key] for key in (("ema", "tokenizer") if generative else ("ema", "codebook"))}
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
        checkpoints = checkpoint.Checkpoints(workdir)
        self.step = step or max(checkpoints.steps(), default=None)
        self.state = checkpoints.restore(like, self.step)
        checkpoints.close()

        model = tokenizers.make(config.tokenizer.model if generative else config.tokenizer, config.dtype)
        self.factor = model.factor
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
        self._fill = functools.lru_cache(lambda **changes: jax.jit(functools.partial(stage.sample, **changes)))
        self._generative = generative

    def encode(self, images):
        """-> ids [B,h,w,D] int32."""
        return self._batched(lambda x: self._encode(self._tokenizer, x), to_uint8(images))

    def decode(self, ids):
        """ids [B,h,w,D] int32 -> images."""
        return self._batched(lambda x: self._decode(self._tokenizer, x), np.asarray(ids, np.int32))

    def reconstruct(self, images):
        """-> images, each encoded, quantized and decoded."""
        return self.decode(self.encode(images))

    def label_of(self, name):
        """A class by its number (int or text) or its name -> int."""
        if not self.classes:
            raise InputError(f"{self.workdir} holds an unconditional model: it takes no labels")
        if str(name) in self.class_names:
            return self.class_names.index(str(name))
        if str(name).isdecimal() and int(name) < self.classes:
            return int(name)
        some = f", or a name: {build.nearest(name, self.class_names)}" if self.class_names else ""
        raise InputError(f"there is no class {name!r}: expected a number from 0 to {self.classes - 1}{some}")

    def generate(self, num, labels=None, seed=0, report=None, **sampler):
        """`num` new images -> images [num,H,W,3], labels int32 [num], ids int32 [num,h,w,D].

        labels: classes to go through in turn (default: all). sampler: changes to config.sample, such as
        temperature=0.9. report(done, seconds): called after each batch.
        """
        if num < 1:
            raise InputError(f"expected at least one image to generate, got {num}")
        labels = [self.label_of(x) for x in labels] if labels else list(range(max(self.classes, 1)))
        labels = np.resize(np.array(labels, np.int32), num)
        ids = np.zeros((num, *self._latent(*self.size)), np.int32)
        images, ids = self._sample(ids, np.ones(ids.shape[:-1], bool), labels, seed, report, sampler)
        return images, labels, ids

    def edit(self, image, mask, label=None, num=1, seed=0, report=None, **sampler):
        """The part of `image` [H,W,3] where `mask` bool [H,W] is True, anew, in `num` ways -> images [num,H,W,3].

        Tokens that the mask touches are generated (with `label`, as that class); outside them pixels are as they were.
        The hidden pixels are painted over before encoding, so that nothing of them can come back.
        """
        image, mask = to_uint8(image)[0], np.asarray(mask, bool)
        if image.shape[:2] != self.size or mask.shape != self.size:
            raise InputError(
                f"expected an image and a mask of {self.size[1]} x {self.size[0]} pixels (width x height), got "
                f"{image.shape[1]} x {image.shape[0]} and {mask.shape[1]} x {mask.shape[0]}"
            )
        if not mask.any():
            raise InputError("the mask hides nothing: it must be white where the image is to be made anew")
        if self.classes and label is None:
            raise InputError("this model is class-conditional: editing needs a label")
        hidden = np.where(mask[..., None], np.uint8(128), image)  # mid grey, 0 in [-1, 1]
        ids = np.repeat(self.encode(hidden), num, axis=0)
        cells = mask.reshape(ids.shape[1], self.factor, ids.shape[2], self.factor).any(axis=(1, 3))
        labels = np.full(num, self.label_of(label) if self.classes else 0, np.int32)
        images, _ = self._sample(ids, np.repeat(cells[None], num, axis=0), labels, seed, report, sampler)
        anew = cells.repeat(self.factor, 0).repeat(self.factor, 1)[None, ..., None]
        return np.where(anew, images, image[None])

    def outpaint(self, image, left, top, right, bottom, label=None, num=1, seed=0, report=None, **sampler):
        """`image` [H,W,3] grown by so many pixels on each side, in `num` ways -> images [num,H',W',3].

        A canvas larger than the model's images is filled window by window, half a window at a time, outwards from
        what is known.
        """
        image = to_uint8(image)[0]
        if min(left, top, right, bottom) < 0:
            raise InputError(
                f"margins must not be negative, got left,top,right,bottom = {left},{top},{right},{bottom}"
            )
        canvas = np.pad(image, ((top, bottom), (left, right), (0, 0)))
        mask = np.pad(np.zeros(image.shape[:2], bool), ((top, bottom), (left, right)), constant_values=True)
        height, width = mask.shape
        if height < self.size[0] or width < self.size[1] or height % self.factor or width % self.factor:
            raise InputError(
                f"the image with its margins is {width} x {height} pixels; this model needs multiples of "
                f"{self.factor}, at least {self.size[1]} x {self.size[0]}"
            )
        results = []
        for i in range(num):
            done, unknown = canvas.copy(), mask.copy()
            for n, (y, x) in enumerate(windows(mask, self.size, self.factor)):
                part = np.s_[y : y + self.size[0], x : x + self.size[1]]
                if unknown[part].any():
                    done[part] = self.edit(done[part], unknown[part], label, 1, [seed, i, n], report, **sampler)[0]
                    unknown[part] = False
            results.append(done)
        return np.stack(results)

    def _latent(self, height, width):
        return height // self.factor, width // self.factor, 1

    def _sample(self, ids, mask, labels, seed, report, sampler):
        if not self._generative:
            raise InputError(f"{self.workdir} holds a tokenizer; generating needs the workdir of a generator")
        fill, began = self._fill(**sampler), time.perf_counter()
        root = jax.random.key(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(root, np.arange(len(ids)))
        done, number = 0, len(ids)

        def one(ids, mask, labels, keys):
            nonlocal done
            result = jax.block_until_ready(fill(self.state, ids, mask, labels, keys))
            done = min(done + len(labels), number)
            if report:
                report(done, time.perf_counter() - began)
            return result

        ids, images = self._batched(one, ids, mask, labels, keys)
        return images, ids

    def _batched(self, function, *arrays):
        """function over batches, the last filled up with copies of its last row, as NumPy.

        Batches have `batch_size` rows, or the next power of two where fewer are asked for: few sizes to compile for.
        """
        number, results = len(arrays[0]), []
        size = min(self.batch_size, 1 << (number - 1).bit_length())
        for i in range(0, number, size):
            rows = np.minimum(np.arange(i, i + size), number - 1)
            out = function(*(array[rows] for array in arrays))
            results.append(jax.tree.map(lambda x, n=number - i: np.asarray(x)[:n], out))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


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
    return images if images.dtype == np.uint8 else np.asarray(transforms.unscale(images))


def windows(mask, size, factor):
    """Corners (y, x) of windows of `size` that cover a canvas, half a window apart, those nearest to the known first.

    mask bool [H,W]: True where the canvas is unknown. Every window overlaps known pixels or an earlier window.
    """
    known = np.argwhere(~mask)
    centre = known.mean(axis=0) if len(known) else np.array(mask.shape) / 2

    def starts(length, window):
        step = max(window // 2 // factor * factor, factor)
        return sorted({*range(0, length - window, step), length - window})

    corners = [(y, x) for y in starts(mask.shape[0], size[0]) for x in starts(mask.shape[1], size[1])]
    return sorted(corners, key=lambda c: np.hypot(*(np.array(c) + np.array(size) / 2 - centre)))
