"""What is known of accelerators: how large and how fast they are, by the vendors' figures."""

from typing import NamedTuple

from evqgan.core.space import GIB


class Chip(NamedTuple):
    """What is known of a device; 0 where it is not."""

    memory: float  # bytes that a program can use
    flops: float = 0.0  # a second, of products in bfloat16
    bandwidth: float = 0.0  # bytes a second, of its memory
    clock: float = 0.0  # cycles a second, in which libtpu's compiler estimates


# Memory: what libtpu's compiler leaves to programs. Clock: the peak over the products of a cycle
# (128 x 128 or 256 x 256 units, 4 a core).
TPUS = {
    "v4": Chip(30.75 * GIB, 275e12, 1228e9, 1.05e9),
    "v5e": Chip(15.75 * GIB, 197e12, 819e9, 1.5e9),
    "v5p": Chip(95.74 * GIB, 459e12, 2765e9, 1.75e9),
    "v6e": Chip(31.25 * GIB, 918e12, 1640e9, 1.75e9),
}
# By a part of the name that JAX has for the device.
NAMES = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}
# Likewise; dense bfloat16 of the SXM forms.
GPUS = {
    "H200": Chip(0, 989e12, 4800e9),
    "H100": Chip(0, 989e12, 3350e9),
    "A100": Chip(0, 312e12, 2039e9),
}


def of(device_kind: str) -> Chip:
    """Return what is known of a device by the name that JAX has for it."""
    by_part = {**{part: TPUS[kind] for part, kind in NAMES.items()}, **GPUS}
    return next((chip for part, chip in by_part.items() if part in device_kind), Chip(0))
