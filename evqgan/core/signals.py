"""Signals that ask a process to end, and what is done when one comes."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from evqgan.core import ending

# A scheduler's, Ctrl-C, a terminal that is gone (which Windows has not).
NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
AGAIN = 1.0  # ours: seconds; `timeout` sends two signals at once, which are one request
# Ours: seconds until the main thread has heard of a signal, and from then on until it has let go of
# all. People wait for them after Ctrl-C, and what is written outside of training appears whole or
# not at all, however the process ends (`files.atomic`).
PATIENCE, CLEARING = 1.0, 3.0
# Parts of the paths of code that no exception may cross: imports, and JAX's compilation.
FRAGILE = ("<frozen importlib", f"jax{os.sep}_src{os.sep}compiler.py")


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end, as Ctrl-C does; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@dataclasses.dataclass
class _Noted:
    """What is noted in one body of `ending_in_order`, for the line of a signal."""

    saved: str | None = None  # see `note_saved`; None: nothing was noted
    work: str = ""  # see `note_work`
    command: str = ""
    done: str = ""  # see `note_done`
    raised: int | None = None  # the signal of which Interrupted was raised
    # Free until the line is printed.
    unsaid: threading.Lock = dataclasses.field(default_factory=threading.Lock)


_noted = _Noted()


def note_saved(what: str) -> None:
    """Note what is saved by now, from which the same command goes on, for the line of a signal.

    what: in words, such as "step 400 in workdirs/quickstart/tokenizer"; "" is nothing yet, unless
      something was noted before.
    """
    if what or _noted.saved is None:
        _noted.saved = what


def note_work(name: str, command: str) -> None:
    """Note that what follows is a larger piece of work of many parts, for the line of a signal.

    name: of the piece, such as "table7".
    command: goes on with it.
    """
    _noted.work, _noted.command = name, command


def note_done(what: str) -> None:
    """Note what of the work of `note_work` is done, such as "2 of 3 trainings in workdirs/paper".

    What `note_saved` was told of a part that has ended is forgotten.
    """
    _noted.done, _noted.saved = what, None


def raised() -> int | None:
    """Return the signal of which `ending_in_order` has raised Interrupted in its body, or None.

    Another exception may come out of the body, where code in between makes one of it.
    """
    return _noted.raised


def print_stopped(number: int) -> int:
    """Print the line that tells of a signal, and from where the same command goes on; once.

    The main thread may be slow to end after it, and is then ended by the one that watches. Return
    the exit code, as the shell has it.
    """
    if not _noted.unsaid.acquire(blocking=False):
        return 128 + number
    name = signal.Signals(number).name
    if _noted.work and _noted.done:
        name = f"{name} in {_noted.work}"
        kept = ", and ".join(filter(None, [_noted.done, _noted.saved]))
        then = f"kept: {kept}; go on: {_noted.command}"
    elif _noted.saved:
        then = f"the same command goes on from {_noted.saved}"
    elif _noted.saved is not None:
        then = "nothing is saved yet: the same command begins anew"
    else:  # nobody knows yet, or the work is not done in parts
        then = "give the same command again"
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
    """Have the first signal of SIGNALS raise Interrupted in the main thread: the body unwinds.

    The process is ended from a thread, with a line and after `ending.let_go`, if the main thread
    has not heard of the signal after PATIENCE seconds (XLA may compile for minutes), if it has not
    left the body CLEARING seconds later, or if Python dropped the exception because a finalizer was
    running. While a module is imported, or JAX compiles, it is ended at once, as extensions abort
    on an exception there, or lose it. See `handled`.
    """
    if not _is_main_thread():
        yield
        return
    global _noted
    _noted = _Noted()
    has_heard, has_ended = threading.Event(), threading.Event()  # the main thread

    def note(number: int) -> None:
        has_heard.set()
        if _is_within(*FRAGILE):
            _end(number)
        _noted.raised = number
        raise Interrupted(number)

    def watch(number: int) -> None:
        if not (has_heard.wait(PATIENCE) and has_ended.wait(CLEARING)):
            _end(number)

    unraisable = sys.unraisablehook

    def hook(found: Any) -> None:
        if not isinstance(found.exc_value, Interrupted):
            unraisable(found)

    with _listening(watch) as pipe:
        sys.unraisablehook = hook
        try:
            with handled(note, pipe):
                yield
        finally:
            sys.unraisablehook = unraisable
            _noted.raised = None  # who goes on in this process was not asked to end
            has_heard.set()
            has_ended.set()


@contextlib.contextmanager
def noted(until: Callable[[], str]) -> Iterator[Callable[[], int | None]]:
    """Yield a function that gives the signal of SIGNALS that has come in the body, or None.

    The body goes on, and ends when it can. A line says at once that the signal was heard, and a
    second one, more than AGAIN seconds later, ends the process at once: a thread does both, for
    Python's handlers wait while the main thread is in XLA, which may be minutes.

    until: returns what the body does before it ends, in words, such as "the evaluation of step 9".

    Raises Interrupted if `ending_in_order` has raised it already and it was lost on its way, as in
    a call of XLA's compiler.
    """
    if not _is_main_thread():
        yield lambda: None
        return
    if number := raised():
        raise Interrupted(number)
    came: list[int] = []
    first: float | None = None

    def answer(number: int) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            print_heard(number, until(), "; a second signal ends at once")
        elif time.monotonic() - first > AGAIN:
            _end(number)

    with _listening(answer) as pipe, handled(came.append, pipe, lambda number: None):
        yield lambda: came[0] if came else None


@contextlib.contextmanager
def _listening(answer: Callable[[int], None]) -> Iterator[int]:
    """Yield a pipe: a thread calls answer(number) of each signal whose number is written into it.

    The thread ends with the body.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def listen() -> None:
        while came := os.read(heard, 1):
            if came[0] in SIGNALS:
                answer(came[0])

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield told
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


def _is_within(*places: str) -> bool:
    """Return whether this is called in the midst of code whose file's path has one of `places`."""
    frame: FrameType | None = sys._getframe()
    while frame and not any(place in frame.f_code.co_filename for place in places):
        frame = frame.f_back
    return frame is not None


def _end(number: int) -> None:
    """Let go of what has to go (`ending`), print the line of a signal, and end the process."""
    ending.let_go()
    os._exit(print_stopped(number))
