"""A run that is stuck ends with all stacks, and one that is slow does not."""

import os
import signal
import subprocess
import sys
import threading
import time
import types

import psutil
import pytest
import test_stage2

from evqgan.core import cluster
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.training import loop, watchdog


def timer(number=0, part="", longest=0.0):
    return types.SimpleNamespace(
        ends=types.SimpleNamespace(number=number, longest=longest), part=part
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(watchdog, "TICK", 0.02)


def said_of(steps, seconds, body):
    """What is said of steps that `body` takes, of which a second is taken for stuck."""
    said = []
    with watchdog.watching(steps, seconds, said.append):
        body()
    return said


def test_nothing_is_said_while_steps_end(quick):
    steps = timer()

    def body():
        for _ in range(20):
            steps.ends.number += 1
            time.sleep(0.03)

    assert said_of(steps, 0.3, body) == []
    assert said_of(timer(), 0.0, lambda: time.sleep(0.3)) == []


def test_it_is_said_once_when_no_step_ends(quick):
    said = said_of(timer(7, "data"), 0.1, lambda: time.sleep(0.5))
    assert len(said) == 1
    assert said[0].startswith("no step has ended for 0s: waiting for data after step 7")


def test_a_process_that_was_stopped_has_not_waited(quick, monkeypatch):
    """Its clock jumps by an hour, as after Ctrl-Z and fg."""
    jumps = iter([0.0, 0.0, 3600.0])
    now = [0.0]

    def monotonic():
        now[0] += next(jumps, 0.0) + 0.001
        return now[0]

    monkeypatch.setattr(watchdog.time, "monotonic", monotonic)
    ended = threading.Event()
    said = []
    watched = timer(), 1.0, said.append, ended, str
    thread = threading.Thread(target=watchdog._watch, args=watched)
    thread.start()
    threading.Event().wait(0.4)
    ended.set()
    thread.join()
    assert now[0] > 3600 and said == []


def test_slow_steps_and_what_is_no_step_have_longer(monkeypatch):
    assert watchdog.patience(timer(), 60.0) == 60.0
    assert watchdog.patience(timer(longest=30.0), 60.0) == 300.0
    assert watchdog.patience(timer(part="data", longest=1.0), 60.0) == 60.0
    assert watchdog.patience(timer(part="evaluation"), 60.0) == float("inf")
    monkeypatch.setattr(cluster, "several", lambda: True)
    assert watchdog.patience(timer(part="compiling"), 60.0) == 3600.0


def test_of_several_processes_each_is_told_where_it_stands(monkeypatch):
    noted = []
    monkeypatch.setattr(cluster, "several", lambda: True)
    monkeypatch.setattr(cluster, "post_position", noted.append)
    monkeypatch.setattr(cluster, "positions", lambda: dict(zip("ABC", noted, strict=True)))
    watchdog.tell(timer(12), "")
    watchdog.tell(timer(11, "data"), "process 7 of config.dataset.workers")
    watchdog.tell(timer(-1), "process 7 of config.dataset.workers")  # a batch that came meanwhile
    assert watchdog.stuck(timer(12), 61.0, "") == (
        "no step has ended for 1m01s: A is taking steps after step 12; B is waiting for data from "
        "process 7 of config.dataset.workers after step 11; C is taking steps after step 0"
    )


def test_a_run_whose_data_do_not_come_is_told_of_and_could_be_ended(tmp_path, quick, monkeypatch):
    config = test_stage2.config_of()
    config.update({"duration": "6 steps", "log_every": "1 step", "evals": {}, "stall": 0.3})
    take, taken, free = pipeline.Batches.__next__, [], threading.Event()

    def take_or_wait(self):
        taken.append(1)
        assert len(taken) < 4 or free.wait(60)
        return take(self)

    said = []
    monkeypatch.setattr(pipeline.Batches, "__next__", take_or_wait)
    monkeypatch.setattr(watchdog, "end_process", lambda text: (said.append(text), free.set()))
    state = loop.train(config, tmp_path)
    assert int(state["step"]) == 6
    assert len(said) == 1 and "waiting for data after step 3" in said[0]


def test_a_worker_that_is_stopped_is_named_and_does_not_outlive_the_run(
    tmp_path, quick, monkeypatch
):
    config = test_stage2.config_of()
    # A socket holds dozens of such small batches, made before the worker stops.
    config.update({"duration": "900 steps", "eval_every": "900 steps", "evals": {}, "stall": 1.0})
    config.dataset.update({"workers": 2})
    take, pids = pipeline.Batches.__next__, []

    def take_or_stop(self):
        batch = take(self)
        if not pids:
            pids.extend(self.pids())
            os.kill(pids[1], signal.SIGSTOP)
        return batch

    said = []
    monkeypatch.setattr(pipeline.Batches, "__next__", take_or_stop)
    monkeypatch.setattr(watchdog, "end_process", said.append)
    # The process goes on here where `end_process` would have ended it.
    with pytest.raises(InputError, match="one of the 2 worker processes .* ended .SIGKILL"):
        loop.train(config, tmp_path)
    assert len(said) == 1
    assert f"waiting for data from process {pids[1]} of config.dataset.workers" in said[0]
    assert len(pids) == 2 and not any(map(psutil.pid_exists, pids))


def test_the_end_has_the_stacks_of_all_threads():
    code = (
        "import threading\n"
        "from evqgan.training import watchdog\n"
        "def in_the_way(): threading.Event().wait()\n"
        "threading.Thread(target=in_the_way, daemon=True).start()\n"
        "watchdog.end_process('it is stuck')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("stuck: it is stuck (config.stall); stacks follow")
    assert "in_the_way" in done.stderr and "end_process" in done.stderr
