"""GPUs by name, which need not be there: XLA compiles for them by what is known of their type.

A program is then compiled as on a machine that has them, but that nothing is timed: of several
kernels for a product or a convolution XLA takes the one that it thinks best, and knows of none how
much memory cuDNN works in.
"""

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

from evqgan.core.chips import GPUS, Chip, jax_share
from evqgan.core.errors import InputError

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
A_HOST = 8  # ours: GPUs of a machine, where there are more than these
KINDS = re.compile(rf"({'|'.join(GPUS)})(?:-(\d+))?")


def number_of(name: str, flag: str) -> int:
    """Return how many GPUs `name` stands for, such as 1 for h100, and 8 for h100-8.

    flag: where it was given, for the message.

    Raises InputError unless machines of A_HOST GPUs, or less than one of them, make that number.
    """
    found = KINDS.fullmatch(name)
    number = int((found and found[2]) or 1)
    if not number or (number > A_HOST and number % A_HOST):
        raise InputError(f"{flag}={name}: expected 1 to {A_HOST} GPUs, or a multiple of {A_HOST}")
    return number


def is_one(name: str) -> bool:
    """Return whether `name` is that of GPUs, see `number_of`."""
    return KINDS.fullmatch(name) is not None


def require_compiler(name: str, flag: str) -> None:
    """Raise InputError unless XLA's compiler for GPUs is installed."""
    if not any(importlib.util.find_spec(plugin) for plugin in PLUGINS):
        hint = "pip install 'jax[cuda13]' of the jax that is here (pip install '.[cuda13]')"
        raise InputError(f"{flag}={name} needs a GPU's compiler: {hint}")


def devices(name: str) -> tuple[Sequence[Any], Chip]:
    """Return the devices of JAX that stand for the GPUs of `name`, and what is known of one.

    Its memory is that which JAX leaves to programs, see `chips.jax_share`. Raises InputError where
    the compiler that is installed cannot describe them.
    """
    from jax.experimental import topologies

    number = number_of(name, "--compile_only")
    hosts = max(1, number // A_HOST)
    shape = f"1x{hosts}x{number // hosts}"  # slices, hosts, GPUs of a host
    kind = KINDS.fullmatch(name)[1]  # type: ignore[index]  # `number_of` has seen to it
    try:
        found = topologies.get_topology_desc(
            "", platform="cuda", target_config=description(kind), topology=shape
        )
    except Exception as error:  # of many types, by what the plugin finds wrong
        reason = " ".join(str(error).split())[:200]
        what = f"--compile_only={name}: JAX's plugin for CUDA cannot describe it"
        raise InputError(f"{what}: {reason}") from error
    chip = GPUS[kind].chip
    return found.devices, chip._replace(memory=jax_share() * chip.memory)


def description(kind: str) -> str:
    """Return what XLA's compiler asks of a type of GPU, as the text of its GpuTargetConfigProto."""
    gpu = GPUS[kind]
    major, minor = gpu.capability
    cuda, cudnn = version("cuda-runtime", "13.0"), version("cudnn", "9.10")
    return f"""
    gpu_device_info {{
      cuda_compute_capability {{ major: {major} minor: {minor} }}
      core_count: {gpu.processors}
      fpus_per_core: {64 if gpu.capability == (8, 0) else 128}
      clock_rate_ghz: {gpu.clock}
      device_memory_size: {int(gpu.chip.memory)}
      memory_bandwidth: {int(gpu.chip.bandwidth)}
      l2_cache_size: {gpu.cache}
      shared_memory_per_core: {1024 * gpu.shared}
      shared_memory_per_block: {48 * 1024}
      shared_memory_per_block_optin: {1024 * (gpu.shared - 1)}
      registers_per_core_limit: 65536
      registers_per_block_limit: 65536
      threads_per_core_limit: {gpu.threads}
      threads_per_block_limit: 1024
      threads_per_warp: 32
      block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535
      block_dim_limit_z: 65535
    }}
    platform_name: "CUDA"
    runtime_version {{ major: {cuda[0]} minor: {cuda[1]} }}
    dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} }}
    device_description_str: "{gpu.name}"
    """


def version(library: str, otherwise: str) -> list[str]:
    """Return the parts of the version of a library of CUDA that is installed.

    library: such as cudnn. otherwise: its version where it came by another way than pip.
    """
    names = (f"nvidia-{library}{end}" for end in ("", "-cu13", "-cu12"))
    for name in names:
        try:
            return importlib.metadata.version(name).split(".")
        except importlib.metadata.PackageNotFoundError:
            continue
    return otherwise.split(".")
