"""Keeps back what tfds says while it reads and writes; how far the work is can still be heard."""

import contextlib
import io
import sys
import threading
from collections.abc import Iterator

from absl import logging


class OfOthers(io.StringIO):
    """In the place of sys.stdout: passes on what threads print other than that which made it."""

    def __init__(self) -> None:
        """Pass on to what is sys.stdout now."""
        super().__init__()
        self._stdout, self._own = sys.stdout, threading.get_ident()

    def write(self, text: str) -> int:
        """Pass on a text, but none of the own thread."""
        if threading.get_ident() != self._own:
            self._stdout.write(text)
        return len(text)

    def flush(self) -> None:
        """Have what was passed on appear."""
        self._stdout.flush()


@contextlib.contextmanager
def quiet(ours: bool = False) -> Iterator[None]:
    """Keep back the many INFO lines of tfds.

    ours: of our own data sets also its warnings and progress bars, and what it prints. Heartbeats,
      the one around this, too, print in threads of their own, and are heard.
    """
    import tensorflow_datasets as tfds  # here, not above: importing the pipeline must stay quick

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR if ours else logging.WARNING)
    try:
        with contextlib.ExitStack() as stack:
            if ours:
                tfds.disable_progress_bar()
                stack.callback(tfds.enable_progress_bar)
                stack.enter_context(contextlib.redirect_stdout(OfOthers()))
            yield
    finally:
        logging.set_verbosity(verbosity)
