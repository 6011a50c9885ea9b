"""Standard output that cannot be written: one line says so, and nothing more is tried."""

import os
import signal
import sys

from evqgan.core.errors import of_system


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
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
