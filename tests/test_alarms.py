"""Skipped steps and numbers that fall are told of, and many steps in a row end a run."""

import numpy as np
import pytest
from test_cards import evaluation

from evqgan.core import cards, files
from evqgan.core.errors import NonFinite
from evqgan.core.metrics_writer import Writer
from evqgan.training import alarms


def metrics_of(in_a_row, total, longest, **more):
    skipped = {"_in_a_row": in_a_row, "": total, "_longest": longest}
    return {**more, **{f"train/skipped{name}": value for name, value in skipped.items()}}


def test_skipped_steps_are_told_once_and_end_the_run():
    assert alarms.check_skipped(7, metrics_of(0, 3, 2, loss=1.0), 3, 10) == ""
    wrong = {"train/loss": float("nan"), "train/ok": 1.0, "train/grad": np.float32("inf")}
    line = alarms.check_skipped(1200, metrics_of(9, 12, 9, **wrong), 3, 10)
    for part in (
        "train/loss = nan",
        "train/grad = inf",
        "step 1,200",
        "9 since",
        "9 in a row",
        "12 in all",
    ):
        assert part in line
    assert "ok" not in line
    # None of them at a step that is logged.
    between = alarms.check_skipped(1300, metrics_of(0, 14, 9, loss=1.0), 12, 10)
    assert "a step before this one was not finite" in between and "2 since" in between


@pytest.mark.parametrize("now", [10, 0])  # they need not last until a line is due
def test_too_many_in_a_row_end_the_run(now):
    with pytest.raises(NonFinite) as caught:
        alarms.check_skipped(
            1201, metrics_of(now, 13, 10, **{"train/loss": float("nan" if now else "1")}), 3, 10
        )
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "stopped at step 1,201",
        "10 in a row",
        "new run",
        "--config.init=",
        "learning rate",
    ):
        assert part in message
    assert ("train/loss = nan" in message) == bool(now)


def test_an_alarm_when_a_number_falls_below_its_share_of_the_best():
    best, shares = {}, {"val/usage": 0.5}
    numbers = [("a", 0.2), ("b", 0.8), ("c", 0.5), ("d", 0.39), ("e", 0.9), ("f", 0.44)]
    lines = [
        list(alarms.alarms(10, {"val/usage": value, "val/psnr": 0}, {}, best, shares))
        for _, value in numbers
    ]
    assert [bool(line) for line in lines] == [False, False, False, True, False, True]
    assert lines[3] == ["ALARM at step 10: val/usage fell to 0.39, it was 0.8"]
    assert not list(alarms.alarms(10, {"val/psnr": 0}, {}, best, shares))


def test_no_alarm_for_a_number_that_is_measured_otherwise_than_the_highest():
    best, shares = {}, {"val/usage": 0.5}
    numbers = [("of 64", 0.9), ("of 8", 0.2), ("of 8", 0.09), ("of 64", 0.4)]
    lines = [
        list(alarms.alarms(10, {"val/usage": value}, {"val/usage": how}, best, shares))
        for how, value in numbers
    ]
    assert lines == [
        [],
        [],
        ["ALARM at step 10: val/usage fell to 0.09, it was 0.2"],
        ["ALARM at step 10: val/usage fell to 0.4, it was 0.9"],
    ]


def test_the_highest_numbers_are_read_from_the_metrics(tmp_path):
    assert alarms.highest(tmp_path, {"val/usage"}) == {}
    with Writer(tmp_path) as writer:
        for step, value in enumerate((0.1, 0.7, 0.3, float("nan"))):
            writer.write(step, {"val/usage": value, "other": 9})
    assert alarms.highest(tmp_path, {"val/usage": 0.5}) == {("val/usage", ""): 0.7}
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "val/usage": "0.9"}\n{"step": 6, "val/us')
    assert alarms.highest(tmp_path, {"val/usage": 0.5}) == {("val/usage", ""): 0.7}


def test_numbers_that_were_measured_otherwise_have_a_highest_each(tmp_path):
    with Writer(tmp_path) as writer:
        for step, (value, count) in enumerate(((0.7, 8), (0.8, 8), (0.3, 64), (0.2, 64))):
            writer.write(step, {"val/usage": value})
            noted = evaluation("reconstruction", {"usage": value}, count)
            files.save_json(cards.file_of(tmp_path, step), noted)
    how = [
        cards.measurements(evaluation("reconstruction", {"usage": 0}, count))["val/usage"]
        for count in (8, 64)
    ]
    found = alarms.highest(tmp_path, {"val/usage"})
    assert found == {("val/usage", how[0]): 0.8, ("val/usage", how[1]): 0.3}
