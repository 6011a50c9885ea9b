"""The platform that JAX computes on, beside the one that was asked for or installed."""

import importlib.util
import os

import jax

from evqgan.core.errors import InputError

# As JAX_PLATFORMS has them, and as JAX calls the devices. Where the first of several is CUDA, and
# no GPU is there, JAX takes the next one and says nothing.
ASKED = {"cuda": "gpu", "rocm": "gpu", "gpu": "gpu", "tpu": "tpu"}
# The modules by which JAX finds a device: what it is.
PLUGINS = {"jax_cuda12_plugin": "GPU", "jax_cuda13_plugin": "GPU", "libtpu": "TPU"}
LOOK = "python -m evqgan.doctor looks why, and JAX_PLATFORMS=cpu says that the CPU is meant"


def require() -> None:
    """Raise InputError where JAX runs on another platform than the first of JAX_PLATFORMS."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    wanted, here = ASKED.get(asked.split(",")[0].strip()), jax.default_backend()
    if wanted and wanted != here:
        raise InputError(
            f"JAX cannot start with JAX_PLATFORMS={asked}: it finds no {wanted.upper()} and would "
            f"use the {here.upper()}; {LOOK}"
        )


def unused() -> str:
    """Return a line where JAX runs on the CPU though a device's package is installed, else ""."""
    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS"):
        return ""
    found = [name for name in PLUGINS if importlib.util.find_spec(name)]
    if not found:
        return ""
    what = f"JAX finds no {PLUGINS[found[0]]}, for which {found[0]} is installed"
    return f"this trains on the CPU: {what}; {LOOK}"
