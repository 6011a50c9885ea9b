"""How long the kernels of a compiled program would take a GPU, which gives no estimate of its own.

Each kernel takes as long as to move what it reads and writes once, at the bandwidth of the memory,
or as its products at the peak of the device, whichever is longer; nothing is overlapped, caches
hold nothing from one kernel to the next, and launches cost nothing. The text is XLA's HLO after all
passes, in which each instruction that computes is a kernel, and a fusion one in all.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evqgan.aot import hlo
from evqgan.aot.hlo import Instruction
from evqgan.core.chips import Chip

# What takes no kernel, or stands for the kernels of what it calls.
NONE = {
    "after-all",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
    "while",
}
SLICES = ("dynamic-slice", "gather", "slice")  # which read no more than they return
SIDES = re.compile(r"(?:lhs_contracting_dims|\"lhs_contracting_dimensions\":)[=:]?[\[{]([^\]}]*)")
CONVOLUTION = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
TARGET = re.compile(r'custom_call_target="([^"]+)"')


class Kernel(NamedTuple):
    """A kernel of a program."""

    name: str
    times: int  # in a call of the program
    moved: int  # bytes that it reads and writes each time
    flops: float  # of its products, each time
    origin: str  # where it came from in the program that was traced

    def seconds(self, chip: Chip) -> float:
        """Return how long it takes in a call of the program, by the rule above."""
        return self.times * max(self.moved / chip.bandwidth, self.flops / chip.flops)


def of_program(text: str) -> list[Kernel]:
    """Return the kernels of a compiled program, those of each loop as often as it turns."""
    computations, entry = hlo.parse(text)
    return [
        kernel(run, computations.get(next(hlo.called(run.one), ""), []))
        for run in hlo.runs(computations, entry)
        if not run.is_fused and is_kernel(run.one)
    ]


def kernel(run: hlo.Run, inner: Sequence[Instruction]) -> Kernel:
    """Return the kernel of an instruction; inner: the instructions of a fusion, none of others."""
    one, shapes = run.one, run.shapes
    within = {part.name: part.shape for part in inner}
    flops = flops_of(one, shapes) + sum(flops_of(part, within) for part in inner)
    origin = re.search(r'op_name="([^"]*)"', one.line)
    moved = moved_by(one, inner, shapes)
    return Kernel(one.name, run.times, moved, flops, origin[1] if origin else "")


def is_kernel(one: Instruction) -> bool:
    """Return whether an instruction computes; collectives, which take time elsewhere, do not."""
    operation = one.operation
    return not (operation in NONE or operation.startswith((*hlo.COLLECTIVES, "async-")))


def moved_by(one: Instruction, inner: Sequence[Instruction], shapes: Mapping[str, str]) -> int:
    """Return the bytes that a kernel reads and writes.

    inner: the instructions of a fusion, none of others. shapes: of what stands beside the kernel.
    """
    if not inner:
        given = [hlo.bytes_of(shapes.get(name, "")) for name in one.operands]
        if one.operation in SLICES:
            return 2 * hlo.bytes_of(one.shape)
        if one.operation == "dynamic-update-slice":
            return 2 * given[1]
        return sum(given) + hlo.bytes_of(one.shape)
    return read_by(inner) + written_by(inner)


def read_by(inner: Sequence[Instruction]) -> int:
    """Return the bytes that a fusion reads; of what it only slices, the slices."""
    users: dict[str, list[Instruction]] = {}
    for one in inner:
        for name in set(one.operands):
            users.setdefault(name, []).append(one)

    def read_of(value: Instruction) -> int:
        whole, read = hlo.bytes_of(value.shape), 0
        for user in users.get(value.name, []):
            is_first = user.operands[0] == value.name
            if user.operation == "bitcast":
                read += read_of(user)
            elif user.operation in SLICES and is_first:
                read += hlo.bytes_of(user.shape)
            elif not (user.operation == "dynamic-update-slice" and is_first):
                return whole
        return min(read, whole)

    return sum(read_of(one) for one in inner if one.operation == "parameter")


def written_by(inner: Sequence[Instruction]) -> int:
    """Return the bytes that a fusion writes; of what it updates in its place, the update."""
    named = {one.name: one for one in inner}

    def written(value: Instruction) -> int:
        if value.operation == "tuple":
            return sum(written(named[name]) for name in value.operands)
        if value.operation == "bitcast" and value.operands[0] in named:
            return written(named[value.operands[0]])
        if value.operation == "dynamic-update-slice":
            return hlo.bytes_of(named[value.operands[1]].shape)
        return hlo.bytes_of(value.shape)

    return written(inner[-1])  # the root comes last


def flops_of(one: Instruction, shapes: Mapping[str, str]) -> float:
    """Return the FLOPs of an instruction's products; 0 of one that has none."""
    target = TARGET.search(one.line)
    name = target[1] if target and one.operation == "custom-call" else one.operation
    given = [sides_of(shapes.get(operand, "")) for operand in one.operands]
    results = [sides_of(shape) for shape in hlo.ARRAY.findall(one.shape)] or [[]]
    if name == "dot" or "gemm" in name or "matmul" in name:
        found = SIDES.search(one.line)
        axes = re.findall(r"\d+", found[1]) if found else []
        return 2.0 * math.prod(results[0]) * math.prod(given[0][int(axis)] for axis in axes)
    if found := CONVOLUTION.search(one.line):
        return convolution(name, given, results[0], found[2])
    if "fmha" in name:
        query, keys = math.prod(given[0]), math.prod(given[1])
        length = keys * results[0][-2] / query  # of keys, as the results are [B,heads,T,width]
        each = 5 if "Backward" in name else 2  # products of queries with keys, and the like
        return 2.0 * each * math.prod(results[0]) * length
    return 0.0


def convolution(
    name: str, given: Sequence[Sequence[int]], result: Sequence[int], labels: str
) -> float:
    """Return the FLOPs of a convolution or of one of its gradients.

    labels: the letters of the axes of its weights, such as o01i.
    """
    if "Filter" in name:
        weights, output = result, given[1]
    elif "Input" in name:
        weights, output = given[1], given[0]
    else:
        weights, output = given[1], result
    return 2.0 * math.prod(output) * math.prod(weights) / weights[labels.index("o")]


def sides_of(shape: str | tuple[str, str]) -> list[int]:
    """Return the sides of the first array in the text of a shape."""
    if isinstance(shape, str):
        found = hlo.ARRAY.search(shape)
        shape = (found[1], found[2]) if found else ("", "")
    return [int(side) for side in shape[1].split(",") if side]
