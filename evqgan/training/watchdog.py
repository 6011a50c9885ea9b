"""A watch over a run: if no step ends for too long, all stacks are printed and the process ends.

A process that is gone is found by JAX's heartbeats (`cluster.HEARTBEAT`); one that is there and
stuck, in a collective that others never join or in a file that never comes, by this.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax

from evqgan.core import cluster, ending
from evqgan.core.progress import duration
from evqgan.training.timing import StepTimer

TICK = 1.0  # ours: seconds between two looks
TELLING = 5  # ours: looks between two notes for the other processes
TIMES = 10  # ours: a step that takes so many times the longest one so far is stuck
# Ours: what is no step, such as an evaluation, may take so many times as long as a stuck step.
ELSEWHERE = 60
COORDINATING = 3.0  # ours: seconds in which the others learn from the first process who is behind
PARTS = {
    "": "taking steps",
    "data": "waiting for data",
    "save": "saving",
    "evaluation": "evaluating",
    "profile": "writing a trace",
    "compiling": "compiling",
}


@contextlib.contextmanager
def watching(
    timer: StepTimer,
    seconds: float,
    end: Callable[[str], None],
    awaited: Callable[[], str] = lambda: "",
) -> Iterator[None]:
    """Watch over the steps that `timer` measures in the body.

    seconds: without the end of a step after which `end` is called; slow steps have longer
      (`patience`). 0: never.
    end: is given a line that says what is stuck; called in a thread.
    awaited: returns in words from where data are waited for, "" where nothing is known.
    """
    ended = threading.Event()
    watched = timer, seconds, end, ended, awaited
    thread = threading.Thread(target=_watch, args=watched, daemon=True)
    if seconds:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if seconds:
            thread.join()


def _watch(
    timer: StepTimer,
    seconds: float,
    end: Callable[[str], None],
    ended: threading.Event,
    awaited: Callable[[], str],
) -> None:
    seen, since, looked = (-1, ""), 0.0, time.monotonic()
    told = TELLING
    while not ended.wait(TICK):
        now = time.monotonic()
        # A process that was stopped, or slept with its machine, has not waited meanwhile.
        since, looked = since + min(now - looked, 2 * TICK), now
        told += 1
        if told >= TELLING:
            told = 0
            tell(timer, awaited())
        if (timer.ends.number, timer.part) != seen:
            seen, since = (timer.ends.number, timer.part), 0.0
        elif since > patience(timer, seconds):
            end(stuck(timer, since, awaited()))
            return


def patience(timer: StepTimer, seconds: float) -> float:
    """Return after how many seconds without the end of a step something is stuck.

    What is no step has no end in a process that is alone: an evaluation may take hours.
    """
    if timer.part in ("", "data"):
        return max(seconds, TIMES * timer.ends.longest)
    return seconds * ELSEWHERE if cluster.several() else float("inf")


def doing(timer: StepTimer, awaited: str) -> str:
    """Return in words what is done after the last step that has ended."""
    of = f" from {awaited}" if awaited and timer.part == "data" else ""
    return f"{PARTS.get(timer.part, timer.part)}{of}"


def tell(timer: StepTimer, awaited: str) -> None:
    """Note for the other processes of the run where this one stands."""
    if cluster.several():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the main thread meets it, too
            cluster.post_position(f"{timer.ends.number} {doing(timer, awaited)}")


def stuck(timer: StepTimer, seconds: float, awaited: str) -> str:
    """Return a line that says what is stuck: this process, and of several where each stands."""
    what = f"{doing(timer, awaited)} after step {max(timer.ends.number, 0):,}"
    if not cluster.several():
        return f"no step has ended for {duration(seconds)}: {what}"
    try:
        places = {who: text.partition(" ") for who, text in cluster.positions().items()}
    except jax.errors.JaxRuntimeError:
        return f"no step has ended for {duration(seconds)}: {what}; the coordinator is gone"
    said = [
        f"{who} is {does} after step {max(int(number), 0):,}"
        for who, (number, _, does) in places.items()
    ]
    return f"no step has ended for {duration(seconds)}: {'; '.join(said)}"


def end_process(text: str) -> None:
    """Print a line and the stacks of all threads, and end the process with exit code 1."""
    then = "stacks follow; the same command goes on from the last checkpoint"
    with contextlib.suppress(OSError, ValueError):  # a full disk, or a stream that is no file
        print(f"stuck: {text} (config.stall); {then}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        sys.stdout.flush()
    ending.let_go()
    if cluster.several() and jax.process_index() == 0:
        time.sleep(COORDINATING)
    os._exit(1)
