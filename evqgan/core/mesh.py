"""A device mesh, and rules from parameter names to shardings. Modules know nothing of this."""

import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from evqgan.core.errors import InputError

AXES = ("data", "fsdp", "tensor")

# (regular expression on the path, axes of the LAST dimensions); the first that matches holds, the leading dimension
# of scanned layers stays whole. "fsdp" splits a weight over the devices that also split the batch (ZeRO-3); "tensor"
# splits heads and hidden units (Megatron). Optimizer and averaged weights have the same paths, so the same shardings.
RULES = (
    (r"attention/query/kernel$", ("fsdp", "tensor", None)),  # [c,heads,d]
    (r"attention/key_value/kernel$", ("fsdp", None, "tensor", None)),  # [c,2,heads,d]
    (r"attention/out/kernel$", ("tensor", None, "fsdp")),  # [heads,d,c]
    (r"mlp/hidden/kernel$", ("fsdp", "tensor")),
    (r"mlp/out/kernel$", ("tensor", "fsdp")),
    (r"(kernel|embedding|words)$", ("fsdp", None)),
    (r".*", ()),
)


def make(data=-1, fsdp=1, tensor=1, devices=None):
    """A mesh with the axes AXES; one size may be -1: what the devices leave. The batch is split over data x fsdp."""
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) > 1:
        raise InputError(f"config.mesh may leave one axis open (-1), not {dict(zip(AXES, sizes, strict=True))}")
    known = int(np.prod([s for s in sizes if s != -1]))
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise InputError(f"config.mesh {dict(zip(AXES, sizes, strict=True))} does not fit {len(devices)} devices")
    # Explicit axes, jax.make_mesh's default, do not go with linen and optax.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def path_name(path):
    """("params", "mlp", "kernel") as jax.tree_util gives it -> "params/mlp/kernel"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def shardings(tree, mesh, rules=RULES):
    """NamedShardings for a tree of arrays or shapes by `rules`; a dimension an axis does not divide stays whole."""

    def one(path, leaf):
        name, shape = path_name(path), leaf.shape
        axes = next((axes for pattern, axes in rules if re.search(pattern, name)), ())
        if not shape or len(axes) > len(shape):
            return NamedSharding(mesh, PartitionSpec())
        axes = (None,) * (len(shape) - len(axes)) + tuple(axes)
        fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)]
        return NamedSharding(mesh, PartitionSpec(*fits) if any(fits) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, tree)


def replicated(mesh):
    """The sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh):
    """The sharding of a batch: its first dimension over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def put(batch, mesh):
    """This host's part of a batch (NumPy, host slice of the first dimension) -> global arrays split over the mesh."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    sharding = batch_sharding(mesh)

    def one(x):
        if (len(x) * jax.process_count()) % ways:
            raise InputError(
                f"a batch of {len(x) * jax.process_count()} cannot be split over {ways} devices (data x fsdp)"
            )
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(one, batch)
