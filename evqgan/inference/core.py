"""What a workdir holds, as functions of arrays: encode, decode, generate any part of an image."""

import dataclasses
import functools
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Never, cast

import jax
import jax.numpy as jnp
import numpy as np

from evqgan import models
from evqgan.core import build, checkpoint, chosen_step, exported, jax_settings, limits, mesh, stores
from evqgan.core.errors import InputError
from evqgan.core.processes import Report
from evqgan.core.progress import counted
from evqgan.generators.requests import request_of, seeds_of
from evqgan.inference import planning
from evqgan.inference.batched import BatchRunner, at_once, once
from evqgan.inference.class_names import Classes
from evqgan.inference.guarded import Guarded
from evqgan.inference.images import check_plain

# watch(numbers uint32 [b], ids int32 [b,h,w,D]): some of the images, by their numbers, after a
# step; V = `codes` where still unknown. An image may come twice.
Watch = Callable[[np.ndarray, np.ndarray], None]


class CoreModel(Guarded):
    """The model of a workdir with its weights: functions of NumPy arrays, uint8 and int32.

    Work is split over the devices, `batch_size` images on each at a time (`runner`, a
    `batched.BatchRunner`). What is jitted are `models.ImageTokenizer.encode` and `decode`, and
    `models.TokenGenerator.sample`.

    What a generated image depends on, and when it is the same to the bit: `model.Model`, "Seeds".
    """

    @jax_settings.ours()
    def __init__(
        self,
        config: Any,
        workdir: Any,
        step: chosen_step.Step = None,
        batch_size: int | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """See `model.load`. devices: None is all of this host."""
        self.config, self.workdir = config, workdir
        number = models.find_step(workdir, config, step)
        with build.config_of(workdir):
            model = models.of(config)
        self.generator = model if isinstance(model, models.TokenGenerator) else None
        tokenizer = model.tokenizer if isinstance(model, models.TokenGenerator) else model
        most = at_once(tokenizer.shape) if batch_size is None else batch_size
        self.runner = BatchRunner(most, devices)
        limits.require_batch(self.runner.batch_size, tokenizer.shape)
        self.state, self.step = self._restored(model, number)
        self._network = network = tokenizer.network
        self.factor, self.size, self.grid = network.factor, tokenizer.shape, tokenizer.grid
        self.codes, self.depth = network.quantizer.codes, network.quantizer.depth
        self.classes = config.generator.get("classes", 0) if self.generator else 0
        self.class_names = tuple(config.get("class_names", ()))
        self._tokenizer = self.state.get("tokenizer") or {
            "params": self.state["ema"],
            "codebook": self.state["codebook"],
        }
        self._encode, self._decode = coders(tokenizer)
        self.chosen: set[tuple] = set()  # what `tiled.choose` has logged
        settings = dataclasses.asdict(self.settings()) if self.generator else {}
        self._sampler = types.MappingProxyType(settings)
        # So that each compiles once.
        self._sampler_of = once(lambda settings: sampler_of(self._needed(), settings))
        self._history_of = once(
            lambda settings, report: history_of(self._needed(), settings, report)
        )
        self._watch: Watch | None = None  # of the call of `history` that is running
        self._is_loaded = True

    def __repr__(self) -> str:
        """Return in a line what it is, of which sizes, in what and where it computes."""
        config, (height, width) = self.config, self.size
        kind = f"generator {config.generator.name}" if self.generator else "tokenizer"
        depth = f" in {self.depth} depths" if self.depth > 1 else ""
        devices = self.runner.mesh.devices.ravel()
        parts = [
            f"{kind} of {width}x{height} images",
            f"{width // self.factor}x{height // self.factor} tokens of {self.codes:,} codes{depth}",
            *([counted(self.classes, "class")] if self.classes else []),
            f"{config.dtype} on {len(devices)} x {devices[0].platform}",
            f"{checkpoint.trained(self.step)} in {self.workdir}",
        ]
        return f"<evqgan model: {', '.join(parts)}>"

    @property
    def sampler(self) -> Mapping[str, Any]:
        """All settings of the sampler: those of config.sample, and defaults for the others.

        Read-only: a call takes changes, as in sample(8, temperature=0.9).
        """
        return self._sampler

    @sampler.setter
    def sampler(self, value: Any) -> Never:
        raise AttributeError(
            "the sampler of a model is read-only: give changes to a call instead, as in "
            "model.sample(8, temperature=0.9)"
        )

    @property
    def weights_path(self) -> pathlib.Path:
        """What the weights were read from: the folder of a checkpoint, or a file."""
        folder = stores.path(self.workdir)
        one = exported.is_one(folder)
        return folder / (exported.WEIGHTS if one else f"checkpoints/{self.step}")

    def _restored(self, model: Any, step: int | None) -> tuple[dict, int]:
        """Return the state and step of a checkpoint: the latest, or that of `step`."""
        everywhere = mesh.replicated(self.runner.mesh)
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
            model.shapes(),
        )
        state, found = models.restored(self.workdir, like, step)
        check_plain(jax.tree.leaves(state), "weights")
        return state, found

    def _needed(self, what: str = "generating") -> models.TokenGenerator:
        """Return the generator, which `what` needs; InputError if the workdir holds a tokenizer."""
        planning.require_generator(self.generator is not None, self.workdir, what)
        return cast(models.TokenGenerator, self.generator)

    def settings(self, changes: Mapping[str, Any] | None = None) -> Any:
        """Return the settings of the sampler: those of config.sample with `changes`.

        Raises InputError for an unknown key or an impossible value.
        """
        return planning.settings_of(self.config, self._needed(), changes)

    def check_settings(self, changes: Mapping[str, Any]) -> None:
        """Raise InputError for changes to config.sample with which the generator cannot sample."""
        self._needed().check_settings(self.settings(changes))

    def to_ids(
        self, images: np.ndarray, rows: int | None = None, report: Report | None = None
    ) -> np.ndarray:
        """Return the ids [B,h,w,D] int32 of images uint8 [B,H,W,3].

        rows: how many images a batch has; None: as `runner` decides.
        report: report(done, total, seconds) is called after each batch.
        """
        return self.runner(self._encode, self._tokenizer, images, rows=rows, report=report)

    def to_images(
        self, ids: np.ndarray, rows: int | None = None, report: Report | None = None
    ) -> np.ndarray:
        """Return the images uint8 [B,H,W,3] of ids [B,h,w,D]; the rest as in `to_ids`."""
        given = ids.astype(np.int32)
        return self.runner(self._decode, self._tokenizer, given, rows=rows, report=report)

    def checked_ids(self, ids: Any) -> np.ndarray:
        """Return ids [h,w,D] or [B,h,w,D] int as int32 [B,h,w,D]; InputError for all else."""
        check_plain(ids, "ids")
        given = np.asarray(ids)
        ids = given[None] if given.ndim == 3 else given
        if ids.ndim != 4 or ids.shape[-1] != self.depth or ids.dtype.kind not in "iu":
            expected = f"ids as int [h,w,{self.depth}] or [B,h,w,{self.depth}]"
            raise InputError(f"expected {expected}, got {given.dtype} {list(given.shape)}")
        if len(ids) and not ids.size:
            raise InputError(f"expected ids of at least one token, got {list(given.shape)}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.codes:
            found = f"{ids.min()} to {ids.max()}"
            raise InputError(f"expected ids from 0 to {self.codes - 1}, got {found}")
        return ids.astype(np.int32)

    @jax_settings.ours()
    def takes(self, shape: tuple[int, int]) -> bool:
        """Return whether the tokenizer's networks take images of this size (H, W) whole."""
        images = jax.ShapeDtypeStruct((1, *shape, 3), np.uint8)
        try:
            ids = jax.eval_shape(self._encode, self._tokenizer, images)
            jax.eval_shape(self._decode, self._tokenizer, ids)
        except InputError:
            return False
        return True

    def known_classes(self, what: str = "generating") -> Classes:
        """Return the classes of the generator; InputError if the workdir holds a tokenizer.

        what: needs them, in words.
        """
        self._needed(what)
        return Classes(self.classes, self.class_names, self.workdir)

    def label_of(self, name: Any) -> int:
        """Return the number of a class, see `class_names.Classes.label_of`."""
        return self.known_classes().label_of(name)

    def checked_labels(
        self,
        num: int,
        labels: Any = None,
        seed: int = 0,
        acceptance: float = 1.0,
        force: bool = False,
    ) -> np.ndarray:
        """Return the label of each image that `sample` is asked for, see `planning`."""
        return planning.checked_labels(self.known_classes(), num, labels, seed, acceptance, force)

    def check_mask(self, mask: np.ndarray) -> None:
        """Raise InputError if the generator cannot make just the tokens where `mask` is True.

        mask: NumPy bool [B,h,w].
        """
        self._needed().check_mask(mask)

    def new(
        self,
        labels: np.ndarray,
        numbers: np.ndarray,
        seed: int,
        changes: Mapping[str, Any] | None = None,
        report: Report | None = None,
        rows: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Generate images: return their ids [B,h,w,D] int32 and pixels uint8 [B,H,W,3].

        labels: int32 [B]; numbers: uint32 [B], which images of the seed these are.
        changes: to config.sample.
        report: report(done, total, seconds) is called after each batch.
        rows: as in `to_ids`.
        """
        size, began = rows or self.runner.rows(len(labels)), self.runner.clock()
        results = []
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            ids = self.new_ids(labels[part], numbers[part], seed, changes, size)
            results.append((ids, self.to_images(ids, size)))
            if report:
                report(min(start + size, len(labels)), len(labels), self.runner.clock() - began)
        ids, images = (np.concatenate(parts) for parts in zip(*results, strict=True))
        return ids, images

    def new_ids(
        self,
        labels: np.ndarray,
        numbers: np.ndarray,
        seed: int,
        changes: Mapping[str, Any] | None = None,
        rows: int | None = None,
    ) -> np.ndarray:
        """Return the ids of `new`, without decoding them."""
        ids, mask = self._nothing_known(len(labels))
        return self.fill(ids, mask, labels, seed, changes, numbers, rows)

    def history(
        self,
        labels: np.ndarray,
        numbers: np.ndarray,
        seed: int,
        changes: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> np.ndarray:
        """Return the ids of `new` after each step [B,S,h,w,D]; V = `codes` where still unknown.

        watch: is called while they are made, see `Watch`, if the generator makes them in steps. Of
          one model one call at a time can be watched; its program is not kept on disk.
        """
        given = *self._nothing_known(len(labels)), labels, seeds_of(seed, len(labels)), numbers
        function = self._history_of(self.settings(changes), watch and self._report)
        self._watch = watch
        try:
            made = self.runner(function, self.state, *given)
            jax.effects_barrier()  # all steps were reported
        finally:
            self._watch = None
        return made

    def _report(self, numbers: np.ndarray, ids: np.ndarray) -> None:
        """Hand the ids of a step to whoever watches."""
        if self._watch:
            shape = len(numbers), *self.grid, self.depth
            self._watch(np.asarray(numbers), np.asarray(ids).reshape(shape))

    def fill(
        self,
        ids: np.ndarray,
        mask: np.ndarray,
        labels: np.ndarray,
        seed: int | Sequence[int],
        changes: Mapping[str, Any] | None = None,
        numbers: np.ndarray | None = None,
        rows: int | None = None,
    ) -> np.ndarray:
        """Return ids [B,h,w,D], newly generated where mask [B,h,w] is True: `new` and `edit`.

        labels, numbers, changes, rows: as in `new`; numbers default to 0 to B - 1.
        """
        numbers = np.arange(len(ids), dtype=np.uint32) if numbers is None else numbers
        given = ids, mask, labels, seeds_of(seed, len(ids)), numbers
        return self.runner(self._sampler_of(self.settings(changes)), self.state, *given, rows=rows)

    def _nothing_known(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask of images that are to be generated whole."""
        shape = number, *self.grid
        return np.zeros((*shape, self.depth), np.int32), np.ones(shape, bool)


def coders(tokenizer: models.ImageTokenizer) -> tuple[Callable, Callable]:
    """Return encoder and decoder as functions for a `BatchRunner`, which prints their names."""

    def encoder(weights: dict, images: jax.Array) -> jax.Array:
        return tokenizer.encode(weights, images)

    def decoder(weights: dict, ids: jax.Array) -> jax.Array:
        return tokenizer.decode(weights, ids)

    return encoder, decoder


def sampler_of(generator: models.TokenGenerator, settings: Any) -> Callable:
    """Return a generator's `sample` with these settings, as a function for a `BatchRunner`."""

    def sampler(state: dict, *given: jax.Array) -> jax.Array:
        weights = state["ema"], state["tokenizer"]
        return generator.sample(*weights, request_of(*given), settings).tokens

    return sampler


def history_of(
    generator: models.TokenGenerator, settings: Any, report: Watch | None = None
) -> Callable:
    """Return a function for a `BatchRunner` to the ids [B,S,h,w,D] after each step of `sample`.

    report: is called on the host after each step.
    """

    def sampler(state: dict, *given: jax.Array) -> jax.Array:
        weights, numbers = (state["ema"], state["tokenizer"]), given[-1]

        keep = functools.partial(jax.debug.callback, report, numbers) if report else True
        made = generator.sample(*weights, request_of(*given), settings, keep_history=keep)
        history: Any = made.history  # an array, as it was kept
        return jnp.swapaxes(history, 0, 1)

    return sampler
