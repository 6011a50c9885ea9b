"""Whether JAX computes on the device that was asked for, or for which a package was installed."""

import importlib.util
import os

import jax

from evqgan.core.errors import InputError

# {platform as JAX_PLATFORMS names it: the device as JAX names it}
DEVICE_OF = {"cuda": "gpu", "rocm": "gpu", "gpu": "gpu", "tpu": "tpu"}
# {module that JAX needs for a device: the kind of device}
PLUGINS = {"jax_cuda12_plugin": "GPU", "jax_cuda13_plugin": "GPU", "libtpu": "TPU"}
ADVICE = "python -m evqgan.doctor looks why, and JAX_PLATFORMS=cpu says that the CPU is meant"


def require() -> None:
    """Raise InputError where JAX runs on another device than the first of JAX_PLATFORMS.

    With JAX_PLATFORMS=cuda,cpu and no GPU it takes the CPU, and says nothing.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    wanted, here = DEVICE_OF.get(asked.split(",")[0].strip()), jax.default_backend()
    if wanted and wanted != here:
        raise InputError(
            f"JAX_PLATFORMS={asked} asks for a {wanted.upper()}, and JAX finds none, but would "
            f"use the {here.upper()}; {ADVICE}"
        )


def warning_of_unused_device() -> str:
    """Return a line where JAX runs on the CPU though a device's package is installed, else ""."""
    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS"):
        return ""
    found = [name for name in PLUGINS if importlib.util.find_spec(name)]
    if not found:
        return ""
    what = f"JAX finds no {PLUGINS[found[0]]}, for which {found[0]} is installed"
    return f"this trains on the CPU: {what}; {ADVICE}"
