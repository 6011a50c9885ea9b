"""Accelerators by name: their devices, which need not be there, and how large and fast they are.

A TPU's compiler is in libtpu and runs on any machine; a GPU's needs a GPU. What is known of a
device are the vendor's figures.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from evqgan.core import chips
from evqgan.core.chips import Chip
from evqgan.core.errors import InputError

HERE = ("cpu", "gpu")
# Chips of an accelerator of two dimensions, and cores of one of three, which has two a chip.
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
DEEP = {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8"}
SHAPES = {"v4": DEEP, "v5e": FLAT, "v5p": DEEP, "v6e": FLAT}
EXAMPLES = "v4-8, v5e-8, v5e-16, v5e-256, v5p-8, v6e-8, or a shape such as v5e:2x4"
# What libtpu asks of a machine with TPUs, and otherwise waits for.
ABSENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is opened: several may compile at once
}


class Target(NamedTuple):
    """Devices to compile for."""

    name: str
    devices: Sequence[Any]  # of JAX; those of a TPU stand for ones that are not there
    chip: Chip


def shape_of(name: str) -> tuple[str, str]:
    """Return the kind of a TPU and its shape, ("v5e", "2x4"), by either of its names.

    name: an accelerator (v5e-8, v5litepod-8, v4-8) or a topology (v5e:2x4).

    Raises InputError for what is none.
    """
    found = re.fullmatch(r"(v4|v5e|v5litepod|v5p|v6e)(?:-(\d+)|:(\d+(?:x\d+){1,2}))", name)
    if not found:
        raise InputError(f"--compile_only={name}: expected cpu, gpu, {EXAMPLES}")
    kind = "v5e" if found[1] == "v5litepod" else found[1]
    shapes = SHAPES[kind]
    if found[2]:
        if int(found[2]) not in shapes:
            known = ", ".join(f"{kind}-{number}" for number in shapes)
            raise InputError(f"--compile_only={name}: expected one of {known}")
        return kind, shapes[int(found[2])]
    if found[3].count("x") != (2 if shapes is DEEP else 1):
        example = next(iter(shapes.values()))
        raise InputError(f"--compile_only={name}: expected a shape such as {kind}:{example}")
    return kind, found[3]


def prepare(name: str) -> None:
    """Set, before JAX starts, the environment in which it can compile for `name`.

    Raises InputError for no topology, and for a TPU's without libtpu.
    """
    if name == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    if name in HERE:
        return
    shape_of(name)
    if importlib.util.find_spec("libtpu") is None:
        hint = "pip install 'jax[tpu]' of the jax that is here (pip install '.[tpu]')"
        raise InputError(f"--compile_only={name} needs libtpu, a TPU's compiler: {hint}")
    os.environ["JAX_PLATFORMS"] = "cpu"
    for key, value in ABSENT.items():
        os.environ.setdefault(key, value)


def target(name: str) -> Target:
    """Return the devices of `name`, for which `prepare` has been called.

    Raises InputError for devices that are not here, and for a shape that does not exist.
    """
    if name in HERE:
        return of_this_machine(name)
    from jax.experimental import topologies

    kind, shape = shape_of(name)
    keys: dict[str, Any] = {"chip_config_name": "megacore"} if kind == "v4" else {}
    if shape == "1x1":
        keys["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(f"{kind}:{shape}", platform="tpu", **keys)
    except Exception as error:  # of many types, by what libtpu finds wrong
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--compile_only={name}: libtpu knows no {kind}:{shape}: {reason}"
        ) from error
    return Target(name, found.devices, chips.TPUS[kind])


def of_this_machine(platform: str) -> Target:
    """Return the CPU or the GPUs of this machine."""
    import jax

    from evqgan.core import room

    try:
        devices = jax.devices(platform)
    except RuntimeError as error:
        raise InputError(f"--compile_only={platform}: there is none here") from error
    known = chips.of(devices[0].device_kind)
    return Target(platform, devices, known._replace(memory=float(room.of_device())))
