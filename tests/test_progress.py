"""Lines that say how far work is: rates without pauses and compilation, and the time left."""

import re
import time

import pytest

from evqgan.core import progress
from evqgan.core.progress import Progress, duration, heartbeat


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
    with heartbeat("reading", said.append, unit="images") as at:
        at(10, 10)
        time.sleep(0.6)
    assert re.fullmatch(r"still reading, \d+s, 10/10  [\d.,e+]+ images/s  ETA 0s", said[0])
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
