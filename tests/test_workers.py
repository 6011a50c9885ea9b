"""Worker processes: the batches of threads, bit for bit; no worker outlives the run.

Those of one test are started once, as they take seconds to start.
"""

import contextlib
import dataclasses
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import numpy as np
import psutil
import pytest
from test_pipeline import assert_same, folder_of, take

from evqgan.core.errors import InputError
from evqgan.data import decoded, pipeline, workers
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import DecodedImages
from evqgan.data.pipeline import open_split, train_batches

# A run that reads with two workers, tells their ids, and reads on until it is ended.
RUN = """
from evqgan.data.dataset import Dataset
from evqgan.data.pipeline import train_batches
batches = train_batches(Dataset(name="generated", size=64, workers=2), 64, 0)
next(batches)
try:
    print(*batches.pids(), flush=True)
    for batch in batches:
        pass
except KeyboardInterrupt:
    batches.close()
"""


def folder(tmp_path, broken=(), **keys):
    path = folder_of(tmp_path, 20, broken=broken)
    return Dataset(**{"folder": path, "train": "all", "size": 8, **keys})


def skipped(caplog):
    messages = [record.getMessage() for record in caplog.records]
    return sorted(message for message in messages if "Skipped" in message)


def gone(pids, seconds=workers.PATIENCE + 60):
    """Whether the processes end within so many seconds."""
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


class WithBackends:
    """The batches of training, each with whether JAX had started after it was made."""

    def __init__(self, examples, dataset):
        self.batches = pipeline.training_stream(examples, dataset, 4, 0, None)

    def __getitem__(self, number):
        batch = self.batches[number]
        from jax._src import xla_bridge

        return {**batch, "started": xla_bridge.backends_are_initialized()}


@dataclasses.dataclass
class Stream:
    dataset: Dataset

    def __call__(self, examples):
        return WithBackends(examples, self.dataset)


def test_workers_make_the_batches_of_threads_from_any_start(tmp_path, caplog):
    dataset = folder(tmp_path, broken=[5], crop="random_resized")
    rows = np.array([1, 3, 4])
    expected = take(train_batches(dataset, 8, 3, start=4, rows=rows), 9)
    named = skipped(caplog)
    caplog.clear()
    decoded.named.clear()  # as in a process of its own
    two = dataclasses.replace(dataset, workers=2)
    with contextlib.closing(train_batches(two, 8, 3, start=4, rows=rows)) as batches:
        assert_same([next(batches) for _ in range(9)], expected)
        assert batches.skipped() == 1  # whichever worker met it, and both did
        pids = batches.pids()
        assert len(set(pids)) == 2 and all(map(alive, pids))
    assert skipped(caplog) == named and "005.png: expected an image" in named[0]
    assert not any(map(psutil.pid_exists, pids))  # ended, and waited for


def test_a_worker_never_starts_jax_and_its_end_is_told_in_a_line(tmp_path):
    dataset = folder(tmp_path)
    examples = DecodedImages(open_split(dataset, "all"), 0.0)
    with contextlib.closing(workers.Workers(Stream(dataset), examples, 0, 1)) as batches:
        assert next(batches)["started"] is False
        batches.processes[0].kill()
        with pytest.raises(InputError, match=r"worker processes .* ended \(SIGKILL\).* fewer") as e:
            for _ in range(100):  # those that were sent before it died
                next(batches)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_no_worker_outlives_the_run(number):
    """Of kill -9, nobody can tell them: they find out."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        for pid in pids:
            if number != signal.SIGKILL:  # as a scheduler does, which signals all of a job
                os.kill(pid, number)
        os.killpg(process.pid, number)
        assert gone(pids)
        _, said = process.communicate(timeout=20)
        others = [line for line in said.splitlines() if not line.startswith("WARNING:absl:Grain")]
        assert not others and process.returncode in (0, -number)
    finally:
        process.kill()


def test_a_worker_ends_when_the_parent_does_before_it_has_said_anything():
    ours, theirs = socket.socketpair()
    with theirs:
        process = workers._start(theirs, 0, 1)
    ours.close()
    assert process.wait(20) == 0


@pytest.mark.parametrize("safe", [False, True])
def test_a_worker_looks_for_modules_where_its_parent_does(monkeypatch, safe):
    flags = types.SimpleNamespace(safe_path=safe)
    python = types.SimpleNamespace(executable="python", path=["/of/parent"], flags=flags)
    monkeypatch.setattr(workers, "sys", python)
    monkeypatch.setattr(workers.subprocess, "Popen", lambda command, env, **how: (command, env))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command, env = workers._start(theirs, 0, 1)
    assert ("-P" in command) == safe and command.index("-m") == 1 + safe
    assert env["PYTHONPATH"] == "/of/parent"


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("name", ["generated", "digits", "drawings"])
def test_any_number_of_workers_makes_the_same_batches(name, number, tmp_path):
    dataset = Dataset(name=name, size=64, data_dir=str(tmp_path))
    pipeline.prepare(dataset)
    expected = take(train_batches(dataset, 6, 1, start=7), 12)
    of_number = dataclasses.replace(dataset, workers=number)
    assert_same(take(train_batches(of_number, 6, 1, start=7), 12), expected)


@pytest.mark.slow
def test_too_many_broken_images_stop_with_the_words_of_threads(tmp_path, caplog):
    dataset = folder(tmp_path, broken=[3, 4, 5], max_bad=0.1, workers=2)
    message = "3 of 20 images do not decode, .*max_bad = 0.1; the last was .*png: .*; repair"
    with pytest.raises(InputError, match=message) as caught:
        take(train_batches(dataset, 4, seed=0), 30)
    assert "\n" not in str(caught.value) and len(skipped(caplog)) == 2


# Without processes: what they are made of.


def test_values_arrive_as_they_were_sent_with_arrays_that_can_be_written():
    value = {"image": np.arange(3 * 2**20, dtype=np.uint8), "label": np.arange(4), "x": (1, "a")}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=workers.send, args=(theirs, workers.packed(value)))
        sender.start()
        found = workers.received(ours)
        sender.join()
        for key in ("image", "label"):
            np.testing.assert_array_equal(found[key], value[key])
            assert found[key].dtype == value[key].dtype and found[key].flags.writeable
        assert found["x"] == value["x"]
        theirs.close()
        with pytest.raises(EOFError):
            workers.received(ours)


def test_a_worker_sends_errors_and_what_it_found_before(tmp_path):
    dataset = folder(tmp_path, broken=[0, 1, 2], max_bad=1.0)
    examples = DecodedImages(open_split(dataset, "all"), 1.0)
    examples = pickle.loads(pickle.dumps(examples))
    stream = pipeline.training_stream(examples, dataset, 20, 0, None)
    first, second = (workers._make(stream, examples, number) for number in (0, 1))
    assert len(first.bad) == 3 and second.bad == [] and first.batch["image"].shape[0] == 20
    assert all("expected an image" in reason for _, reason in first.bad)

    class Refusing:
        def __getitem__(self, number):
            examples.count_bad(number, "why")
            raise (InputError("a line"), KeyError("a defect"))[number % 2]

    fine = sorted(set(range(20)) - set(examples.bad))
    even, odd = (next(i for i in fine if i % 2 == r) for r in (0, 1))
    made = workers._make(Refusing(), examples, even)
    assert (made.batch, made.error, made.defect) == (None, "a line", "")
    assert made.bad == [(even, "why")]
    made = workers._make(Refusing(), examples, odd)
    assert made.error == "" and "KeyError: 'a defect'" in made.defect


def test_a_number_below_0_is_refused():
    with pytest.raises(InputError, match="dataset.workers expects a whole number from 0, got -1"):
        Dataset(name="digits", workers=-1)
