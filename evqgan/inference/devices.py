"""Where a model computes, and in which numbers: the device and dtype of `evqgan.load`."""

import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from evqgan.core.build import suggestion
from evqgan.core.errors import InputError, shown

Device: TypeAlias = str | jax.Device | Sequence[jax.Device]
Dtype = Literal["float32", "bfloat16"]
DTYPES = ("float32", "bfloat16")
NAMES = ("cpu", "gpu", "tpu")


def of(device: Device | None) -> list[jax.Device]:
    """Return the devices of this process that `device` means.

    device: None is all of JAX's default; "cpu", "gpu" or "tpu" all of these, "gpu:0" one of them;
      or what `jax.devices` gives, one or several.
    """
    if device is None:
        return jax.local_devices()
    if isinstance(device, jax.Device):
        return [device]
    if not isinstance(device, str):
        found = list(device) if isinstance(device, Sequence) else []
        if found and all(isinstance(one, jax.Device) for one in found):
            if len(set(found)) == len(found):
                return found
            raise InputError(f"expected each device once, got {shown(found)}")
        raise InputError(
            f"expected a device such as 'cpu' or jax.devices()[0], got {shown(device)}"
        )
    name, colon, index = device.partition(":")
    name = {"cuda": "gpu"}.get(name, name)
    if name not in NAMES or not re.fullmatch(r"\d+" if colon else "", index):
        names = [*NAMES, "gpu:0"]
        raise InputError(f"there is no device {device!r}: {suggestion(name, names)}")
    try:
        there = jax.local_devices(backend=name)
    except RuntimeError:
        there = []
    found = there[int(index) :][:1] if colon else there
    if not found:
        known = ", ".join(sorted({one.platform for one in jax.local_devices()}))
        raise InputError(
            f"there is no device {device!r} here: JAX has {len(there)} x {name}"
            f"{'' if there else f', and computes on {known}'}"
        )
    return found


def in_dtype(config: ConfigDict, dtype: Any, devices: Sequence[jax.Device]) -> ConfigDict:
    """Return a model's config with the dtype that its networks are to compute in.

    dtype: "float32" or "bfloat16"; None: float32 on a CPU, for which bfloat16 is no faster and less
      exact, and elsewhere that of the config.
    """
    if dtype is None:
        if devices[0].platform != "cpu":
            return config
        dtype = "float32"
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        given = dtype if isinstance(dtype, str) else name
        raise InputError(f"there is no dtype {given!r} to compute in: {suggestion(given, DTYPES)}")
    config = config.copy_and_resolve_references()
    config.dtype = name
    if config.stage == "stage2" and config.tokenizer.get("dtype"):
        config.tokenizer.dtype = name
    return config
