"""A device mesh, and rules from parameter names to shardings.

Modules know nothing of this but `spread`, which keeps their activations where the batch is.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive
from evqgan.core.progress import counted

AXES = ("data", "fsdp", "tensor")
SPLIT = ("data", "fsdp")  # the axes that split a batch
Axis = Literal[-1] | Positive  # devices along it; -1: what the others leave

# (regular expression on the path, axes of the LAST dimensions); the first that matches holds, the
# leading dimension of scanned layers stays whole. "fsdp" splits a weight over the devices that also
# split the batch (ZeRO-3, see `spread`); "tensor" splits heads and hidden units (Megatron).
# Optimizer and averaged weights have the same paths, so the same shardings.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"attention/query/kernel$", ("fsdp", "tensor", None)),  # [c,heads,d]
    (r"attention/key_value/kernel$", ("fsdp", None, "tensor", None)),  # [c,2,heads,d]
    (r"attention/out/kernel$", ("tensor", None, "fsdp")),  # [heads,d,c]
    (r"mlp/hidden/kernel$", ("fsdp", "tensor")),
    (r"mlp/out/kernel$", ("tensor", "fsdp")),
    (r"(kernel|embedding|words)$", ("fsdp", None)),
    (r".*", ()),
)


def make(data: Axis = -1, fsdp: Axis = 1, tensor: Axis = 1, *, devices: Any = None) -> Mesh:
    """Return a mesh with the axes AXES; the batch is split over data x fsdp.

    data: devices among which a batch is split, each with all weights; one of the three numbers may
      be -1: what the others leave.
    fsdp: devices among which a batch is split, and weights and optimizer, too.
    tensor: devices among which heads and hidden units are split, of the same images.
    devices: default: all.

    Raises InputError if the sizes do not fit the devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = sizes(len(devices), data, fsdp, tensor)
    # Explicit axes, jax.make_mesh's default, do not go with linen and optax.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def sizes(number: int, data: Axis = -1, fsdp: Axis = 1, tensor: Axis = 1) -> tuple[int, ...]:
    """Return how many of so many devices are along each of the axes AXES, see `make`."""
    sizes = [data, fsdp, tensor]
    asked = dict(zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise InputError(f"config.mesh may leave one axis open (-1), not {asked}")
    known = int(np.prod([s for s in sizes if s != -1]))
    sizes = [number // known if s == -1 else s for s in sizes]
    if int(np.prod(sizes)) != number:
        devices = counted(known, "device")
        needed = f"a multiple of {devices}" if -1 in asked.values() else devices
        others = " ".join(f"--config.mesh.{axis}=N" for axis, size in asked.items() if size > 1)
        raise InputError(f"config.mesh {asked} needs {needed}, not {number}: give other {others}")
    return tuple(sizes)


def path_name(path: Iterable[Any]) -> str:
    """Return "params/mlp/kernel" for ("params", "mlp", "kernel") as jax.tree_util gives it."""
    names = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path)
    return "/".join(map(str, names))


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Return NamedShardings by RULES for a tree of arrays or shapes.

    A dimension that an axis does not divide stays whole.
    """

    def one(path: Iterable[Any], leaf: Any) -> NamedSharding:
        name, shape = path_name(path), leaf.shape
        axes = next(axes for pattern, axes in RULES if re.search(pattern, name))
        if not shape or len(axes) > len(shape):
            return NamedSharding(mesh, PartitionSpec())
        axes = (None,) * (len(shape) - len(axes)) + tuple(axes)
        fits = [
            a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)
        ]
        return NamedSharding(mesh, PartitionSpec(*fits) if any(fits) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: its first dimension over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(SPLIT))


def ways(mesh: Mesh | AbstractMesh) -> int:
    """Return in how many parts a batch is split: data x fsdp."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def over(function: Callable, mesh: Mesh) -> Callable:
    """Return `function`, in which `spread` knows the mesh while it is traced."""

    @functools.wraps(function)
    def run(*given: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*given)

    return run


def platform() -> str:
    """Return what a program is traced for, "cpu", "gpu" or "tpu".

    Within `over` it is that of the mesh, whose devices need not be there, else of this process.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    kind = device.device_kind  # "cpu", "TPU v5 lite", "NVIDIA H200"; jax 0.10.0 knows no platform
    return "cpu" if kind == "cpu" else "tpu" if kind.startswith("TPU") else "gpu"


def splits(shape: Sequence[int]) -> int:
    """Return in how many parts an activation [B,...] is split along B: data x fsdp.

    It is 1 outside of `over`, in a `shard_map`, and where data x fsdp do not divide B.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not all(mesh.shape.get(axis) for axis in SPLIT) or mesh.manual_axes:
        return 1
    return 1 if not shape or shape[0] % ways(mesh) else ways(mesh)


def spread(tree: Any) -> Any:
    """Return activations, each split over data x fsdp along its first dimension.

    Without this XLA leaves a weight that "fsdp" splits where it is, copies the whole batch to every
    device and adds up activations; with it a layer's weights are gathered instead (ZeRO-3;
    Rajbhandari et al., 2020). Outside of `over`, on one device, in a `shard_map`, and for an array
    that data x fsdp does not divide, nothing is changed.
    """

    def one(x: jax.Array) -> jax.Array:
        if splits(x.shape) == 1:
            return x
        free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
        return jax.lax.with_sharding_constraint(x, PartitionSpec(SPLIT, *free))

    return jax.tree.map(one, tree)


def rows(mesh: Mesh, batch_size: int, key: str = "config.batch_size") -> np.ndarray:
    """Return which rows of a batch the devices of this process hold, ascending, int [n].

    Processes whose devices differ along "tensor" alone hold the same rows, and on a TPU pod, where
    a mesh follows the wires, the rows of a process need not be neighbours.

    batch_size: rows of the whole batch.
    key: what the size is called in a message.

    Raises InputError if the batch cannot be split over data x fsdp.
    """
    check_split(mesh, batch_size, key)
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))


def check_split(mesh: Mesh | AbstractMesh, batch_size: int, key: str = "config.batch_size") -> None:
    """Raise InputError if a batch cannot be split over data x fsdp, see `rows`."""
    number = ways(mesh)
    if batch_size < 1 or batch_size % number:
        axes = f"data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}"
        more = -(-batch_size // number) * number
        less = mesh.size // math.gcd(max(batch_size, 0), mesh.size)  # tensor takes other devices
        hint = f"give a positive multiple of {number}, such as {more}, or "
        hint += f"--config.mesh.tensor={less}, which a run that goes on may change"
        split = f"in {counted(number, 'way')} (config.mesh: {axes})"
        raise InputError(f"{key} = {batch_size} cannot be split {split}: {hint}")


def put(batch: Any, mesh: Mesh, batch_size: int | None = None) -> Any:
    """Return global arrays [batch_size,...] that are split over the mesh.

    batch: a tree of what this process has of them, its `rows` (NumPy).
    batch_size: rows of the whole batch; None: the rows given are the whole batch.

    Raises ValueError if the rows are not as many as `rows` says.
    """

    def one(x: Any) -> jax.Array:
        size = len(x) if batch_size is None else batch_size
        held = rows(mesh, size)
        if len(x) != len(held):
            raise ValueError(f"expected {len(held)} rows of a batch of {size}, got {len(x)}")

        def part(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(size)
            return x[slice(*np.searchsorted(held, (first, last)))]

        return jax.make_array_from_callback((size, *x.shape[1:]), batch_sharding(mesh), part)

    return jax.tree.map(one, batch)


def gathered(x: Any) -> Any:
    """Return an array, however it is split, as one that this process has all of.

    All processes that it is split over have to call it. One that is whole is not copied.
    """
    if isinstance(x, jax.Array) and x.is_fully_replicated:
        return x.addressable_data(0)
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return multihost_utils.process_allgather(x, tiled=True)  # compiles once a shape
    return x


def split(tree: Any, mesh: Mesh) -> Any:
    """Return arrays of a jitted function, each split over the mesh along its first dimension.

    One that data x fsdp does not divide stays as it is.
    """

    def one(x: jax.Array) -> jax.Array:
        divides = x.shape[0] % ways(mesh) == 0
        return jax.lax.with_sharding_constraint(x, batch_sharding(mesh)) if divides else x

    return jax.tree.map(one, tree)
