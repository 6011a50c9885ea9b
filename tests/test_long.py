"""A long run: its memory stays as it is, and no line comes twice, however often it is stopped."""

import json
import pathlib

import numpy as np
import pytest
import test_stage2
from tensorboardX.proto.event_pb2 import Event

from evqgan.training import loop

STEPS, EVALUATIONS = 2000, 50
SLOPE = 10.0  # ours: MiB in a thousand steps and 25 evaluations; a leak of a batch would be more


@pytest.mark.slow
def test_memory_is_flat_over_many_steps_and_evaluations(tmp_path, record_property):
    config = test_stage2.config_of(log_every="20 steps", checkpoint_every="200 steps")
    config.update({"duration": f"{STEPS} steps", "eval_every": f"{STEPS // EVALUATIONS} steps"})
    loop.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = [(x["step"], 1024 * x["perf/memory_gib"]) for x in lines if "perf/memory_gib" in x]
    steps, sizes = np.array([row for row in rows if row[0] > STEPS // 4]).T
    slope = 1000 * np.polyfit(steps, sizes, 1)[0]
    record_property("slope", slope)
    print(f"memory grows by {slope:.2f} MiB in 1,000 steps, {sizes[0]:.0f} to {sizes[-1]:.0f} MiB")
    assert len([x for x in lines if "val/cross_entropy" in x]) == EVALUATIONS
    assert slope < SLOPE


def events_of(workdir):
    """[(step, name)] of the numbers that TensorBoard shows: later files hide older ones' steps."""
    shown = []
    for file in sorted(
        pathlib.Path(workdir).glob("events*"), key=lambda path: path.stat().st_mtime
    ):
        data, at = file.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            if event.HasField("session_log"):  # which says that a run starts here
                shown = [(step, name) for step, name in shown if step < event.step]
            names = [x.tag for x in event.summary.value if x.HasField("simple_value")]
            shown += [(event.step, name) for name in names]
    return shown


def test_no_line_and_no_event_comes_twice_after_any_resume(tmp_path, monkeypatch):
    """The run is killed after every step, before which a checkpoint may be three steps old."""
    config = test_stage2.config_of(log_every="1 step", eval_every="4 steps")
    config.update({"duration": "8 steps", "checkpoint_every": "3 steps"})
    config.evals.generation.show = 0  # no sampler is compiled
    taken = []

    class Killed(BaseException):
        pass

    def stop_now(stopping, checkpoints, step):
        taken.append(step)
        checkpoints.wait()
        if taken.count(step) < 2 and step in (2, 4, 5, 7):
            raise Killed

    monkeypatch.setattr(loop, "stop_now", stop_now)
    for _ in range(9):
        try:
            loop.train(config, tmp_path)
            break
        except Killed:
            pass
    assert len(taken) > 8 and taken[-1] == 8
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    names = [(line["step"], name) for line in lines for name in line if name != "step"]
    assert len(names) == len(set(names))
    assert {line["step"] for line in lines} == set(range(1, 9))
    shown = events_of(tmp_path)
    assert not [x for x in set(shown) if shown.count(x) > 1]
    # TensorBoard has names without "@".
    assert set(shown) == {(step, name.replace("@", "_")) for step, name in names}
