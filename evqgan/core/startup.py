"""What a command line does first, before it imports what takes a second or more."""

import gc
import importlib.util
import os
import signal
import sys
from types import FrameType

NEEDED = ("absl", "jax", "ml_collections", "packaging")  # of a command line, before it says a word
LINE = b"stopped by SIGINT; give the same command again\n"


def begin() -> None:
    """Prepare the process of a command line.

    Ctrl-C ends it with a line, as long as nothing else asks for the signal: Python would print a
    traceback of whatever is being imported. From the moment that there is work which may have to be
    let go, `signals.ending_in_order` takes over.

    Python looks for cycles of garbage seldom: a tracing of JAX makes millions of objects that live
    on, and to look through them again and again takes a seventh of its time.
    """
    gc.set_threshold(50_000, 20, 20)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, _: FrameType | None) -> None:
    os.write(2, LINE)
    os._exit(128 + number)


def check_packages() -> None:
    """End the process with a line, and code 1, where what a command line is made of is missing."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        advice = (
            "pip install -r requirements.txt (pip install . elsewhere), or bash launch/local.sh"
        )
        print(
            f"error: {', '.join(missing)} absent from {sys.executable}: {advice}", file=sys.stderr
        )
        sys.exit(1)
