"""Work in a thread, with what it says and shows on the way."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    """What a piece of work hands over: a line of text, a picture, or at last what it made."""

    line: str = ""
    picture: Any = None
    result: Any = None


def events(work: Callable[[Callable[[Event], None]], Any]) -> Iterator[Event]:
    """Yield the events of `work(hand_over)` as they come, and at last one with its result.

    What it raises is raised here. Whoever stops to listen does not stop the work.
    """
    found: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put((Event(result=work(lambda event: found.put((event, None)))), None))
        except BaseException as error:
            found.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    while True:
        event, error = found.get()
        if error:
            raise error
        yield event
        if event.result is not None:
            return
