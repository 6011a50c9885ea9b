"""The benchmark of accelerators, on narrow models."""

import json

import numpy as np
import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import checks, device, timing


def test_a_part_is_measured_and_written(tmp_path, capsys):
    file = tmp_path / "rows.json"
    command = ["device", "--small", "--rounds=2", "--part=stage2", f"--json={file}"]
    assert benchmark.main(command) == 0
    found = json.loads(file.read_text())
    (row,) = found["rows"]
    assert row["part"] == "stage2" and row["images"] == 2
    assert row["least"] <= row["seconds"] <= row["most"]
    assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
    assert row["mfu"] > 0 and row["tflop"] > 0
    assert "stage2: compiling" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", sorted(device.PARTS))
def test_every_part_runs(part, tmp_path):
    file = tmp_path / "rows.json"
    command = ["device", "--small", "--rounds=1", f"--part={part}", f"--json={file}"]
    assert benchmark.main(command) == 0
    rows = json.loads(file.read_text())["rows"]
    assert rows and all(row["error"] is not None or row["seconds"] > 0 for row in rows)


def test_an_unknown_part_is_named(capsys):
    assert benchmark.main(["device", "--part=stage3"]) == 2
    assert "there is no part 'stage3': expected one of checks, stage1" in capsys.readouterr().err


def test_what_is_computed_again_is_not_counted(monkeypatch):
    both = lambda name, batch, prepared: [prepared("float32", x) for x in (False, True)]  # noqa: E731
    monkeypatch.setattr(device, "training", both)
    monkeypatch.setattr(device.step, "prepared", lambda config: config.tokenizer)
    (((timed, counted),),) = device.stage1(small=False)
    for part in ("encoder", "decoder"):
        assert timed[part].remat and not counted[part].remat


def test_a_check_that_is_off_ends_the_command_with_a_code(monkeypatch, capsys, tmp_path):
    error = {"a": 0.1, "b": 0.01}
    found = lambda rng, small: [{"program": x, "error": error[x], "bound": 0.05} for x in "ab"]  # noqa: E731
    monkeypatch.setattr(checks, "attention", found)
    monkeypatch.setattr(checks, "codes", lambda rng: {"program": "c", "error": 0.0, "bound": 0.001})
    file = tmp_path / "rows.json"
    command = ["device", "--part=checks", "--small", "--rounds=1", f"--json={file}"]
    assert benchmark.main(command) == 2
    said = capsys.readouterr()
    assert "this device computes wrong: a; do not train on it" in said.err
    assert "WARNING a is off, seed" in said.out and len(json.loads(file.read_text())["rows"]) == 3
    error["a"] = 0.02
    assert benchmark.main(command) == 0
    error["a"] = float("nan")
    assert checks.is_off(checks.attention(None, True)[0])


def test_training_on_an_accelerator_is_checked_beside_float32(monkeypatch):
    losses = {"float32": np.array([2.0, 1.0]), "bfloat16": np.array([2.0, 1.01])}
    monkeypatch.setattr(checks, "losses_in", losses.get)
    monkeypatch.setattr(checks, "attention", lambda rng, small: [])
    monkeypatch.setattr(checks.jax, "default_backend", lambda: "gpu")
    *_, row = checks.rows(small=True)
    assert row["program"] == "losses of 50 steps" and not checks.is_off(row)
    losses["bfloat16"] = np.array([2.0, 1.5])
    assert checks.is_off(checks.training())


def test_programs_are_timed_in_turn():
    order = []
    programs = [
        timing.Program(name, lambda name=name: order.append(name), 1, 1.0, 0.0) for name in "AB"
    ]
    rows = timing.rows_of(programs, 3, peak=1.0)
    assert order == list("ABABABAB")
    assert [row["program"] for row in rows] == ["A", "B"]


def test_checks_find_what_is_wrong(monkeypatch):
    rng = np.random.default_rng(0)
    assert all(row["error"] < row["bound"] for row in checks.attention(rng, small=True))
    assert checks.codes(rng)["error"] < 0.001
    attend = checks.attend_pieces
    unmasked = lambda query, pieces: attend(query, [(k, v, None) for k, v, _ in pieces])  # noqa: E731
    monkeypatch.setattr(checks, "attend_pieces", unmasked)
    assert all(row["error"] > row["bound"] for row in checks.attention(rng, small=True))
    monkeypatch.setattr(checks, "nearest", lambda x, book: np.zeros(len(x), np.int32))
    assert checks.codes(rng)["error"] > 0.9
