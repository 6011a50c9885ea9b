"""Signals that ask a process to end, and what is done when one comes."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from evqgan.core import files

# A scheduler's, Ctrl-C, a terminal that is gone (which Windows has not).
NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
AGAIN = 1.0  # ours: seconds; `timeout` sends two signals at once, which are one request
# Ours: seconds until the main thread has heard of a signal, and from then on until it has let go of
# all. People wait for them after Ctrl-C, and what is written outside of training appears whole or
# not at all, however the process ends (`files.atomic`).
PATIENCE, CLEARING = 1.0, 3.0


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end, as Ctrl-C does; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


_kept: list[str] = []  # what was told of last: see `keep`
_whole: dict[str, str] = {}  # what the work is a part of: see `begin` and `done`
_raised: list[int] = []  # the signal of which `ending_in_order` has raised Interrupted
_unsaid = threading.Lock()  # free until the line of a signal is printed


def keep(what: str) -> None:
    """Note what is saved by now, from which the same command goes on, for the line of a signal.

    what: in words, such as "step 400 in workdirs/quickstart/tokenizer"; "" is nothing yet, unless
      something was noted before.
    """
    if what or not _kept:
        _kept[:] = [what]


def begin(name: str, command: str) -> None:
    """Note that what follows is a larger piece of work of many parts, for the line of a signal.

    name: of the piece, such as "table7".
    command: goes on with it.
    """
    _whole.update(name=name, command=command)


def done(what: str) -> None:
    """Note what of the piece of `begin` is done, in words, as "2 of 3 trainings in workdirs/paper".

    What `keep` was told of a part that has ended is forgotten.
    """
    _whole["done"] = what
    _kept.clear()


def raised() -> int | None:
    """Return the signal of which `ending_in_order` has raised Interrupted in its body, or None.

    Another exception may come out of the body, where code in between makes one of it.
    """
    return _raised[0] if _raised else None


def print_stopped(number: int) -> int:
    """Print the line that tells of a signal, and from where the same command goes on; once.

    The main thread may be slow to end after it, and is then ended by the one that watches. Return
    the exit code, as the shell has it.
    """
    if not _unsaid.acquire(blocking=False):
        return 128 + number
    name = signal.Signals(number).name
    then = "give the same command again"  # nobody knows yet, or the work is not done in parts
    if _kept:
        start = "nothing is saved yet: the same command begins anew"
        then = f"the same command goes on from {_kept[0]}" if _kept[0] else start
    if "name" in _whole and "done" in _whole:
        kept = ", and ".join([_whole["done"], *filter(None, _kept)])
        name, then = f"{name} in {_whole['name']}", f"kept: {kept}; go on: {_whole['command']}"
    print(f"stopped by {name}; {then}", file=sys.stderr, flush=True)
    return 128 + number


def print_heard(number: int, until: str, then: str = "") -> None:
    """Print the line that a signal was heard, and what is done before the work stops.

    until: what that is, in words. then: ends the line.
    """
    line = f"{signal.Signals(number).name}: stopping after {until}, which is then saved{then}"
    print(line, file=sys.stderr, flush=True)


def leave(code: int) -> int:
    """Return the exit code of a process that is about to end, or end it at once.

    It ends at once after a signal: XLA may still compile in a thread of its own, for minutes, and
    Python would wait for it.
    """
    if code > 128:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # of a full device
                stream.flush()
        os._exit(code)
    return code


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Have the first signal of SIGNALS raise Interrupted in the body: all it holds is let go.

    Where the main thread does not come to that within PATIENCE seconds, as XLA may compile for
    minutes, or to the end of the body in CLEARING more, what is `files.owned` is let go and the
    process ends with a line. The latter is also where Python ignores what is raised, in a finalizer
    that happens to run as the signal comes. While a module is imported the process ends at once,
    too: extensions abort it when an exception comes out of what they import. See `handled`.
    """
    if not _is_main_thread():
        yield
        return
    for of_another in (_kept, _raised, _whole):
        of_another.clear()
    if _unsaid.locked():
        _unsaid.release()
    has_heard, has_ended = threading.Event(), threading.Event()  # the main thread
    heard, told = os.pipe()
    os.set_blocking(told, False)
    watch = threading.Thread(target=_watch, args=(heard, has_heard, has_ended), daemon=True)
    watch.start()

    def note(number: int) -> None:
        has_heard.set()
        if _is_importing():
            _end(number)
        _raised[:] = [number]
        raise Interrupted(number)

    unraisable = sys.unraisablehook

    def hook(found: Any) -> None:
        if not isinstance(found.exc_value, Interrupted):
            unraisable(found)

    sys.unraisablehook = hook
    try:
        with handled(note, told):
            yield
    finally:
        sys.unraisablehook = unraisable
        has_heard.set()
        has_ended.set()
        os.close(told)  # which ends the thread
        watch.join()
        os.close(heard)


@contextlib.contextmanager
def noted(until: Callable[[], str]) -> Iterator[Callable[[], int | None]]:
    """Yield a function that gives the signal of SIGNALS that has come in the body, or None.

    The body goes on, and ends when it can. A line says at once that the signal was heard, and a
    second one, more than AGAIN seconds later, ends the process at once: a thread does both, for
    Python's handlers wait while the main thread is in XLA, which may be minutes.

    until: returns what the body does before it ends, in words, such as "the evaluation of step 9".
    """
    if not _is_main_thread():
        yield lambda: None
        return
    came: list[int] = []
    heard, told = os.pipe()
    os.set_blocking(told, False)
    thread = threading.Thread(target=_answer, args=(heard, until), daemon=True)
    thread.start()
    try:
        with handled(came.append, told, lambda number: None):
            yield lambda: came[0] if came else None
    finally:
        os.close(told)  # which ends the thread
        thread.join()
        os.close(heard)


@contextlib.contextmanager
def handled(
    note: Callable[[int], Any], wakeup: int = -1, again: Callable[[int], Any] | None = None
) -> Iterator[None]:
    """Call note(number) when the first signal of SIGNALS comes in the body.

    One that comes more than AGAIN seconds later ends the process at once, as if there were no
    handler. What was ignored before, as SIGHUP is under nohup, stays so. Python allows handlers in
    the main thread alone: in another one the body just runs.

    wakeup: where the numbers of signals are written as they come, see `signal.set_wakeup_fd`.
    again: is called with the number of a later signal, instead of the end.
    """
    if not _is_main_thread():
        yield
        return
    came: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not came:
            came.append(time.monotonic())
            note(number)
        elif again:
            again(number)
        elif time.monotonic() - came[0] > AGAIN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
            signal.raise_signal(number)

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    before = {number: old for number, old in before.items() if old != signal.SIG_IGN}
    wakeup_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(wakeup_before)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_importing() -> bool:
    """Return whether this is called in the midst of an import."""
    frame: FrameType | None = sys._getframe()
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _end(number: int) -> None:
    """Let go of what is `files.owned`, print the line of a signal, and end the process."""
    files.let_go()
    os._exit(print_stopped(number))


def _watch(heard: int, has_heard: threading.Event, has_ended: threading.Event) -> None:
    """End the process some seconds after a signal, unless the main thread does.

    See `ending_in_order`.

    heard: a pipe from which the numbers of signals can be read.
    has_heard, has_ended: whether the main thread knows of the signal, and has left the body.
    """
    while came := os.read(heard, 1):
        in_time = came[0] not in SIGNALS or (has_heard.wait(PATIENCE) and has_ended.wait(CLEARING))
        if not in_time:
            _end(came[0])


def _answer(heard: int, until: Callable[[], str]) -> None:
    """Say that the first signal was heard, and end the process at a later one; see `noted`.

    heard: a pipe from which the numbers of signals can be read.
    """
    first: float | None = None
    while came := os.read(heard, 1):
        if came[0] not in SIGNALS:
            continue
        if first is None:
            first = time.monotonic()
            print_heard(came[0], until(), "; a second signal ends at once")
        elif time.monotonic() - first > AGAIN:
            _end(came[0])
