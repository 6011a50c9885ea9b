"""What is reported of a program that was compiled, or that the compiler refused."""

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from evqgan.aot import hlo, kernels
from evqgan.aot.kernels import Kernel
from evqgan.aot.programs import Program
from evqgan.aot.topology import Target
from evqgan.core import flops
from evqgan.core.chips import Chip
from evqgan.core.errors import OUT_OF_MEMORY
from evqgan.core.space import gib


class Row(NamedTuple):
    """What is known of a program; None where the compiler refused it, or does not say.

    Bytes are of a device; TFLOP, seconds and collectives of a device and a call.
    """

    program: str
    topology: str
    device_kind: str
    devices: int
    mesh: dict[str, int]
    images: int  # of a call
    state_bytes: int  # of the arguments that are held from step to step
    memory_bytes: int  # of a device
    argument_bytes: int | None = None
    output_bytes: int | None = None
    temporary_bytes: int | None = None
    aliased_bytes: int | None = None
    peak_bytes: int | None = None
    peak_by: str | None = None  # "compiler", or "sum" of the above, where it gives no peak
    fits: bool | None = None  # whether the peak is no more than the memory
    tflop: float | None = None  # without what is computed twice
    tflop_with_remat: float | None = None  # with it
    seconds: float | None = None  # an estimate
    seconds_by: str | None = None  # of CYCLES, KERNELS or ROOFLINE
    mfu: float | None = None
    images_per_second: float | None = None
    kernels: int | None = None  # that a GPU starts
    collectives: dict[str, list[int]] | None = None  # {operation: [number, bytes of results]}
    open_loops: int | None = None  # see `hlo.Found`
    trace_seconds: float = 0.0  # here
    compile_seconds: float = 0.0  # here
    error: str | None = None  # why it was refused
    advice: tuple[str, ...] = ()  # what to change, see `advice.lines`


CYCLES = "cycles"  # of the compiler, and random bits, of which it knows none, written once
KERNELS = "kernels"  # a lower bound, by the rule of `aot.kernels`
ROOFLINE = "roofline"  # a lower bound: FLOPs, and arguments and results moved once


def compiled(program: Program, target: Target) -> Row:
    """Compile a program and return its row."""
    began = time.perf_counter()
    traced = program.function.trace(*program.given)
    in_all = flops_of(traced.jaxpr.jaxpr, program)
    row = described(program, target)._replace(tflop=in_all, tflop_with_remat=in_all)
    if program.plain:  # the program without what it computes twice
        function, given = program.plain()
        row = row._replace(tflop=flops_of(jax.make_jaxpr(function)(*given).jaxpr, program))
    row = row._replace(trace_seconds=time.perf_counter() - began)
    began = time.perf_counter()
    try:
        made = traced.lower().compile()  # for the devices of the shardings
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        taken = time.perf_counter() - began
        return row._replace(fits=False, error=reason_of(error), compile_seconds=taken)
    row = row._replace(compile_seconds=time.perf_counter() - began)
    text = made.as_text()
    found = hlo.read(text)
    row = row._replace(collectives=found.collectives, open_loops=found.open_loops)
    is_gpu = target.devices[0].platform == "gpu"
    started = kernels.of_program(text) if is_gpu else []
    return with_times(with_memory(row, made, target), found, started, target.chip)


def described(program: Program, target: Target) -> Row:
    """Return what a row says before anything is compiled."""
    return Row(
        program=program.name,
        topology=target.name,
        device_kind=target.devices[0].device_kind,
        devices=program.device_mesh.size,
        mesh=dict(program.device_mesh.shape),
        images=program.images,
        state_bytes=a_device(program.given[0]),
        memory_bytes=int(target.chip.memory),
    )


def a_device(tree: Any) -> int:
    """Return the bytes that a device holds of a tree of shapes with shardings."""
    leaves = jax.tree.leaves(tree)
    sides = [(x.sharding.shard_shape(x.shape), x.dtype.itemsize) for x in leaves]
    return sum(int(np.prod(shape)) * itemsize for shape, itemsize in sides)


def flops_of(jaxpr: Any, program: Program) -> float | None:
    """Return the TFLOP of a device in a call; None of a program that counts its own turns."""
    try:
        return flops.of_jaxpr(jaxpr) / program.device_mesh.size / 1e12
    except ValueError:
        return None


def reason_of(error: BaseException) -> str:
    """Return in one line why a compiler refuses a program that is too large."""
    text = " ".join(str(error).split()).partition(OUT_OF_MEMORY)[2].lstrip(": ")
    used = re.search(r"Used [\d.]+\w* of [\d.]+\w* hbm", text)
    return (used[0] if used else re.split(r"\.\s+(?=[A-Z])", text)[0].rstrip("."))[:300]


def with_memory(row: Row, made: Any, target: Target) -> Row:
    """Return a row with what memory a compiled program takes."""
    memory = made.memory_analysis()
    names = ("argument", "output", "temp", "alias")
    given, output, temporary, alias = (getattr(memory, f"{x}_size_in_bytes") for x in names)
    peak, by = given + output + temporary - alias, "sum"
    # The sum counts temporaries that are never there at once; the peak of CPUs and GPUs leaves
    # temporaries out.
    if target.devices[0].platform == "tpu" and getattr(memory, "peak_memory_in_bytes", 0):
        peak, by = memory.peak_memory_in_bytes, "compiler"
    return row._replace(
        argument_bytes=given,
        output_bytes=output,
        temporary_bytes=temporary,
        aliased_bytes=alias,
        peak_bytes=peak,
        peak_by=by,
        fits=peak <= target.chip.memory,
    )


def with_times(row: Row, found: hlo.Found, started: Sequence[Kernel], chip: Chip) -> Row:
    """Return a row with how long a call is thought to take, if that can be said.

    Nothing is overlapped, and collectives take no time.

    started: the kernels of a GPU.
    """
    done = 1e12 * (row.tflop or 0)
    if started:
        row = row._replace(kernels=sum(kernel.times for kernel in started))
    if found.cycles and chip.clock:
        written = found.random_bytes / chip.bandwidth
        seconds, by = found.cycles / chip.clock + written, CYCLES
    elif chip.flops and started:
        seconds, by = sum(kernel.seconds(chip) for kernel in started), KERNELS
    elif chip.flops and done:
        moved = (row.argument_bytes or 0) + (row.output_bytes or 0)
        seconds, by = max(done / chip.flops, moved / chip.bandwidth), ROOFLINE
    else:
        return row
    return row._replace(
        seconds=seconds,
        seconds_by=by,
        mfu=done / chip.flops / seconds if done else None,
        images_per_second=row.images / seconds,
    )


def text(row: Row) -> str:
    """Return the lines that are printed of a row."""
    sizes = " x ".join(f"{name} {number}" for name, number in row.mesh.items())
    lines = [
        f"{row.program} of {row.images:,} images on {row.topology}: {row.devices} x "
        f"{row.device_kind}, {sizes}",
        memory_text(row),
    ]
    if row.seconds:
        lines.append(f"  {time_text(row)}")
    if row.collectives is not None:
        parts = [
            f"{number:,} {name} {size / 1e9:.3g} GB"
            for name, (number, size) in sorted(row.collectives.items())
        ]
        lines.append(f"  collectives a call: {', '.join(parts) or 'none'}")
    if row.open_loops:
        lines.append(f"  {row.open_loops} loops of unknown length are counted as one turn each")
    lines.append(f"  traced in {row.trace_seconds:.0f} s, compiled in {row.compile_seconds:.0f} s")
    return "\n".join(lines)


def memory_text(row: Row) -> str:
    """Return the line about memory."""
    there = f"{gib(row.memory_bytes)} a device"
    if row.error:
        return f"  DOES NOT FIT {there}: {row.error}; weights and state {gib(row.state_bytes)}"
    sizes = {
        "arguments": row.argument_bytes,
        "outputs": row.output_bytes,
        "temporaries": row.temporary_bytes,
        "aliased": row.aliased_bytes,
    }
    parts = ", ".join(f"{name} {gib(size or 0)}" for name, size in sizes.items())
    verdict = "fits" if row.fits else "DOES NOT FIT"
    how = "" if row.peak_by == "compiler" else " (their sum: the compiler gives no peak)"
    return f"  {verdict}: peak {gib(row.peak_bytes or 0)} of {there}{how}: {parts}"


def time_text(row: Row) -> str:
    """Return the line about FLOPs and time."""
    by = {
        CYCLES: "the compiler's cycles and random bits written once, nothing overlapped, without "
        "collectives",
        KERNELS: f"lower bound of {row.kernels or 0:,} kernels, each at the peak of products or at "
        "the bandwidth of memory, without collectives",
        ROOFLINE: "lower bound of FLOPs and of arguments and results moved once",
    }[row.seconds_by or ""]
    amount = f"{row.tflop:.3g} TFLOP a device" if row.tflop else "FLOPs unknown"
    if row.tflop and row.tflop_with_remat and row.tflop_with_remat > row.tflop * 1.001:
        amount += f" ({row.tflop_with_remat:.3g} with what is computed twice)"
    share = f", MFU {row.mfu:.1%}" if row.mfu else ""
    speed = f"{row.images_per_second:,.0f} images/s"
    return f"{amount}, about {1e3 * (row.seconds or 0):,.4g} ms{share}, {speed} ({by})"
