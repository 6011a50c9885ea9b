"""What is known of accelerators: how large and fast they are, by the vendors' figures; their names.

A new type of GPU is a row of GPUS. A new type of TPU is a row of TPUS, and besides:
  evqgan/doctor/machine.py  its PCI number leaves OTHER_TPUS, if it is there.
  launch/tpu.sh             which needs no Python: in `sizes_of` the numbers that it comes in; in
                            `check_accelerator` its name, twice, chips and hosts, and its runtime.
  launch/xpk.sh             its name, if it does not begin with v2 to v6.
  evqgan/benchmark/fits.py  TOPOLOGIES, if configs are to be compiled for it.
tests/test_launch_tpu.py holds what shell and Python say together.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from evqgan.core.space import GIB


class Chip(NamedTuple):
    """What is known of a device; 0 where it is not."""

    memory: float  # bytes that a program can use
    flops: float = 0.0  # a second, of products in bfloat16
    bandwidth: float = 0.0  # bytes a second, of its memory
    clock: float = 0.0  # cycles a second, in which libtpu's compiler estimates


class TPU(NamedTuple):
    """A type of TPU."""

    chip: Chip
    names: tuple[str, ...]  # parts of the names that JAX has for the device
    pci: str  # its number on the PCI bus, as JAX has it
    shapes: Mapping[int, str]  # by the number in an accelerator's name: 8 of "v5e-8"
    cloud: str = ""  # how Cloud TPU calls the type, where JAX calls it otherwise
    chip_config: str = ""  # a configuration of the chip for which libtpu has to be asked


# Numbers in names count the chips of an accelerator whose shape has two dimensions, and the cores,
# two a chip, of one that has three.
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
DEEP = {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8"}
# Memory: what libtpu's compiler leaves to programs. Clock: the peak over the products of a cycle
# (128 x 128 or 256 x 256 units, 4 a core).
TPUS = {
    "v4": TPU(
        Chip(30.75 * GIB, 275e12, 1228e9, 1.05e9),
        names=("TPU v4",),
        pci="0x005e",
        shapes=DEEP,
        chip_config="megacore",
    ),
    "v5e": TPU(
        Chip(15.75 * GIB, 197e12, 819e9, 1.5e9),
        names=("TPU v5 lite", "TPU v5e"),
        pci="0x0063",
        shapes=FLAT,
        cloud="v5litepod",
    ),
    "v5p": TPU(
        Chip(95.74 * GIB, 459e12, 2765e9, 1.75e9),
        names=("TPU v5",),
        pci="0x0062",
        shapes=DEEP,
    ),
    "v6e": TPU(
        Chip(31.25 * GIB, 918e12, 1640e9, 1.75e9),
        names=("TPU v6 lite", "TPU v6e"),
        pci="0x006f",
        shapes=FLAT,
    ),
}


class GPU(NamedTuple):
    """A type of GPU by NVIDIA, and what its compiler asks of it.

    The memory of `chip` is the whole, of which JAX leaves a part to programs, see `jax_share`.
    """

    chip: Chip
    name: str  # as JAX has it, or its beginning
    capability: tuple[int, int]  # for computing, as CUDA has it
    processors: int  # streaming multiprocessors
    clock: float  # of these in GHz
    cache: int  # bytes of the second level
    shared: int  # KiB of shared memory of a processor
    threads: int  # that a processor holds


MIB = 2**20
# Memory: what nvidia-smi shows. Products in bfloat16 are dense and added up in float32; of the SXM
# forms, where there are several.
GPUS = {
    "a100": GPU(
        Chip(81_920 * MIB, 312e12, 2039e9), "NVIDIA A100", (8, 0), 108, 1.41, 40 * MIB, 164, 2048
    ),
    "h100": GPU(
        Chip(81_559 * MIB, 989e12, 3350e9), "NVIDIA H100", (9, 0), 132, 1.98, 50 * MIB, 228, 2048
    ),
    "h200": GPU(
        Chip(143_771 * MIB, 989e12, 4800e9), "NVIDIA H200", (9, 0), 132, 1.98, 50 * MIB, 228, 2048
    ),
    "rtx3090": GPU(
        Chip(24_576 * MIB, 71e12, 936e9),
        "NVIDIA GeForce RTX 3090",
        (8, 6),
        82,
        1.70,
        6 * MIB,
        100,
        1536,
    ),
    "rtx4090": GPU(
        Chip(24_564 * MIB, 165e12, 1008e9),
        "NVIDIA GeForce RTX 4090",
        (8, 9),
        128,
        2.52,
        72 * MIB,
        100,
        1536,
    ),
}


def jax_share() -> float:
    """Return the share of a GPU's memory that JAX takes, and programs can use.

    It is XLA_PYTHON_CLIENT_MEM_FRACTION of the environment, 0.75 without it.
    """
    return float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75))


def of(device_kind: str) -> Chip:
    """Return what is known of a device by the name that JAX has for it.

    Of several parts of a name the longest counts: "TPU v5" is a part of "TPU v5 lite", too.
    """
    by_part = {gpu.name: gpu.chip for gpu in GPUS.values()}
    by_part |= {part: tpu.chip for tpu in TPUS.values() for part in tpu.names}
    found = [part for part in by_part if part in device_kind]
    return by_part[max(found, key=len)] if found else Chip(0)
