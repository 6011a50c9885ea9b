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


class Abandoned(Exception):
    """Nobody listens to a piece of work any more, which ends by this."""


def events(work: Callable[[Callable[[Event], None]], Any]) -> Iterator[Event]:
    """Yield the events of `work(hand_over)` as they come, and at last one with its result.

    What it raises is raised here. When whoever listens has stopped, `hand_over` raises Abandoned
    for the work's next line of text, and so ends work that waits for its turn. Pictures come from
    within a computation, which goes on to its end; lines of other threads end nothing.
    """
    found: queue.SimpleQueue = queue.SimpleQueue()
    is_left = threading.Event()

    def hand_over(event: Event) -> None:
        if is_left.is_set():
            if event.line and threading.current_thread() is worker:
                raise Abandoned
            return
        found.put((event, None))

    def run() -> None:
        try:
            found.put((Event(result=work(hand_over)), None))
        except BaseException as error:
            found.put((None, error))

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        while True:
            event, error = found.get()
            if error:
                raise error
            yield event
            if event.result is not None:
                return
    finally:
        is_left.set()
