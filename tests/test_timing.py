"""Where the time of a run goes: rates of steps, waits for data, saves, what is lost."""

import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from evqgan.data.dataset import Dataset
from evqgan.training import reporting, timing
from evqgan.training.timing import StepTimer


class Clock:
    """A clock that shows `now`."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def timer_of(clock, **keys):
    timer = StepTimer(5000, 64, clock=clock, **keys)
    timer.ends.close()  # its thread would read the clock when it likes
    return timer


def test_the_progress_line(clock):
    timer = timer_of(clock)
    assert timer.line(1, {"train/loss": 2.5}) == "step 1/5,000  loss 2.5" and timer.perf(1) == {}
    clock.now = 100.0
    timer.account()
    timer.start(1000)
    clock.now += 200 * 0.231
    line = timer.line(1200, {"train/loss": np.float32(1.2341), "perf/step_seconds": 9.0})
    assert line == "step 1,200/5,000  loss 1.234  231 ms/step  277 images/s  ETA 14m38s"


def test_what_is_no_step_does_not_count(clock):
    timer = timer_of(clock)
    timer.start(1)
    clock.now = 2.0
    with timer.spend("evaluation"):
        clock.now = 9.0
    clock.now = 12.0  # 5 of 12 seconds for 3 steps
    perf = timer.perf(4)
    assert perf["perf/step_seconds"] == pytest.approx(5 / 3)
    assert perf["perf/images_per_second"] == pytest.approx(3 * 64 / 5)
    assert timer.perf(4) == perf
    clock.now = 22.0
    assert timer.perf(9)["perf/step_seconds"] == 2.0


def test_a_models_own_metrics_come_before_those_of_every_model(monkeypatch):
    monkeypatch.setattr(reporting, "StepTimer", lambda *args: None)
    stage = SimpleNamespace(progress_keys=("l2", "absent"))
    setup = SimpleNamespace(
        stage=stage,
        config=ConfigDict({"batch_size": 1}),
        length=SimpleNamespace(total=2),
        flops_at=None,
        workdir=None,
    )
    monkeypatch.setattr(reporting, "highest", lambda *args: {})
    monkeypatch.setattr(reporting.cards, "latest", lambda *args: None)
    reporter = reporting.Reporter(setup, None, {"skipped": [0, 0, 0], "step": 0}, 0.0)
    given = ["gradient_norm", "l2", "learning_rate", "loss", "masked", "skipped"]
    given += ["skipped_in_a_row", "skipped_longest", "z_loss"]
    names = reporter.fetch(1, dict.fromkeys(given, 0.0))
    shown = [name.removeprefix("train/") for name in names]
    assert shown[:4] == ["loss", "l2", "masked", "z_loss"]
    assert shown[4:6] == ["gradient_norm", "learning_rate"] and len(shown) == len(given)


def test_the_eta_counts_what_goes_on_to_come_between_steps(clock):
    timer = timer_of(clock)
    with timer.spend("compiling"):
        clock.now = 50.0
    timer.start(1000)
    with timer.spend("save"):
        clock.now += 30.0
    with timer.spend("compiling"):  # the step with the critic: once
        clock.now += 70.0
    clock.now += 100.0  # of 100 steps: 1 s each, and 0.3 s of saving
    assert timer.line(1100, {}).endswith("ETA 1h24m")  # 3,900 x 1.3 s
    clock.now += 100.0
    assert timer.line(1200, {}).endswith("ETA 1h12m")  # 3,800 x 1.15 s


def test_seconds_are_told_by_what_they_went_into(clock):
    """Of the 100 seconds since the run began, whatever the moment at which a step is begun."""
    clock.now = 40.0
    timer = timer_of(clock, began=30.0)
    with timer.spend("compiling"):
        clock.now = 60.0
    timer.start(1)
    clock.now = 90.0
    with timer.spend("save"):
        clock.now = 100.0
    line = timer.line(11, {"train/loss": 1.0})
    perf = timer.perf(11)
    spent = {name[11:]: x for name, x in perf.items() if name.startswith("perf/spent_")}
    assert spent == {
        "compute": 30.0,
        "data": 0.0,
        "save": 10.0,
        "evaluation": 0.0,
        "profile": 0.0,
        "compiling": 20.0,
        "starting": 0.0,
    }
    assert "compiling 33%" in line and "save 17%" in line and "compute" not in line
    clock.now = 130.0
    assert timer.summary() == "1m40s: compute 60%, save 10%, compiling 20%, starting 10%"


def test_a_wait_for_data_counts_when_the_devices_have_nothing_to_do(clock):
    timer = timer_of(clock)
    timer.start(0)
    timer.ends.number, timer.ends.at = 0, 0.0
    with timer.waiting(1):  # step 1 is still computed
        clock.now = 5.0
    timer.ends.number, timer.ends.at = 2, 7.0
    clock.now = 6.0
    with timer.waiting(2):  # from its end at 7 on
        clock.now = 10.0
    perf = timer.perf(3)
    assert perf["perf/spent_data"] == 3.0 and perf["perf/step_seconds"] == pytest.approx(10 / 3)
    assert timer.waited(perf) == "the devices waited for data in 30% of the last 10s of steps"
    clock.now = 100.0
    assert timer.waited(timer.perf(9)) == ""


def test_mfu_is_that_of_the_step_that_was_taken(clock):
    timer = timer_of(clock, flops=lambda step: 50.0 if step < 10 else 100.0, peak=200.0)
    timer.start(0)
    clock.now = 5.0
    assert timer.perf(10)["perf/mfu"] == pytest.approx(0.5)
    clock.now = 15.0
    assert "MFU 50.0%" in timer.line(20, {})
    assert "perf/mfu" not in timer_of(Clock(), flops=lambda step: 50.0).perf(0)


class Array:
    """Stands for an array that is there once `computed` is set."""

    def __init__(self):
        self.computed = threading.Event()

    def block_until_ready(self):
        assert self.computed.wait(10)
        return self


def until(true):
    """Wait until `true()` holds."""
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("never so")


def test_the_ends_of_steps_are_noted_as_they_come():
    clock = Clock()
    ends = timing.StepEnds(clock)
    arrays = [Array() for _ in range(4)]
    for number, array in enumerate(arrays, 1):
        ends.took(number, array)
    assert ends.number == -1
    for number, at in ((1, 10.0), (2, 13.0), (3, 14.0)):
        clock.now = at
        arrays[number - 1].computed.set()
        until(lambda number=number: ends.number == number)
        assert ends.at == at
    assert ends.longest == 3.0  # the time to the first is not a step's
    ends.interrupt()  # an evaluation comes between
    clock.now = 100.0
    arrays[3].computed.set()
    until(lambda: ends.number == 4)
    assert ends.longest == 3.0
    ends.close()
    ends._thread.join(10)
    assert not ends._thread.is_alive()


def test_a_step_that_failed_has_ended():
    class Failed:
        def block_until_ready(self):
            raise RuntimeError("of the device")

    ends = timing.StepEnds()
    ends.took(1, Failed())
    until(lambda: ends.number == 1)
    ends.close()


def test_steps_that_are_taken_again_are_told(tmp_path):
    assert timing.lost(tmp_path, 0) == ""
    lines = [
        {"step": 100, "perf/step_seconds": 1.0},
        {"step": 150, "perf/step_seconds": 2.0},
        {"step": 150, "val/mse": 0.5},
        {"step": 180, "perf/step_seconds": 1.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert timing.lost(tmp_path, 180) == ""
    told = timing.lost(tmp_path, 100)
    assert told.startswith("80 steps after step 100, 2m10s of work, had been taken before")


@pytest.mark.parametrize("is_of_folder", [False, True])
def test_advice_for_a_run_that_waits_can_be_followed(tmp_path, is_of_folder):
    """The config of both stages in one go reads neither record files nor stored ids."""
    if is_of_folder:
        (tmp_path / "plan.json").write_text("{}")
    stage = SimpleNamespace(data_advice="for a new run store ids (config.dataset.codes)")
    setup = SimpleNamespace(
        dataset=Dataset(folder="x"), stage=stage, workdir=tmp_path / "generator"
    )
    said = reporting.Reporter.advice(SimpleNamespace(setup=setup))
    assert ("dataset.codes" in said) != is_of_folder and "config.dataset.workers" in said
    assert ("train both stages one by one" in said) == is_of_folder and "new run" in said
