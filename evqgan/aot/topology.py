"""Accelerators by name: their devices, which need not be there, and how large and fast they are.

A TPU's compiler is in libtpu, a GPU's in the plugin of JAX for CUDA, and both run on any machine.
What is known of a device are the vendor's figures: a row of `core.chips`, whose docstring lists
what a new kind of device needs.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from evqgan.aot import gpus
from evqgan.core import chips
from evqgan.core.chips import GPUS, TPUS, Chip
from evqgan.core.errors import InputError

HERE = ("cpu", "gpu")
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
    devices: Sequence[Any]  # of JAX; but on CPUs they stand for ones that need not be there
    chip: Chip


def shape_of(name: str, flag: str = "--compile_only") -> tuple[str, str]:
    """Return the type of a TPU and its shape, ("v5e", "2x4"), by either of its names.

    name: an accelerator (v5e-8, v5litepod-8, v4-8) or a topology (v5e:2x4).
    flag: where it was given, for the message.

    Raises InputError for what is none.
    """
    kinds = {alias: kind for kind, tpu in TPUS.items() for alias in (kind, tpu.cloud) if alias}
    found = re.fullmatch(rf"({'|'.join(kinds)})(?:-(\d+)|:(\d+(?:x\d+)+))", name)
    if not found:
        smallest = ", ".join(f"{kind}-{next(iter(tpu.shapes))}" for kind, tpu in TPUS.items())
        listed = ", ".join(("cpu, gpu", *GPUS, "h100-8", smallest))
        expected = f"{listed} and larger ones, or a shape such as v5e:2x4"
        raise InputError(f"{flag}={name}: expected {expected}")
    kind = kinds[found[1]]
    shapes = TPUS[kind].shapes
    if found[2]:
        if int(found[2]) not in shapes:
            known = ", ".join(f"{kind}-{number}" for number in shapes)
            raise InputError(f"{flag}={name}: expected one of {known}")
        return kind, shapes[int(found[2])]
    example = next(iter(shapes.values()))
    if found[3].count("x") != example.count("x"):
        raise InputError(f"{flag}={name}: expected a shape such as {kind}:{example}")
    return kind, found[3]


def prepare(name: str, flag: str = "--compile_only") -> None:
    """Set, before JAX starts, the environment in which it can compile for `name`.

    flag: where the name was given, for the messages.

    Raises InputError for no topology, and for devices whose compiler is not installed.
    """
    if name == "gpu":
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    if name == "cpu":
        return
    if gpus.is_one(name):
        gpus.number_of(name, flag)
        return gpus.require_compiler(name, flag)
    shape_of(name, flag)
    if importlib.util.find_spec("libtpu") is None:
        hint = "pip install 'jax[tpu]' of the jax that is here (pip install '.[tpu]')"
        raise InputError(f"{flag}={name} needs libtpu, a TPU's compiler: {hint}")
    for key, value in ABSENT.items():
        os.environ.setdefault(key, value)


def target(name: str) -> Target:
    """Return the devices of `name`, for which `prepare` has been called.

    Raises InputError for devices that are not here, and for a shape that does not exist.
    """
    if name in HERE:
        return of_this_machine(name)
    if gpus.is_one(name):
        return Target(name, *gpus.devices(name))
    from jax.experimental import topologies

    kind, shape = shape_of(name)
    tpu = TPUS[kind]
    keys: dict[str, Any] = {"chip_config_name": tpu.chip_config} if tpu.chip_config else {}
    if shape == "1x1":
        keys["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(f"{kind}:{shape}", platform="tpu", **keys)
    except Exception as error:  # of many types, by what libtpu finds wrong
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--compile_only={name}: libtpu knows no {kind}:{shape}: {reason}"
        ) from error
    return Target(name, found.devices, tpu.chip)


def of_this_machine(platform: str) -> Target:
    """Return the CPU or the GPUs of this machine."""
    import jax

    from evqgan.core import limits

    try:
        devices = jax.devices(platform)
    except RuntimeError as error:
        raise InputError(f"--compile_only={platform}: there is none here") from error
    known = chips.of(devices[0].device_kind)
    return Target(platform, devices, known._replace(memory=float(limits.of_device())))
