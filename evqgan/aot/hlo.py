"""What the text of a compiled program says: its collectives, and the cycles it is thought to take.

The text is XLA's HLO after all passes, `compiled.as_text()`. What stands in a loop counts as often
as the loop turns, which XLA's own cost analysis does not do.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "f8": 8, "bf16": 16, "f16": 16}
ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+\w*)\[([\d,]*)\]")
HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
NAME = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
OPERAND = re.compile(r"%([\w.\-]+)")
CALLED = re.compile(r"\b(?:calls|to_apply|called_computations)=\{?%?([\w.\-]+)")
BRANCHES = re.compile(r"\b(?:true_computation|false_computation|branch_computations)=\{?([^}\s]+)")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
WHOLE = re.compile(r"= [su]\d+\[\]\S* constant\((\d+)\)")
CALLS = ("call", "async-start", "fusion")  # operations that run what they name


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    shape: str
    operation: str
    operands: list[str]  # names
    line: str


class Run(NamedTuple):
    """An instruction, and how it is run in a call of the program."""

    one: Instruction
    times: int
    is_fused: bool  # whether it is within one operation
    shapes: dict[str, str]  # of what stands beside it, by name


@dataclasses.dataclass
class Found:
    """What a program does in one call on one device.

    collectives: {operation: [how many, bytes of their results]}.
    cycles: the compiler's estimate for all operations one after the other, collectives apart; 0
      where it gives none.
    random_bytes: of random bits for which the compiler gives no cycles.
    open_loops: loops whose length the text does not say; each counts as one turn.
    """

    collectives: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    cycles: float = 0.0
    random_bytes: int = 0
    open_loops: int = 0


def read(text: str) -> Found:
    """Return what the text of a compiled program says."""
    computations, entry = parse(text)
    found = Found()
    for one, times, is_fused, shapes in runs(computations, entry):
        operation = one.operation.removesuffix("-start")
        if operation in COLLECTIVES:
            number = found.collectives.setdefault(operation, [0, 0])
            number[0] += times
            number[1] += times * size_of(one, shapes)
        # The cycles of what is fused are known as a whole.
        if not is_fused and (cycles := CYCLES.search(one.line)):
            found.cycles += times * int(cycles[1])
        elif one.operation == "rng-bit-generator" and not is_fused:
            found.random_bytes += times * bytes_of(one.shape)
        found.open_loops += one.operation == "while" and trips(computations, one) is None
    return found


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of each computation by its name, and the name of the first to run."""
    computations: dict[str, list[Instruction]] = {}
    entry, at = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            head = HEAD.match(line)
            at = head and computations.setdefault(head[2], [])
            if head and head[1]:
                entry = head[2]
        elif at is not None and (found := instruction(line)):
            at.append(found)
    return computations, entry


def instruction(line: str) -> Instruction | None:
    """Return the instruction of a line; None for a line that is none."""
    head = NAME.match(line)
    if not head:
        return None
    rest = line[head.end() :]
    end = closing(rest) + 1 if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    operation, bracket, rest = rest.partition("(")
    if not bracket:
        return None
    given = rest[: closing(f"({rest}") - 1]
    return Instruction(head[1], shape, operation, OPERAND.findall(given), line)


def closing(text: str) -> int:
    """Return where the bracket closes that `text` begins with; its end if none does."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    return len(text)


def runs(
    computations: dict[str, list[Instruction]], name: str, times: int = 1, is_fused: bool = False
) -> Iterator[Run]:
    """Yield each instruction that a computation and those it calls run, if it runs `times`.

    is_fused: whether the computation is within one operation.
    """
    instructions = computations.get(name, [])
    shapes = {one.name: one.shape for one in instructions}
    for one in instructions:
        yield Run(one, times, is_fused, shapes)
        turns = (trips(computations, one) or 1) if one.operation == "while" else 1
        within = is_fused or one.operation == "fusion"
        for inner in called(one):
            yield from runs(computations, inner, times * turns, within)


def called(one: Instruction) -> Iterator[str]:
    """Yield the names of the computations that an instruction runs."""
    if one.operation == "while":
        for part in ("body", "condition"):
            yield from re.findall(rf"\b{part}=%?([\w.\-]+)", one.line)
    elif one.operation == "conditional":
        for names in BRANCHES.findall(one.line):
            yield from (name.strip(" %,") for name in names.split(",") if name.strip(" %,"))
    elif one.operation in CALLS:
        yield from CALLED.findall(one.line)


def trips(computations: dict[str, list[Instruction]], loop: Instruction) -> int | None:
    """Return how often a loop turns; None if that cannot be seen.

    CPUs and GPUs note it; on a TPU it is the constant that the condition compares with, of loops
    that count from 0, as those of `jax.lax.scan` do.
    """
    if known := TRIPS.search(loop.line):
        return int(known[1])
    condition = re.search(r"\bcondition=%?([\w.\-]+)", loop.line)
    names = [condition[1]] if condition else []
    constants = []
    while names:
        for one in computations.get(names.pop(), ()):
            constants += [int(number) for number in WHOLE.findall(one.line)]
            names += list(called(one))
    return constants[0] if len(constants) == 1 else None


def size_of(one: Instruction, shapes: dict[str, str]) -> int:
    """Return the bytes of a collective's result.

    Of one that only starts, the result holds what it was given, too.
    """
    size = bytes_of(one.shape)
    if one.operation.endswith("-start") and one.shape.startswith("("):
        given = sum(bytes_of(shapes.get(name, "")) for name in one.operands)
        size = max(size - given, given if "permute" in one.operation else 0)
    return size


def bytes_of(shape: str) -> int:
    """Return the bytes of all arrays in the text of a shape, without what tiles are padded with."""
    return sum(
        math.prod(map(int, filter(None, sides.split(",")))) * bits(kind) // 8
        for kind, sides in ARRAY.findall(shape)
    )


def bits(kind: str) -> int:
    """Return the bits of an element of a kind such as "f32", "bf16", "pred" or "f8e4m3fn"."""
    if kind == "token":
        return 0
    number = re.match(r"(?:f8|[a-z]+\d+)", kind)
    found = number[0] if number else kind
    return BITS.get(found) or int(re.sub(r"\D", "", found) or 0)
