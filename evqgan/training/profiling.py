"""A trace of some training steps: what devices and host do in them, for a look in a browser."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from evqgan.core import stores
from evqgan.core.processes import tell
from evqgan.training.reporting import Taken
from evqgan.training.timing import StepTimer

WARM = 2  # ours: steps before the trace: the first one compiles, the next fills what is read ahead


def traced(
    taken: Iterator[Taken], start: int, number: int, workdir: pathlib.Path, timer: StepTimer
) -> Iterator[Taken]:
    """Yield what `taken` yields, and trace `number` of its steps into workdir/profile.

    Each process writes what it does itself. The trace begins when the steps before it have ended
    on the devices, and ends with the last of its own; evaluations between them are in it. A run
    that is short has less to trace.

    start: how many steps were taken before. timer: of the run; what tracing itself takes counts
      there as "profile".
    """
    total = timer.total_steps
    first = start + 1 + max(1, min(WARM, total - start - number))
    last = min(first + number - 1, total)
    folder, tracing = workdir / "profile", False
    copied = contextlib.ExitStack()  # where the folder is on a bucket
    try:
        for step, state, metrics in taken:
            if step == last and tracing:
                jax.block_until_ready(metrics)
                with timer.spend("profile"):
                    jax.profiler.stop_trace()
                    copied.close()
                tracing = False
                tell(said(folder, first, last))
            yield step, state, metrics
            if step == first - 1 < last:
                jax.block_until_ready(metrics)
                tell(f"tracing steps {first:,} to {last:,}")
                with timer.spend("profile"):
                    place = copied.enter_context(stores.as_folder(folder))
                    jax.profiler.start_trace(place, create_perfetto_trace=True)
                tracing = True
    finally:
        if tracing:
            jax.profiler.stop_trace()
            copied.close()


def said(folder: pathlib.Path, first: int, last: int) -> str:
    """Return a line on where a trace is, and by what it can be looked at."""
    where = f"steps {first:,} to {last:,} are traced in {folder}"
    return (
        f"{where}: open its perfetto_trace.json.gz in https://ui.perfetto.dev, or the folder in "
        "TensorBoard with the package xprof"
    )
