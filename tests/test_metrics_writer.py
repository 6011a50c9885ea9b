"""metrics.jsonl of an interrupted run equals that of an uninterrupted one.

The progress line and the stop are readable.
"""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from evqgan.core import metrics_writer
from evqgan.core.errors import InputError


def train(workdir, start, stop, resume_step):
    with metrics_writer.Writer(workdir, resume_step) as writer:
        for step in range(start, stop + 1):
            writer.write(
                step,
                {
                    "train/loss": np.float32(1 / step),
                    "perf/step_seconds": start + step / 7,
                    "n": step,
                },
            )
            if step % 2 == 0:
                writer.write(step, {"eval/psnr": 20.0 + step})


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_perf(workdir):
    return [{k: v for k, v in line.items() if not k.startswith("perf/")} for line in lines(workdir)]


def events(workdir):
    """TensorBoard's events in a workdir by files: records of length, checksum, bytes, checksum."""
    found = []
    for path in sorted(
        workdir.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns
    ):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


@pytest.mark.parametrize("cut", ["", '{"step": 7, "train/lo', '{"step": 7}'])
def test_an_interrupted_run_ends_with_the_same_metrics(tmp_path, cut):
    train(tmp_path / "whole", 1, 9, 0)
    train(tmp_path / "cut", 1, 6, 0)
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as file:
        file.write(cut)
    train(tmp_path / "cut", 5, 9, resume_step=4)
    assert without_perf(tmp_path / "cut") == without_perf(tmp_path / "whole")
    assert len(without_perf(tmp_path / "cut")) == 13
    # No part of the rewriting stays.
    assert sorted(os.listdir(tmp_path / "cut"))[-1] == "metrics.jsonl"


def test_a_last_line_without_its_newline_is_kept_when_it_is_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}')
    with metrics_writer.Writer(tmp_path, resume_step=2) as writer:
        writer.write(3, {"a": 3})
    assert [line["a"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_start_from_nothing_drops_the_lines_of_a_run_that_saved_nothing(tmp_path):
    train(tmp_path, 1, 3, 0)
    train(tmp_path, 1, 1, 0)
    assert [line["step"] for line in lines(tmp_path)] == [1]


def test_a_file_that_is_no_metrics_file_is_not_touched(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nmy notes\n{"step": 2}\n')
    with pytest.raises(InputError, match="line 2 is not a JSON object with a step"):
        metrics_writer.Writer(tmp_path, resume_step=1)
    assert "my notes" in (tmp_path / "metrics.jsonl").read_text()


def test_lines_can_be_read_while_the_run_goes_on(tmp_path):
    with metrics_writer.Writer(tmp_path) as writer:
        writer.write(1, {"train/loss": 0.1, "images": np.int64(64), "on": np.bool_(True)})
        assert lines(tmp_path) == [{"step": 1, "train/loss": 0.1, "images": 64, "on": True}]


def test_non_finite_numbers_are_null_and_named(tmp_path, caplog):
    with metrics_writer.Writer(tmp_path) as writer:
        writer.write(1, {"a": float("nan"), "b": np.float32(-np.inf), "c": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {
        "step": 1,
        "a": None,
        "b": None,
        "c": 1.0,
        "errors": {"a": "nan", "b": "-inf"},
    }
    found = {x.tag: x.simple_value for event in events(tmp_path) for x in event.summary.value}
    assert np.isnan(found["a"]) and found["b"] == -np.inf and found["c"] == 1.0
    assert not caplog.records  # tensorboardX would say that it met one, and not where


def test_an_array_is_no_scalar(tmp_path):
    with (
        metrics_writer.Writer(tmp_path) as writer,
        pytest.raises(TypeError, match="expected a number for train/loss"),
    ):
        writer.write(1, {"train/loss": np.zeros(2)})
    assert lines(tmp_path) == []


def test_tensorboard_has_scalars_and_images_and_purges_what_is_written_again(tmp_path):
    train(tmp_path, 1, 3, 0)
    with metrics_writer.Writer(tmp_path, resume_step=2) as writer:
        writer.write(3, {"train/loss": 0.5})
        writer.images(3, {"samples": np.zeros((4, 6, 3), np.uint8)})
    found = events(tmp_path)
    starts = [event.step for event in found if event.HasField("session_log")]
    assert starts == [0, 3]
    values = [(event.step, value) for event in found for value in event.summary.value]
    losses = [(step, value.simple_value) for step, value in values if value.tag == "train/loss"]
    assert [step for step, _ in losses] == [1, 2, 3, 3] and losses[-1][1] == 0.5
    picture = next(value.image for _, value in values if value.tag == "samples")
    assert (picture.height, picture.width) == (4, 6) and picture.encoded_image_string.startswith(
        b"\x89PNG"
    )


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
    with metrics_writer.Writer(tmp_path / "run", enabled=False) as writer:
        writer.write(1, {"a": 1.0})
        writer.images(1, {"b": np.zeros((2, 2, 3), np.uint8)})
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"cannot write .*file/run: expected a folder, but .*file is a file"
    ):
        metrics_writer.Writer(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="expected a local path, or gs:"):
        metrics_writer.Writer("http://host/run")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with metrics_writer.Writer(tmp_path) as writer:
        monkeypatch.setattr(writer, "_lines", Full(full))
        with pytest.raises(InputError, match=r"cannot write .*metrics\.jsonl: No space left"):
            writer.write(1, {"a": 1.0})


class Full:
    """A file on a full disk."""

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    def close(self):
        pass


FILLED = """
import resource, sys
import numpy as np
from evqgan.core import metrics_writer
writer = metrics_writer.Writer(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
for step in range(1000):
    noise = np.random.default_rng(step).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    writer.images(step, {"noise": noise})
"""


def test_a_full_disk_under_tensorboard_stops_the_run_instead_of_hanging_it(tmp_path):
    command = [sys.executable, "-c", FILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode and f"InputError: cannot write {tmp_path}: File too large" in done.stderr
