"""What is reported of a program that was compiled, or that the compiler refused."""

import re
import time
from typing import Any

import jax
import numpy as np

from evqgan.aot import hlo
from evqgan.aot.programs import Program
from evqgan.aot.topology import Target
from evqgan.core import flops
from evqgan.core.chips import Chip
from evqgan.core.errors import OUT_OF_MEMORY
from evqgan.core.space import gib


def compiled(program: Program, target: Target) -> dict[str, Any]:
    """Compile a program and return its row.

    program, topology, device_kind, devices, mesh, images: what was compiled for what; images are
      those of a call.
    state_bytes: of the arguments that are held from step to step, on a device.
    argument_bytes, output_bytes, temporary_bytes, aliased_bytes, peak_bytes: on a device, by the
      compiler. peak_by: "compiler", or "sum" of these, where it gives no peak.
    memory_bytes: of a device. fits: whether the peak is no more.
    tflop: a device and call, without what is computed twice; tflop_with_remat: with it.
    seconds, mfu, images_per_second: an estimate; seconds_by: "cycles" of the compiler, and random
      bits, of which it knows none, written once; nothing overlapped, without collectives; or
      "roofline", a lower bound by FLOPs and by arguments and results moved once; or None.
    collectives: {operation: [number, bytes of results]} of a device and call.
    compile_seconds, trace_seconds: here.
    error: why it was refused, or None.
    """
    began = time.perf_counter()
    traced = program.function.trace(*program.given)
    row = described(program, target)
    row["tflop"] = row["tflop_with_remat"] = flops_of(traced.jaxpr.jaxpr, program)
    if program.plain:  # the program without what it computes twice
        function, given = program.plain()
        row["tflop"] = flops_of(jax.make_jaxpr(function)(*given).jaxpr, program)
    row["trace_seconds"] = time.perf_counter() - began
    began, made = time.perf_counter(), None
    try:
        made = traced.lower().compile()  # for the devices of the shardings
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        row["error"] = reason_of(error)
    row["compile_seconds"] = time.perf_counter() - began
    if made is None:
        return {**row, "fits": False}
    row |= memory_of(made, target)
    found = hlo.read(made.as_text())
    row["collectives"], row["open_loops"] = found.collectives, found.open_loops
    return {**row, **times(row, found, target.chip)}


def described(program: Program, target: Target) -> dict[str, Any]:
    """Return what a row says before anything is compiled, and None for the rest of its keys."""
    return {
        "program": program.name,
        "topology": target.name,
        "device_kind": target.devices[0].device_kind,
        "devices": program.device_mesh.size,
        "mesh": dict(program.device_mesh.shape),
        "images": program.images,
        "state_bytes": a_device(program.given[0]),
        "memory_bytes": int(target.chip.memory),
        **dict.fromkeys(UNKNOWN),
    }


SIZES = [f"{name}_bytes" for name in ("argument", "output", "temporary", "aliased", "peak")]
OTHERS = (
    "peak_by fits tflop tflop_with_remat seconds seconds_by mfu images_per_second collectives "
    "open_loops trace_seconds compile_seconds error"
)
UNKNOWN = (*SIZES, *OTHERS.split())


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


def memory_of(made: Any, target: Target) -> dict[str, Any]:
    """Return the part of a row that says what memory a compiled program takes."""
    memory = made.memory_analysis()
    names = ("argument", "output", "temp", "alias")
    given, output, temporary, alias = (getattr(memory, f"{x}_size_in_bytes") for x in names)
    peak, by = given + output + temporary - alias, "sum"
    # The sum counts temporaries that are never there at once; the peak of CPUs and GPUs leaves
    # temporaries out.
    if target.devices[0].platform == "tpu" and getattr(memory, "peak_memory_in_bytes", 0):
        peak, by = memory.peak_memory_in_bytes, "compiler"
    return {
        "argument_bytes": given,
        "output_bytes": output,
        "temporary_bytes": temporary,
        "aliased_bytes": alias,
        "peak_bytes": peak,
        "peak_by": by,
        "fits": peak <= target.chip.memory,
    }


def times(row: dict[str, Any], found: hlo.Found, chip: Chip) -> dict[str, Any]:
    """Return the part of a row that says how long a call is thought to take."""
    done = 1e12 * (row["tflop"] or 0)
    if found.cycles and chip.clock:
        written = found.random_bytes / chip.bandwidth
        seconds, by = found.cycles / chip.clock + written, "cycles"
    elif chip.flops and done:
        moved = row["argument_bytes"] + row["output_bytes"]
        seconds, by = max(done / chip.flops, moved / chip.bandwidth), "roofline"
    else:
        return {}
    mfu = done / chip.flops / seconds if done else None
    return {
        "seconds": seconds,
        "seconds_by": by,
        "mfu": mfu,
        "images_per_second": row["images"] / seconds,
    }


def text(row: dict[str, Any]) -> str:
    """Return the lines that are printed of a row."""
    sizes = " x ".join(f"{name} {number}" for name, number in row["mesh"].items())
    lines = [
        f"{row['program']} of {row['images']:,} images on {row['topology']}: {row['devices']} x "
        f"{row['device_kind']}, {sizes}",
        memory_text(row),
    ]
    if row["seconds"]:
        lines.append(f"  {time_text(row)}")
    if row["collectives"] is not None:
        parts = [
            f"{number:,} {name} {size / 1e9:.3g} GB"
            for name, (number, size) in sorted(row["collectives"].items())
        ]
        lines.append(f"  collectives a call: {', '.join(parts) or 'none'}")
    if row["open_loops"]:
        lines.append(f"  {row['open_loops']} loops of unknown length are counted as one turn each")
    lines.append(
        f"  traced in {row['trace_seconds']:.0f} s, compiled in {row['compile_seconds']:.0f} s"
    )
    return "\n".join(lines)


def memory_text(row: dict[str, Any]) -> str:
    """Return the line about memory."""
    there = f"{gib(row['memory_bytes'])} a device"
    if row["error"]:
        return (
            f"  DOES NOT FIT {there}: {row['error']}; weights and state {gib(row['state_bytes'])}"
        )
    parts = f"arguments {gib(row['argument_bytes'])}, outputs {gib(row['output_bytes'])}"
    parts += f", temporaries {gib(row['temporary_bytes'])}, aliased {gib(row['aliased_bytes'])}"
    verdict = "fits" if row["fits"] else "DOES NOT FIT"
    how = "" if row["peak_by"] == "compiler" else " (their sum: the compiler gives no peak)"
    return f"  {verdict}: peak {gib(row['peak_bytes'])} of {there}{how}: {parts}"


def time_text(row: dict[str, Any]) -> str:
    """Return the line about FLOPs and time."""
    by = {
        "cycles": "the compiler's cycles and random bits written once, nothing overlapped, without "
        "collectives",
        "roofline": "lower bound of FLOPs and of arguments and results moved once",
    }[row["seconds_by"]]
    amount = f"{row['tflop']:.3g} TFLOP a device" if row["tflop"] else "FLOPs unknown"
    if row["tflop"] and row["tflop_with_remat"] and row["tflop_with_remat"] > row["tflop"] * 1.001:
        amount += f" ({row['tflop_with_remat']:.3g} with what is computed twice)"
    share = f", MFU {row['mfu']:.1%}" if row["mfu"] else ""
    speed = f"{row['images_per_second']:,.0f} images/s"
    return f"{amount}, about {1e3 * row['seconds']:,.4g} ms{share}, {speed} ({by})"
