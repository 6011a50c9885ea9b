"""Timing of compared programs: in turn (A B A B ...), so that a busy moment meets all of them."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from evqgan.core.progress import announced, counted, heartbeat
from evqgan.core.space import GIB

IN_TURN = 10  # so that a call takes much longer than to start it


@dataclasses.dataclass
class Program:
    """A compiled program that is timed."""

    name: str
    call: Callable[[], Any]  # runs it once, and returns arrays of it
    images: int  # of one call
    flops: float  # of one call, without what is computed again
    compile_seconds: float


def compile_timed(lowered: Any) -> tuple[Callable, float]:
    """Compile what `jit(...).lower` gave, and return it with the seconds that took."""
    began = time.perf_counter()
    with heartbeat("compiling"):
        return lowered.compile(), time.perf_counter() - began


def seconds_of(programs: Sequence[Program], rounds: int) -> list[list[float]]:
    """Return the seconds of `rounds` calls of each program, after one that does not count."""
    seconds: list[list[float]] = [[] for _ in programs]
    with announced(f"timing {counted(rounds, 'call')} of {names(programs)}, in turn") as at:
        calls = [*zip(programs, seconds, strict=True)] * (rounds + 1)
        for number, (program, taken) in enumerate(calls, 1):
            began = time.perf_counter()
            jax.block_until_ready(program.call())
            if number > len(programs):
                taken.append(time.perf_counter() - began)
            at(number, len(calls))
    return seconds


def names(programs: Sequence[Program]) -> str:
    """Return what programs are called, each once."""
    return ", ".join(dict.fromkeys(program.name for program in programs))


def rows_of(programs: Sequence[Program], rounds: int, peak: float) -> list[dict[str, Any]]:
    """Time programs in turn, and return a row for each.

    peak: FLOPs a second of the device's matrix product, which `mfu` is the share of.
    """
    rows = []
    for program, taken in zip(programs, seconds_of(programs, rounds), strict=True):
        median = statistics.median(taken)
        rows.append(
            {
                "program": program.name,
                "images": program.images,
                "compile_seconds": program.compile_seconds,
                "seconds": median,
                "least": min(taken),
                "most": max(taken),
                "images_per_second": program.images / median,
                "tflop": program.flops / 1e12,
                "mfu": program.flops / median / peak,
                "peak_gib": peak_memory(),
            }
        )
    return rows


def peak_memory() -> float | None:
    """Return the most GiB that the process has held on the device so far; None if not counted."""
    statistics_of = jax.devices()[0].memory_stats() or {}
    peak = statistics_of.get("peak_bytes_in_use")
    return peak / GIB if peak else None


def ceilings(side: int, rounds: int) -> dict[str, float]:
    """Return what the device reaches: FLOPs a second of a matrix product, bytes a second of a copy.

    side: of the square matrices of random bfloat16; the copy is of sixteen of them, and counts
      bytes read and bytes written. Each is done IN_TURN times a call.
    """
    a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
    many = jnp.stack([a] * 16)
    product = Program("product", lambda: multiply(a, b), 0, 2 * side**3 * IN_TURN, 0.0)
    copy = Program("copy", lambda: negative(many), 0, 0.0, 0.0)
    product_seconds, copy_seconds = (
        statistics.median(taken) for taken in seconds_of([product, copy], rounds)
    )
    moved = 2 * many.size * many.dtype.itemsize * IN_TURN
    return {"flops": product.flops / product_seconds, "bytes": moved / copy_seconds}


@jax.jit
def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a multiplied by b IN_TURN times, scaled to stay as large as it is."""
    scale = jnp.asarray(a.shape[-1] ** -0.5, a.dtype)
    return jax.lax.fori_loop(0, IN_TURN, lambda _, x: (x @ b) * scale, a)


@jax.jit
def negative(x: jax.Array) -> jax.Array:
    """Return x with its sign changed IN_TURN times: each reads and writes every byte once."""
    return jax.lax.fori_loop(0, IN_TURN, lambda _, x: -x, x)
