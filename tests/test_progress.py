"""Lines that say how far work is: rates without pauses and compilation, and the time left."""

import time

import numpy as np
import pytest

from evqgan.core import progress
from evqgan.core.progress import Progress, StepTimer, duration, heartbeat


def clocked(*times):
    """A clock that shows these times one after the other."""
    times = iter(times)
    return lambda: next(times)


def test_the_progress_line():
    progress = StepTimer(
        5000, 64, clock=clocked(0.0, 100.0, 100.0 + 200 * 0.231, 100.0 + 200 * 0.231)
    )
    assert (
        progress.line(1, {"train/loss": 2.5}) == "step 1/5,000  loss 2.5" and progress.perf(1) == {}
    )
    progress.start(1000)
    line = progress.line(1200, {"train/loss": np.float32(1.2341), "perf/step_seconds": 9.0})
    assert line == "step 1,200/5,000  loss 1.234  231 ms/step  277 images/s  ETA 14m38s"


def test_pauses_and_compilation_do_not_count():
    progress = StepTimer(100, 10, clock=clocked(50.0, 52.0, 59.0, 60.0, 60.0, 70.0, 71.0))
    progress.start(1)  # at 50, when the first step has compiled
    with progress.pause():  # 52 to 59
        pass
    progress.line(4, {})  # at 60: 3 of 10 seconds for 3 steps
    assert progress.perf(4) == {"perf/step_seconds": 1.0, "perf/images_per_second": 10.0}
    # No pause in this interval.
    assert progress.perf(9) == {"perf/step_seconds": 2.0, "perf/images_per_second": 5.0}


def test_large_rates_are_written_out():
    progress = StepTimer(10, 4096, clock=clocked(0.0, 2.0, 2.0))
    progress.start(0)
    assert progress.line(8, {}) == "step 8/10  250 ms/step  16,384 images/s  ETA 0s"


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (192, "3m12s"),
        (3600, "1h00m"),
        (7500, "2h05m"),
        (273600, "3d04h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_progress_counts_from_where_it_goes_on(capsys):
    report = Progress("sample", compiling=lambda: 4.14)
    report(10, 30, 0.0)
    report(14, 30, 2.0)
    report(30, 30, 5.0)
    assert capsys.readouterr().out.splitlines() == [
        "going on from 10/30",
        "compiled in 4.1 s",
        "sample 14/30  2 images/s  ETA 8s",
        "sample 30/30  4 images/s  ETA 0s",
    ]
    assert report.total == 30 and report.rate == "4 images/s"


def test_progress_comes_every_few_seconds_and_at_the_end(capsys):
    report = Progress("edit", "windows", every=5)
    for done, seconds in ((1, 4.0), (2, 8.0), (3, 12.0), (4, 16.0), (5, 16.5)):
        report(done, 5, seconds)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["2/5", "4/5", "5/5"]
    assert lines[0] == "edit 2/5  0.25 windows/s  ETA 12s"


def test_a_heartbeat_says_how_long_it_has_been():
    said = []
    with heartbeat("compiling", said.append, every=0.01):
        while len(said) < 2:
            time.sleep(0.01)
    number = len(said)
    assert set(said) == {"still compiling, 0s"}
    time.sleep(0.05)
    assert len(said) == number


def test_a_heartbeat_says_how_far_the_body_is_and_two_speak_as_one(monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.4)  # the first of `every` would come much later
    said = []
    with heartbeat("evaluating", said.append), heartbeat("measuring", said.append) as at:
        at(10, 10)
        time.sleep(0.6)
    assert said == ["still measuring, 0s, 10/10  ETA 0s"]
    said.clear()
    with heartbeat("evaluating", said.append):
        for _ in range(2):  # each too short to be heard of by itself
            with heartbeat("measuring", said.append):
                time.sleep(0.3)
    assert said == ["still measuring, 0s"]


def test_a_warning_is_printed_once_where_many_models_share_it(capsys):
    with progress.warnings_once():
        for text in ("few", "few", "none", "few"):
            progress.warn(text)
    progress.warn("few")
    assert capsys.readouterr().out == "WARNING few\nWARNING none\nWARNING few\n"
