"""Signals that ask a process to end, and what is done when one comes."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# A scheduler's, Ctrl-C, a terminal that is gone (which Windows has not).
NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
AGAIN = 1.0  # ours: seconds; `timeout` sends two signals at once, which are one request


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end, as Ctrl-C does; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def interrupt(number: int) -> None:
    """Raise Interrupted: what `handled` may call."""
    raise Interrupted(number)


@contextlib.contextmanager
def handled(note: Callable[[int], Any]) -> Iterator[None]:
    """Call note(number) when the first signal of SIGNALS comes in the body.

    One that comes more than AGAIN seconds later ends the process at once, as if there were no
    handler. What was ignored before, as SIGHUP is under nohup, stays so. Python allows handlers in
    the main thread alone: in another one the body just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not came:
            came.append(time.monotonic())
            note(number)
        elif time.monotonic() - came[0] > AGAIN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
            signal.raise_signal(number)

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    before = {number: old for number, old in before.items() if old != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
