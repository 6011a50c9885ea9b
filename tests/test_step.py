"""The benchmark of one training step."""

import json
import pathlib

import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.core.space import GIB

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "photos_stage1.py"


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """The row of a small tokenizer with no judges, which take long to compile."""
    file = tmp_path_factory.mktemp("step") / "rows.json"
    keys = [
        "perceptual.weight=0.0",
        "adversarial.weight=0.0",
        "dataset.size=32",
        "tokenizer.encoder.depths=(1,1,1)",
    ]
    flags = [
        f"--config={CONFIG}:tiny",
        "--batch=2",
        f"--json={file}",
        *(f"--config.{key}" for key in keys),
    ]
    assert benchmark.main(["step", *flags]) == 0
    found = json.loads(file.read_text())
    assert (
        found["name"] == "step" and "photos_stage1.py:tiny" in found["command"] and found["device"]
    )
    (row,) = found["rows"]
    return row


def test_a_step_is_taken_and_measured(row):
    assert row["batch"] == 2 and row["skipped"] == 0 and row["loss"] > 0 and row["step_seconds"] > 0
    assert row["peak_by"] == "process" and row["peak_gib"] > 0.1


def test_memory_is_at_least_that_of_the_state(row):
    """Parameters, their averages and two moments, all float32, are a lower bound of the state."""
    state = row["state_gib"] * GIB
    assert state > 4 * 4 * row["parameters"]
    assert row["bytes"] > state
    assert row["step_gib"] * GIB == pytest.approx(row["bytes"])
