"""Where the time of a run goes: steps, waits for data, saving, evaluating, compiling, ..."""

import contextlib
import json
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from evqgan.core.progress import counted, digits, duration, line

SHOWN = 6  # ours: metrics of training's line, so that it fits a terminal's width
# What a run does beside computing steps.
PARTS = ("data", "save", "evaluation", "profile", "compiling", "starting")
BETWEEN = ("save", "evaluation")  # of them, what goes on to come every so many steps
TOLD = 0.05  # ours: the share of the time from which on the line tells of a part
SLOW = 0.1  # ours: the share of the time of steps from which on a wait for data is warned of
LONG = 1.0  # ours: seconds; less is not worth a warning


class StepEnds:
    """Notes when each step ends on the devices; the loop that takes them need not wait for it.

    number, at: of the last step that has ended, and when, by `clock`.
    longest: the most seconds between the ends of two consecutive steps, not counting pairs with
      something else between them (`interrupt`).
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.number, self.at, self.longest = -1, clock(), 0.0
        self._clock, self._steady = clock, False
        self._taken: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._note, daemon=True)
        self._thread.start()

    def took(self, number: int, made: Any) -> None:
        """Take note of a step that was given to the devices.

        made: an array that it makes, and that nobody donates.
        """
        self._taken.put((number, made))

    def interrupt(self) -> None:
        """Say that something else than steps was done: the time to the next end is not a step's."""
        self._steady = False

    def close(self) -> None:
        """End the thread, which does not wait for steps that have not ended."""
        self._taken.put(None)

    def _note(self) -> None:
        while (taken := self._taken.get()) is not None:
            number, made = taken
            with contextlib.suppress(Exception):  # of a failed step, which the loop meets as well
                jax.block_until_ready(made)
            now = self._clock()
            if self._steady:
                self.longest = max(self.longest, now - self.at)
            self.number, self.at, self._steady = number, now, True


class StepTimer:
    """Measure training steps, and what else takes the time of a run, and say where a run stands.

    Call `start(step)` once the first step, whose time is compilation, has been waited for; without
    it, the first line starts the measuring.

    total_steps: of the run.
    batch_size: images a step.
    began: when the run began, by `clock`; what came before this is made counts as "starting".
    flops: returns the FLOPs of the step after so many steps on each device, 0 where not known.
    peak: the FLOPs that a device can do in a second, 0 where not known.
    clock: returns seconds.
    """

    def __init__(
        self,
        total_steps: int,
        batch_size: int,
        began: float | None = None,
        flops: Callable[[int], float] = lambda step: 0.0,
        peak: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.total_steps, self.batch_size, self._clock = total_steps, batch_size, clock
        self.part = ""  # what is done beside taking steps, one of PARTS
        self.ends = StepEnds(clock)
        self._flops, self._peak = flops, peak
        self._first: int | None = None  # where measuring began
        self._step: int | None = None  # where the interval under way began
        self._time = self._told = clock()  # when it began; until when time is accounted for
        self._spent = dict.fromkeys(PARTS, 0.0)  # since then
        self._paused = 0.0  # seconds of the interval in which no steps were taken
        self._began = self._told if began is None else began
        self.totals = {"compute": 0.0, **self._spent, "starting": self._told - self._began}
        self._perf: dict[str, float] = {}

    def start(self, step: int) -> None:
        """Begin an interval at `step`; what came before it is not measured."""
        self._first = step if self._first is None else self._first
        self._step, self._time, self._paused = step, self._clock(), 0.0

    @contextlib.contextmanager
    def spend(self, part: str) -> Iterator[None]:
        """Count the time of the body as that of one of PARTS, and not as that of steps."""
        before, self.part, began = self.part, part, self._clock()
        try:
            yield
        finally:
            seconds, self.part = self._clock() - began, before
            self._spent[part] += seconds
            self._paused += seconds
            self.ends.interrupt()

    @contextlib.contextmanager
    def waiting(self, step: int) -> Iterator[None]:
        """Count the time of the body in which the devices have nothing to do as a wait for data.

        It is part of the time of steps, and begins when step number `step` has ended.
        """
        before, self.part, began = self.part, "data", self._clock()
        try:
            yield
        finally:
            now, self.part = self._clock(), before
            if self.ends.number >= step:
                self._spent["data"] += now - max(began, self.ends.at)

    def perf(self, step: int) -> dict[str, float]:
        """Return the numbers "perf/..." of the interval to `step`, or {} where there is none.

        step_seconds and images_per_second are those of steps, waits for data included. mfu is
        the share of the devices' peak that the products of a step use. spent_compute and
        spent_PART say what all seconds since the last line went into.

        The interval, which began at `start` or at the last other `step`, ends there, and the next
        one begins; asked again for the same step, this returns the same.
        """
        if self._step is None:
            self.start(step)
        begun = step if self._step is None else self._step
        if step > begun:
            seconds = self._clock() - self._time - self._paused
            seconds = max(seconds, 1e-9) / (step - begun)  # a clock may stand
            rates = {"step_seconds": seconds, "images_per_second": self.batch_size / seconds}
            if self._peak and (work := self._flops(step - 1)):
                rates["mfu"] = work / seconds / self._peak
            self.start(step)
            spent = {f"spent_{part}": value for part, value in self.account().items()}
            self._perf = {f"perf/{name}": value for name, value in {**rates, **spent}.items()}
        return dict(self._perf)

    def account(self) -> dict[str, float]:
        """Return what the seconds since this was last called went into: "compute", and PARTS."""
        now, spent = self._clock(), self._spent
        rest = max(now - self._told - sum(spent.values()), 0.0)
        self._told, self._spent = now, dict.fromkeys(PARTS, 0.0)
        found = {"compute": rest, **spent}
        for part, seconds in found.items():
            self.totals[part] += seconds
        return found

    def line(self, step: int, metrics: Mapping[str, Any]) -> str:
        """Return "step 1,200/5,000  loss 1.234  231 ms/step  277 images/s  ETA 3m12s".

        The rate is that of `perf(step)`, and beside it stands what else took a larger part of the
        time than TOLD, such as "data 12 %". The ETA is by that rate, and by what saving and
        evaluating took since the run began, for each of its steps.

        step: where the run stands.
        metrics: {name: scalar}; the first SHOWN are shown, by the last part of their names, without
            those of perf/.
        """
        perf = self.perf(step)
        shown = [name for name in metrics if not name.startswith("perf/")][:SHOWN]
        parts = [f"{name.rsplit('/', 1)[-1]} {float(metrics[name]):.4g}" for name in shown]
        seconds = perf.get("perf/step_seconds")
        if seconds is not None and self._first is not None:
            slow = seconds >= 1
            parts.append(
                f"{digits(seconds)} s/step" if slow else f"{digits(seconds * 1000)} ms/step"
            )
            parts.append(f"{digits(perf['perf/images_per_second'])} images/s")
            if "perf/mfu" in perf:
                parts.append(f"MFU {perf['perf/mfu']:.1%}")
            spent = {part: perf[f"perf/spent_{part}"] for part in ("compute", *PARTS)}
            parts += shares(spent, TOLD, beside="compute")
            seconds += sum(self.totals[part] for part in BETWEEN) / (step - self._first)
        return line("step", step, self.total_steps, parts, seconds)

    def waited(self, perf: Mapping[str, float]) -> str:
        """Return a warning if steps waited too long for data in the interval of `perf`, else ""."""
        data, rest = perf.get("perf/spent_data", 0.0), perf.get("perf/spent_compute", 0.0)
        if data < max(SLOW * (data + rest), LONG):
            return ""
        return (
            f"the devices waited for data in {data / (data + rest):.0%} of the last "
            f"{duration(data + rest)} of steps"
        )

    def summary(self) -> str:
        """Return a line on what the time of the run went into since it began."""
        self.account()
        seconds = sum(self.totals.values())
        return f"{duration(seconds)}: {', '.join(shares(self.totals, 0.005))}"

    def close(self) -> None:
        """End the thread that notes when steps end."""
        self.ends.close()


def shares(spent: Mapping[str, float], least: float, beside: str = "") -> list[str]:
    """Return texts such as "data 12%" of what took at least the share `least` of all seconds.

    spent: {what: seconds}. beside: what of them is not told.
    """
    whole = sum(spent.values()) or 1.0
    told = {what: x / whole for what, x in spent.items() if what != beside and x >= least * whole}
    return [f"{what} {share:.0%}" for what, share in told.items()]


def lost(workdir: pathlib.Path, step: int) -> str:
    """Return a line on the steps that a run had taken after `step`, and takes again, or "".

    They are those of metrics.jsonl, before the run that goes on drops their lines.
    """
    last, seconds = step, 0.0
    for text in _lines(workdir / "metrics.jsonl"):
        try:
            found = json.loads(text)
            at, each = int(found["step"]), found.get("perf/step_seconds") or 0.0
        except (ValueError, TypeError, KeyError, AttributeError):  # cut short
            continue
        if at > last:
            seconds += each * (at - last)
            last = at
    if last == step:
        return ""
    had = (
        f"{counted(last - step, 'step')} after step {step:,}, {duration(seconds)} of work, had been"
    )
    return f"{had} taken before this run was ended: lost, and taken again"


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_bytes().decode("utf-8", "replace").splitlines() if path.exists() else []
