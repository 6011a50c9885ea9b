"""How far work is, how fast it goes, and how long the rest takes, in one line."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator

FIRST = 10.0  # ours: seconds until a heartbeat is first heard


def duration(seconds: float) -> str:
    """Return seconds as people say them: 7s, 3m12s, 2h05m, 3d04h."""
    seconds = round(seconds)
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
    for size, unit, below, smaller in units:
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // below:02d}{smaller}"
    return f"{seconds}s"


def digits(value: float) -> str:
    """Return a positive number with three digits, or all before the point: 0.231, 23.1, 12,345."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def counted(number: int, what: str) -> str:
    """Return how many there are of what a word names: "1 image", "1,200 images", "9 classes"."""
    plural = "es" if what.endswith("s") else "s"
    return f"{number:,} {what}{'' if number == 1 else plural}"


_warned: list[set[str]] = []  # what was warned of, see `warnings_once`


@contextlib.contextmanager
def warnings_once() -> Iterator[None]:
    """Have `warn` print each text once in the body, as where many models share real images."""
    _warned.append(set())
    try:
        yield
    finally:
        _warned.pop()


def warn(text: str) -> None:
    """Print a line that begins with WARNING."""
    if not any(text in of_body for of_body in _warned):
        print(f"WARNING {text}", flush=True)
    for of_body in _warned:
        of_body.add(text)


def line(what: str, done: int, total: int, parts: Iterable[str], seconds_each: float | None) -> str:
    """Return a line such as "step 1,200/5,000  loss 1.234  277 images/s  ETA 3m12s".

    what: the work in a word.
    done, total: how much of it.
    parts: what stands in the middle.
    seconds_each: for one of `total`; None, when it is not known yet, leaves the last part out.
    """
    left = []
    if seconds_each is not None:
        left = [f"ETA {duration(seconds_each * max(total - done, 0))}"]
    return "  ".join([f"{what} {done:,}/{total:,}", *parts, *left])


def say(text: str) -> None:
    """Print a line at once, also where the output is a file."""
    print(text, flush=True)


_beating: list[Callable[[], str]] = []  # the lines of the heartbeats under way
_spoken = 0.0  # when one was heard last
_speaking = threading.Lock()


@contextlib.contextmanager
def heartbeat(
    what: str, say: Callable[[str], None] = say, every: float = 30.0, unit: str = ""
) -> Iterator[Callable[[int, int], None]]:
    """Say every few seconds that the body is "still compiling, 1m30s", or whatever `what` is.

    First after FIRST seconds, if `every` is longer. Of several, one within the other, the innermost
    is what is said, and no wait is told of twice.

    Yields a function at(done, total), which takes note of how far the body is: then a line has that
    too, and how long the rest takes, and how many a second of what `unit` names.
    """
    ended, began, how_far = threading.Event(), time.monotonic(), ""
    least = min(FIRST, every)

    def at(done: int, total: int) -> None:
        nonlocal how_far
        each = (time.monotonic() - began) / max(done, 1)
        rate = [f"{digits(1 / max(each, 1e-9))} {unit}/s"] if unit else []
        how_far = f", {line('', done, total, rate, each).strip()}" if done else ""

    def text() -> str:
        return f"still {what}, {duration(time.monotonic() - began)}{how_far}"

    def beat() -> None:
        global _spoken
        moments = itertools.chain([least] if every > least else [], itertools.count(every, every))
        while not ended.wait(began + next(moments) - time.monotonic()):
            with _speaking:
                if time.monotonic() - _spoken > least / 2:
                    _spoken = time.monotonic()
                    say(_beating[-1]())

    thread = threading.Thread(target=beat, daemon=True)
    _beating.append(text)
    thread.start()
    try:
        yield at
    finally:
        ended.set()
        thread.join()
        _beating.remove(text)


@contextlib.contextmanager
def announced(what: str) -> Iterator[Callable[[int, int], None]]:
    """Say what the body does, such as "compiling VQGAN", and then be a `heartbeat` of it."""
    say(what)
    with heartbeat(what) as at:
        yield at


class Progress:
    """Print how a piece of work goes on; called as report(done, total, seconds).

    what: the work in a word, such as "sample".
    unit: what is counted, in the plural.
    every: seconds between two lines; the last one always comes.
    compiling: returns the seconds that compiling has taken, which are said once.

    `total` is that of the last call, `rate` a text such as "277 images/s".
    """

    def __init__(
        self,
        what: str,
        unit: str = "images",
        every: float = 0.0,
        compiling: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.total, self.rate = 0, ""
        self._what, self._unit, self._every, self._compiling = what, unit, every, compiling
        self._start, self._printed, self._compiled = 0, 0.0, False

    def __call__(self, done: int, total: int, seconds: float) -> None:
        """Take note of how far the work is, and print a line if it is time for one.

        done, total: in units of the work.
        seconds: since it began, those of compiling not counted; 0 says that it goes on from `done`.
        """
        self.total = total
        if not seconds:
            self._start = done
            print(f"going on from {done:,}/{total:,}", flush=True)
            return
        if not self._compiled and self._compiling():
            print(f"compiled in {self._compiling():.1f} s", flush=True)
        each, self._compiled = seconds / max(done - self._start, 1), True
        self.rate = f"{digits(1 / each)} {self._unit}/s"
        if seconds - self._printed >= self._every or done == total:
            self._printed = seconds
            print(line(self._what, done, total, [self.rate], each), flush=True)
