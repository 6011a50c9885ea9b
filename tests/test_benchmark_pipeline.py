"""The benchmark of reading: rows that agree with themselves, one for each number of workers."""

import types

import pytest

from evqgan.benchmark import pipeline
from evqgan.core.errors import InputError

KEYS = ["--config.dataset.name=generated", "--config.dataset.size=16"]


def given(**changes):
    flags = {flag.name: flag.default for flag in pipeline.FLAGS}
    few = {"config": "imagenet_stage1", "batch": 4, "rounds": 2, "seconds": 0.1}
    return types.SimpleNamespace(**{**flags, **few, **changes})


def test_threads_are_measured():
    title, (row,) = pipeline.run(given(workers=["0"]), KEYS)
    assert title.startswith("reading batches of 4 images of 16 x 16, ")
    assert row["workers"] == 0 and row["worker_mib"] is None
    low, high = map(int, row["lowest_to_highest"].split(" to "))
    assert low - 1 <= row["images_s"] <= high + 1
    assert row["images_s_core"] > 0 and row["first_seconds"] > 0


def test_a_round_that_took_no_time_that_can_be_told_is_none_of_endless_speed(monkeypatch):
    monkeypatch.setattr(pipeline, "core_seconds", lambda processes: 1.0)
    _, (row,) = pipeline.run(given(workers=["0"]), KEYS)
    assert 0 < row["images_s_core"] < float("inf")


@pytest.mark.slow
def test_workers_are_measured_beside_threads():
    _, rows = pipeline.run(given(workers=["0", "1"]), KEYS)
    assert [row["workers"] for row in rows] == [0, 1]
    assert rows[1]["worker_mib"] > 10  # a Python with grain at least


def test_a_config_without_images_is_refused():
    with pytest.raises(InputError, match="is of quickstart and has no config.dataset: give the"):
        pipeline.run(given(config="quickstart"), [])


def test_what_is_no_number_of_workers_is_refused():
    with pytest.raises(InputError, match=r"--workers expects numbers of processes.*'two'"):
        pipeline.run(given(workers=["two"]), KEYS)
