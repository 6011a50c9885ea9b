"""What is printed: letters that an output lacks, and an output that cannot be written at all."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from evqgan.core.errors import of_system


def begin() -> None:
    """Prepare what a command line prints, and what Python prints for it.

    Where an output is closed, as some daemons have it, what is printed there goes nowhere.
    A letter that an output cannot encode, as where it is ASCII, is printed as an escape sequence.
    A file that TensorStore could not write makes orbax end a save; other files of that save still
    tell its event loop, which has ended, and Python would print a traceback for each of these.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _closed(number))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unless_of_an_ended_loop


def _closed(number: int) -> TextIO:
    """Return a stream that goes nowhere, in the place of the descriptor `number`, which is closed.

    The next file that is opened would have that number, and what libraries print in it.
    """
    opened = os.open(os.devnull, os.O_RDWR)
    while opened < number:  # takes the lower ones, which are free, too
        opened = os.open(os.devnull, os.O_RDWR)
    return open(opened, "w" if number else "r", encoding="utf-8", closefd=False)


def is_of_an_ended_loop(found: Any) -> bool:
    """Return whether what `sys.unraisablehook` is given is of orbax's event loop, which ended."""
    return str(found.exc_value) == "Event loop is closed"


def _unless_of_an_ended_loop(found: Any) -> None:
    """Print what Python says of an exception that nobody can catch, but for those of `begin`."""
    if not is_of_an_ended_loop(found):
        sys.__unraisablehook__(found)


@contextlib.contextmanager
def outlived() -> Iterator[None]:
    """Have the body go on where nobody reads its output any more, which is said once.

    It is for training: `tee` ends by the Ctrl-C that asks the run to save its state, and `head`
    after its lines. What is printed after that goes nowhere.
    """
    before = sys.stdout, sys.stderr
    lost = "what read the output, such as tee or head, has ended: the run goes on, and says no more"
    sys.stdout, sys.stderr = _Outlived(sys.stdout, 1, lost), _Outlived(sys.stderr, 2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Outlived:
    """A stream of this process that is written to nowhere once nobody reads it."""

    def __init__(self, stream: Any, number: int, lost: str = "") -> None:
        """Stand for `stream`, the descriptor `number`; lost: is printed as a WARNING then."""
        self._stream, self._number, self._lost = stream, number, lost

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, as the stream does."""
        return self._tried(self._stream.write, text)

    def flush(self) -> None:
        """Flush the stream."""
        self._tried(self._stream.flush)

    def _tried(self, function: Callable[..., Any], *given: Any) -> Any:
        try:
            return function(*given)
        except BrokenPipeError:
            _nowhere(self._number)
            if self._lost:
                print(f"WARNING {self._lost}", file=sys.stderr, flush=True)
            return len(given[0]) if given else None


def fault(error: Exception | None = None) -> int:
    """Return 0 if all that was printed is written, else say why not, and return the exit code.

    error: what ended the work; it is tried whether that came of a line that could not be printed.
    """
    try:
        if isinstance(error, OSError) and error.filename is None:
            sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        return unread()
    except OSError as full:
        return _drop(f"standard output cannot be written: {of_system(full)}", 2)
    return 0


def unread() -> int:
    """Say that nobody reads the output any more, and return the exit code."""
    return _drop("what read the output, such as head, has ended", 128 + signal.SIGPIPE)


def _drop(reason: str, code: int) -> int:
    """Print an error; what is still to be flushed goes nowhere. Return the code."""
    print(f"error: {reason}", file=sys.stderr)
    _nowhere(1)
    return code


def _nowhere(number: int) -> None:
    """Let a descriptor of this process, and what is still to be flushed to it, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
