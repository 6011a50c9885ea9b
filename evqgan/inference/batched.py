"""Compiled functions over any number of rows, in batches of few sizes, on all local devices."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import PartitionSpec

from evqgan.core import jax_settings, kinds, mesh
from evqgan.core.errors import InputError, OutOfMemory, first_line, is_out_of_memory, shown
from evqgan.core.processes import Report
from evqgan.core.progress import Progress, counted, heartbeat, say
from evqgan.inference.images import check_plain

Progressing: TypeAlias = bool | Report  # what a `progress` of the public methods may be

# ours: what a device takes at a time: 64 images of 256x256, and fewer of larger ones
IMAGES, PIXELS = 64, 2**22
KEPT = 64  # ours: programs that are kept in memory, 10 to 50 MB each; each temperature is another
FEW = 4  # ours: the smallest batch: to compile a smaller one takes longer than to compute this one


def at_once(shape: Sequence[int], most: int | None = None) -> int:
    """Return how many images [height,width,...] a device takes at a time: by PIXELS, 1 at least.

    most: IMAGES if None.
    """
    return max(1, min(most or IMAGES, PIXELS // (shape[0] * shape[1])))


def once(make: Callable) -> Callable:
    """Return a function that remembers what `make` returned for its last KEPT arguments.

    As functools.lru_cache, which lets several threads that ask for one new thing at once make one
    each: here it is made once.
    """
    made, lock = functools.lru_cache(KEPT)(make), threading.Lock()

    def get(*given: Any) -> Any:
        with lock:
            return made(*given)

    return get


@contextlib.contextmanager
def fitting(rows: int, devices: int) -> Iterator[None]:
    """Raise OutOfMemory, which says what to do, where XLA says that the body does not fit a device.

    rows: of the batch that is computed, over all devices.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        images, why = counted(-(-rows // devices), "image"), first_line(error)
        raise OutOfMemory(
            f"a device has not enough memory for {images} at a time ({why}): take fewer by "
            "--batch_size=N (in Python, evqgan.load(..., batch_size=N)), and images larger than "
            "the model's by --tiles (tiles=True)"
        ) from error


class Telling(threading.local):
    """What a thread's call has told instead of what the runner tells; None: nothing else."""

    instead: Callable | None = None


class BatchRunner:
    """Run jittable functions over any number of rows, in few batch sizes, on all local devices.

    A batch has `batch_size` rows per device, or the next power of two if fewer are needed, FEW at
    least, and the last one is padded by repeating its final row: each function compiles once per
    size.

    Weights are replicated; every device runs the same program on its own rows. With the same number
    of rows per device, results are bit-identical on any number of devices of one kind; otherwise
    they may differ by rounding, for a compiler may add up in another order.

    Several threads may call it. One compiles at a time; what is compiled runs meanwhile.
    """

    def __init__(self, batch_size: int = IMAGES, devices: Sequence | None = None) -> None:
        if not kinds.fits(batch_size, kinds.Positive):
            expected = kinds.describe(kinds.Positive)
            raise InputError(f"expected a batch_size that is {expected}, got {shown(batch_size)}")
        self.batch_size = batch_size
        self.mesh = mesh.make(devices=devices or jax.local_devices())
        self.compiling = 0.0  # seconds it took so far
        self.tell: Callable = lambda line: None  # gets a line before anything compiles
        self._telling = Telling()
        self._compiled: dict = {}  # the last KEPT
        self._kept, self._keeps = dict[Hashable, Any](), threading.Lock()
        self._compiles = threading.Lock()
        self._process = os.getpid()

    def rows(self, number: int) -> int:
        """Return how many rows a batch has, over all devices, when `number` are asked for."""
        each = -(-max(number, FEW) // self.mesh.size)
        return self.mesh.size * min(self.batch_size, 1 << (each - 1).bit_length())

    def clock(self) -> float:
        """Return seconds since some time, of which none pass while anything compiles."""
        return time.perf_counter() - self.compiling

    @contextlib.contextmanager
    def reporting(self, progress: Progressing, what: str, unit: str) -> Iterator[Report | None]:
        """Yield the report(done, total, seconds) that `progress` asks of the body, None for none.

        progress: True prints a line a second at most, and one before anything compiles; a function
          is that report.
        what: the body does, in a word; unit: what is counted, in the plural.
        """
        if not isinstance(progress, bool) and not callable(progress):
            expected = "progress=True, or a function of (done, total, seconds)"
            raise InputError(f"expected {expected}, got {shown(progress)}")
        if progress is not True:
            yield progress or None
            return
        before, self._telling.instead = self._telling.instead, say  # of other threads it is not
        try:
            yield Progress(what, unit, every=1.0)
        finally:
            self._telling.instead = before

    def keeping(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` returned at the first call with this key, kept as long as this."""
        with self._keeps:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]

    def __call__(
        self,
        function: Callable,
        weights: Any,
        *arrays: np.ndarray,
        rows: int | None = None,
        report: Report | None = None,
    ) -> Any:
        """Return function(weights, *arrays) as NumPy.

        function: must treat each row (first axis) independently, in all it takes and gives.
        rows: over all devices, if not `rows(number of rows)`.
        report: report(rows done, of how many, seconds) is called after each batch.

        Raises OutOfMemory where a batch does not fit a device.
        """
        if os.getpid() != self._process:  # XLA's threads are not there, and it would wait for ever
            raise InputError(
                "a model computes in the process that loaded it, and not in one that was forked "
                "from it: begin others by multiprocessing's 'spawn', and load the model there"
            )
        check_plain(arrays, "rows")
        number, results = len(arrays[0]), []
        began = self.clock() if report else 0.0
        if not number:
            raise InputError("expected at least one image, got none")
        size = rows or self.rows(number)
        for start in range(0, number, size):
            index = np.minimum(np.arange(start, start + size), number - 1)
            batch = [array[index] for array in arrays]
            with jax_settings.ours(), fitting(size, self.mesh.size):
                out = self._compile(function, weights, batch)(weights, *batch)
                results.append(jax.tree.map(lambda x, n=number - start: np.asarray(x)[:n], out))
            if report:
                report(min(start + size, number), number, self.clock() - began)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *results)

    def _compile(self, function: Callable, weights: Any, batch: list[np.ndarray]) -> Callable:
        """Return the function, compiled for such a batch."""
        key = function, *((x.shape, x.dtype) for x in batch)
        program = self._compiled.get(key)
        if program is None:
            with self._compiles:  # others that wait here for the same find it then
                program = self._compiled.get(key) or self._compile_now(function, weights, batch)
                self._compiled[key] = program
                while len(self._compiled) > KEPT:
                    del self._compiled[next(iter(self._compiled))]
        return program

    def _compile_now(self, function: Callable, weights: Any, batch: list[np.ndarray]) -> Callable:
        images = counted(len(batch[0]), "image")
        tell = self._telling.instead or self.tell
        tell(f"compiling the {function.__name__} for {images} at a time")
        began = time.perf_counter()
        replicated, split = mesh.replicated(self.mesh), mesh.batch_sharding(self.mesh)
        alone = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=(PartitionSpec(), *(split.spec for _ in batch)),
            out_specs=split.spec,
            check_vma=False,
        )
        jitted = jax.jit(alone, in_shardings=(replicated, *(split for _ in batch)))
        with heartbeat("compiling", tell):
            program = jitted.lower(weights, *batch).compile()
        self.compiling += time.perf_counter() - began
        return program
