"""Compiled functions over any number of rows, in batches of few sizes, on all devices of this host."""

import time

import jax
import numpy as np
from jax.sharding import PartitionSpec

from evqgan.core import kinds, mesh
from evqgan.core.errors import InputError

FEW = 4  # ours: up to so many rows are one size: one more compilation takes longer than to compute them


class Rows:
    """rows(function, weights, *arrays) -> function(weights, *arrays) as NumPy, whatever the number of rows.

    `function` is traceable and treats every row (index of the first axis) by itself, in all it takes and gives. A batch
    has `batch_size` rows a device, or the next power of two where fewer are asked for, that of FEW where still fewer
    are; its last rows are repeated to fill it up. So there are few sizes to compile for, and each function is compiled
    once a size.

    Every device has all weights and computes its rows alone, by the same program. What a row becomes is therefore the
    same to the bit for the same rows a device, on any number of devices of a kind; with other rows a device it is the
    same but for rounding, for a compiler may add up in another order.
    """

    def __init__(self, batch_size=64, devices=None):
        if not kinds.fits(batch_size, kinds.Positive):
            raise InputError(f"expected a batch_size that is {kinds.describe(kinds.Positive)}, got {batch_size!r}")
        self.batch_size = batch_size
        self.mesh = mesh.make(devices=devices or jax.local_devices())
        self.compiling = 0.0  # seconds it took so far
        self.tell = lambda line: None  # gets a line before anything compiles
        self._compiled = {}

    def size(self, number):
        """How many rows a batch has, over all devices, when `number` are asked for."""
        each = -(-max(number, FEW) // self.mesh.size)
        return self.mesh.size * min(self.batch_size, 1 << (each - 1).bit_length())

    def clock(self):
        """Seconds since some time, of which none pass while anything compiles."""
        return time.perf_counter() - self.compiling

    def __call__(self, function, weights, *arrays, size=None):
        """size: the rows of a batch, where those of `size(number of rows)` are not wanted."""
        number, results = len(arrays[0]), []
        if not number:
            raise InputError("expected at least one image, got none")
        size = size or self.size(number)
        for start in range(0, number, size):
            index = np.minimum(np.arange(start, start + size), number - 1)
            batch = [array[index] for array in arrays]
            out = self._compile(function, weights, batch)(weights, *batch)
            results.append(jax.tree.map(lambda x, n=number - start: np.asarray(x)[:n], out))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *results)

    def _compile(self, function, weights, batch):
        key = function, *((x.shape, x.dtype) for x in batch)
        if key not in self._compiled:
            self.tell(f"compiling the {function.__name__} for {len(batch[0]):,} images at a time")
            began = time.perf_counter()
            whole, split = mesh.replicated(self.mesh), mesh.batch_sharding(self.mesh)
            specs = PartitionSpec(), *(split.spec for _ in batch)
            alone = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=split.spec, check_vma=False)
            jitted = jax.jit(alone, in_shardings=(whole, *(split for _ in batch)))
            self._compiled[key] = jitted.lower(weights, *batch).compile()
            self.compiling += time.perf_counter() - began
        return self._compiled[key]
