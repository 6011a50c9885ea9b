"""Signals that ask a run to stop once it takes steps: it saves its state first."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax

from evqgan.core import cluster, signals
from evqgan.core.checkpoint import Checkpoints

ASKING = 1.0  # ours: seconds of one question whether a signal has come; the end waits for it


class Stopped(SystemExit):
    """The run was asked to stop by a signal, and has saved its state.

    The exit code is the shell's for that signal.
    """

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.step = step


@contextlib.contextmanager
def stop_signal(until: Callable[[], str]) -> Iterator[Callable[[], int | None]]:
    """Yield a function that gives the signal of `signals.SIGNALS` that has come since, or None.

    A line says at once that it was heard, and the second one ends the process (`signals.noted`). In
    a run of many processes JAX listens for SIGTERM (`stop_now`), and a handler of ours would take
    the signal away from it: the first process says the line, whichever got it.

    until: returns what the run does before it stops, in words.
    """
    if jax.process_count() > 1:
        with _said_of_any(until) if jax.process_index() == 0 else contextlib.nullcontext():
            yield lambda: None
        return
    with signals.noted(until) as stopping:
        yield stopping


@contextlib.contextmanager
def _said_of_any(until: Callable[[], str]) -> Iterator[None]:
    """Say in the body, as soon as any process of the run gets a SIGTERM, that it was heard."""
    ended = threading.Event()

    def watch() -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the main thread meets it, too
            while not ended.is_set():
                if cluster.terminated(ASKING):
                    if not ended.is_set():
                        signals.print_heard(signal.SIGTERM, until())
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def stop_now(stopping: Callable[[], int | None], checkpoints: Checkpoints, step: int) -> int | None:
    """Return the signal by which any process of the run was asked to stop, or None.

    All processes answer alike for one step. stopping: of `stop_signal`.
    """
    if jax.process_count() == 1:
        return stopping()
    return signal.SIGTERM if checkpoints.manager.reached_preemption(step) else None
