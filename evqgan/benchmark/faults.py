"""Runs that faults end, again and again, at random moments: do they end with the right bits?

A small run of either stage, by one or several processes on this machine, is

kill     killed with -9, whatever it does just then: compiling, saving, evaluating
SIGTERM, SIGINT, SIGHUP  asked to stop
disk     given a full disk (no file may grow any more)
lost     one of several processes is killed
stuck    one process is stopped, and goes on: of several, once the others have ended
data     a file of images disappears
clock    the clock jumps by a day, forwards or back

and started again until it ends. What is compared with a run that nothing interrupted: the checksums
of all arrays of the last checkpoint, all lines of metrics.jsonl but for times, and that nothing is
left over. "seconds" are those that one fault costs, the start of a new process included; "longest"
those that processes took to end after it. On two cores twenty kills take a quarter of an hour.
"""

import pathlib
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from evqgan.benchmark import fault_runs
from evqgan.benchmark.fault_runs import Case
from evqgan.core import signals
from evqgan.core.cli import PATH, TEXTS, Flag, whole
from evqgan.core.errors import InputError
from evqgan.core.progress import duration, say

LATEST = 1.5  # ours: the last moment of a kill, in times of a whole run
DAY = 86400.0
FLAGS = (
    Flag("out", PATH, (), "where the runs are, with a log each", required=True),
    Flag("stages", TEXTS, (), "1, 2 or both (1,2)", ["1", "2"]),
    Flag("processes", TEXTS, (), "numbers of processes of a run (1)", ["1"]),
    Flag("faults", TEXTS, (), "which of them (all)"),
    Flag("kills", whole(1), (), "how many kills (20)", 20),
    Flag("times", whole(1), (), "how often each other fault comes (2)", 2),
    Flag("seed", whole(0), (), "of the moments (0)", 0),
)

Started = list[subprocess.Popen]


class Fault(NamedTuple):
    """What happens to a run.

    strike: does it; given the processes, the case and dice.
    codes: the exit codes that a process may have then, beside 0 of one that was through before; an
      empty tuple is any but 0.
    mend: undoes it before the run is started again.
    several: whether it takes several processes.
    """

    strike: Callable[[Started, Case, random.Random], None]
    codes: tuple[int, ...] = ()
    mend: Callable[[Case], None] = lambda case: None
    several: bool = False


def send(number: int) -> Callable[[Started, Case, random.Random], None]:
    """Return what sends a signal to all processes."""

    def strike(started: Started, case: Case, dice: random.Random) -> None:
        for process in started:
            process.send_signal(number)

    return strike


def fill(started: Started, case: Case, dice: random.Random) -> None:
    """Let no file of the processes grow beyond a few bytes, as on a full disk."""
    for process in started:
        if process.poll() is None:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (64, most))


def lose(started: Started, case: Case, dice: random.Random) -> None:
    """Kill one of the processes."""
    dice.choice(started).send_signal(signal.SIGKILL)


def stop(started: Started, case: Case, dice: random.Random) -> None:
    """Stop one of the processes until the others have ended; one that is alone for a while."""
    one = dice.choice(started)
    one.send_signal(signal.SIGSTOP)
    if others := [process for process in started if process is not one]:
        passed(others, fault_runs.PATIENCE)
    else:
        time.sleep(2 * fault_runs.STALL)
    one.send_signal(signal.SIGCONT)


def hidden(case: Case) -> pathlib.Path:
    """Return where a file of images is while it is hidden."""
    return case.place / "hidden.png"


def hide(started: Started, case: Case, dice: random.Random) -> None:
    """Take a file of images away, once the run has noted which there are.

    Before, it would be a run of other images.
    """
    noted = case.running / "config.json"
    while not noted.is_file() and any(process.poll() is None for process in started):
        time.sleep(0.05)
    dice.choice(sorted((case.place / "images").rglob("*.png"))).rename(hidden(case))


def bring_back(case: Case) -> None:
    """Put the file of images back under the name that is missing."""
    names = {f"{i:03d}.png" for i in range(fault_runs.IMAGES)}
    (missing,) = names - {path.name for path in (case.place / "images").rglob("*.png")}
    hidden(case).rename(case.place / "images" / "one" / missing)


FAULTS = {
    "kill": Fault(send(signal.SIGKILL), (-signal.SIGKILL,)),
    "SIGTERM": Fault(send(signal.SIGTERM), (128 + signal.SIGTERM, -signal.SIGTERM)),
    "SIGINT": Fault(send(signal.SIGINT), (128 + signal.SIGINT,)),
    "SIGHUP": Fault(send(signal.SIGHUP), (128 + signal.SIGHUP, -signal.SIGHUP)),
    "disk": Fault(fill),
    "lost": Fault(lose, several=True),
    "stuck": Fault(stop),
    "data": Fault(hide, mend=bring_back),
    # Of a save that is under way orbax thinks that it takes a day: it ends the run in a line.
    "clock": Fault(lambda started, case, dice: None, (2,)),
}


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each case and fault."""
    del overrides
    names = given.faults or [*FAULTS]
    if wrong := [name for name in names if name not in FAULTS]:
        raise InputError(f"--faults={wrong[0]}: expected some of {', '.join(FAULTS)}")
    cases = cases_of(given)
    rows = []
    for case in cases:
        say(f"stage {case.stage} by {case.processes}: a run that nothing interrupts")
        if not (case.straight / "checkpoints" / str(fault_runs.STEPS)).is_dir():
            case.finish(case.straight)
        case.seconds = case.finish(fresh(case.place / "timed"))  # with programs compiled before
        for name in names:
            if FAULTS[name].several and case.processes == 1:
                continue
            times = given.kills if name == "kill" else given.times
            rows.append(suffered(case, name, times, random.Random(f"{given.seed} {name}")))
            signals.note_done(f"{len(rows)} faults")
    return "what faults cost, and whether runs end with the right bits", rows


def cases_of(given: Any) -> list[Case]:
    """Return the cases that the flags ask for."""
    if wrong := [x for x in given.stages if x not in ("1", "2")]:
        raise InputError(f"--stages={wrong[0]}: expected 1, 2 or 1,2")
    if wrong := [x for x in given.processes if not x.isdecimal() or not 1 <= int(x) <= 8]:
        raise InputError(f"--processes={wrong[0]}: expected numbers from 1 to 8, such as 1,2,4")
    out = pathlib.Path(given.out)
    pairs = [(int(n), int(stage)) for n in given.processes for stage in given.stages]
    return [fault_runs.made(stage, number, out) for number, stage in pairs]


def fresh(workdir: pathlib.Path) -> pathlib.Path:
    """Return a workdir that is not there: beside that of an earlier command, one with a number."""
    names = (workdir.with_name(f"{workdir.name}{n or ''}") for n in range(10**6))
    return next(path for path in names if not path.exists())


def struck(
    case: Case, name: str, workdir: pathlib.Path, moment: float, dice: random.Random
) -> tuple[list[int | None], float | None]:
    """Start a run, to which a fault happens after so many seconds, and wait for its end.

    Return the exit codes, and the seconds that it took after the fault; None where it had ended
    before.
    """
    fault = FAULTS[name]
    clock = (dice.choice((DAY, -DAY)), moment) if name == "clock" else None
    started = case.start(workdir, clock)
    try:
        if not clock and passed(started, moment):
            return fault_runs.ends(started, fault_runs.PATIENCE), None
        began = time.monotonic()
        fault.strike(started, case, dice)
        codes = fault_runs.ends(started, fault_runs.PATIENCE)
        waited = time.monotonic() - began
    finally:  # where this command is stopped, its runs end, too
        fault_runs.ends(started, 0.0)
    fault.mend(case)
    return codes, waited


def suffered(case: Case, name: str, times: int, dice: random.Random) -> dict[str, Any]:
    """Return the row of a run to which a fault happens so many times."""
    fault, workdir = FAULTS[name], fresh(case.place / name)
    began, longest, wrong = time.monotonic(), 0.0, []
    for number in range(times):
        moment = moment_of(name, number, case.seconds, dice)
        codes, waited = struck(case, name, workdir, moment, dice)
        if waited is not None:
            if waited > fault_runs.PATIENCE:
                wrong.append(f"hung for {duration(waited)}")
            if name != "clock":  # of which the moment is not known
                longest = max(longest, waited)
        if fault.codes and not {0, *fault.codes}.issuperset(codes):
            wrong.append(f"exit codes {codes}")
        where = f"{name} {number + 1}/{times} after {duration(moment)}"
        say(f"stage {case.stage} by {case.processes}: {where}: exit codes {codes}")
    try:
        case.finish(workdir)
        wrong += differences(case, workdir)
    except InputError as error:
        wrong.append(str(error))
    outcome, spent = "; ".join(wrong) or "the same bits", time.monotonic() - began - case.seconds
    say(f"stage {case.stage} by {case.processes}: {name}: {outcome}")
    return {
        "stage": case.stage,
        "processes": case.processes,
        "fault": name,
        "times": times,
        "outcome": outcome,
        "seconds": round(spent / times, 1),
        "longest": round(longest, 1),
    }


def moment_of(name: str, number: int, seconds: float, dice: random.Random) -> float:
    """Return after how many seconds a fault comes, the `number`-th of its kind.

    Kills come at any moment, and less is left to do after each; others while there is work.
    seconds: of a whole run.
    """
    if name == "kill":
        return dice.uniform(0, LATEST * seconds / (1 + number / 4))
    return dice.uniform(0.2, 0.9) * seconds / (1 + number / 2)


def passed(started: Started, seconds: float) -> bool:
    """Wait so many seconds, or until all processes have ended; return whether they have."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all(process.poll() is not None for process in started):
            return True
        time.sleep(0.01)
    return False


def differences(case: Case, workdir: pathlib.Path) -> list[str]:
    """Return in words how a finished run differs from the one that nothing interrupted."""
    found = []
    if fault_runs.bits(workdir) != fault_runs.bits(case.straight):
        found.append("other bits")
    if fault_runs.metrics(workdir) != fault_runs.metrics(case.straight):
        found.append("other metrics")
    if left := fault_runs.left_over(workdir):
        found.append(f"left over: {', '.join(left)}")
    return found
