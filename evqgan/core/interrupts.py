"""A signal that asks a process to end: it ends in order, and soon, even while it compiles."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from evqgan.core import files

# A scheduler's, Ctrl-C, a terminal that is gone (which Windows has not).
NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
LINE = "stopped by {}; the same command goes on from what is saved"
PATIENCE = 3.0  # ours: seconds; schedulers kill after 30


class Interrupted(SystemExit):
    """A signal asked the process to end. The exit code is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.said = False  # whether a line has told of it


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """Have signals of SIGNALS raise Interrupted in the body, or Ctrl-C KeyboardInterrupt.

    So all that it holds is let go. Where the main thread does not come to that within PATIENCE
    seconds, as XLA may compile for minutes, `files.let_go` is called and the process ends. What was
    ignored before, as SIGHUP is under nohup, stays so. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    before = {number: old for number, old in before.items() if old != signal.SIG_IGN}
    ending = threading.Event()  # whether the main thread has come to it

    def end(number: int, _: Any) -> None:
        ending.set()
        signal.signal(number, before[number])  # the second one is as if there were no handler
        raise KeyboardInterrupt if number == signal.SIGINT else Interrupted(number)

    heard, told = os.pipe()
    os.set_blocking(told, False)
    watch = threading.Thread(target=_watch, args=(heard, ending, set(before)), daemon=True)
    watch.start()
    wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, end)
    try:
        yield
    except Interrupted as error:
        if not error.said:
            print(LINE.format(signal.Signals(error.number).name), flush=True)
            error.said = True
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        ending.set()
        os.close(told)  # which ends the thread
        watch.join()
        os.close(heard)


def _watch(heard: int, ending: threading.Event, numbers: set[int]) -> None:
    """End the process PATIENCE seconds after a signal unless the main thread is about to.

    heard: a pipe from which the numbers of signals can be read.
    numbers: of those that end it.
    """
    while came := os.read(heard, 1):
        if came[0] in numbers and not ending.wait(PATIENCE):
            files.let_go()
            print(LINE.format(signal.Signals(came[0]).name), flush=True)
            os._exit(128 + came[0])
