"""The memory of a generator's training step."""

import json

import jax
import numpy as np
import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import table6
from evqgan.core import cli

SMALL = {"layers": 1, "width": 32, "heads": 2, "code_width": 8}
KEYS = [f"--config.generator.{key}={value}" for key, value in SMALL.items()]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("table6") / "rows.json"
    cases = ["--latent=32", "--blocks=all", "--blocks=1"]
    assert benchmark.main(["table6", *cases, *KEYS, f"--json={file}"]) == 0
    return json.loads(file.read_text())["rows"]


def test_rows_name_what_was_measured(rows):
    fixed = [
        "system",
        "attention",
        "blocks",
        "latent",
        "batch",
        "dtype",
        "parameters",
        "bytes",
        "measured_by",
    ]
    assert [list(row)[:9] for row in rows] == [fixed] * 2
    assert [(row["blocks"], row["latent"]) for row in rows] == [("all", 32), (1, 32)]
    assert {(r["system"], r["attention"], r["batch"], r["dtype"]) for r in rows} == {
        ("ours", "prefix", 1, "bfloat16")
    }
    assert {row["measured_by"] for row in rows} == {"compiler"}
    assert [row["published_gib"] for row in rows] == [pytest.approx(5.43, abs=0.01), None]


def test_memory_holds_the_state_and_the_gradients(rows):
    for row in rows:
        state = row["state_gib"] * table6.GIB
        # Without a tokenizer.
        assert 4 * 3 * row["parameters"] < state < 4 * 4.1 * row["parameters"]
        assert row["bytes"] > state
        assert row["gib"] * table6.GIB == pytest.approx(row["bytes"])


def test_few_blocks_need_less_memory(rows):
    # What is beside the state.
    every, one = (row["bytes"] - row["state_gib"] * table6.GIB for row in rows)
    assert one < every / 2


def test_the_step_that_is_measured_trains():
    given = table6_flags("--attention=joint", "--batch=2", "--extend=2", "--dtype=float32")
    config = table6.configured(given, KEYS, 16, "1")
    assert (
        config.generator.extend == 2
        and config.generator.attention == "joint"
        and config.loss.targets == 1
    )
    like, init, update, batch = table6.step(config)
    assert "tokenizer" not in like and batch["ids"].shape == (2, 16, 16, 1)
    state, metrics = update(init(), batch)
    assert int(state["step"]) == 1 and int(metrics["skipped"]) == 0 and float(metrics["loss"]) > 0
    assert jax.tree.map(lambda x: x.shape, state) == jax.tree.map(lambda x: x.shape, like)


def test_the_allocator_is_asked_where_there_is_one(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"peak_bytes_in_use": 3 * table6.GIB}

    def compiled(state, batch):
        return state + batch, np.zeros(())

    assert table6.by_allocator(lambda: 0, compiled, 1) == {}
    monkeypatch.setattr(table6.jax, "devices", lambda: [Device()])
    assert table6.by_allocator(lambda: 0, compiled, 1)["gib"] == 3.0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--blocks=some"], "expected --blocks=all, or a number from 1, got 'some'"),
        (["--blocks=0"], "expected --blocks=all, or a number from 1"),
        (["--dtype=float16"], "expected --dtype=bfloat16 or float32"),
        (["--attention=full"], "'joint' or 'prefix'"),
        (["--latent=12"], "does not divide the 12 x 12 token grid"),
        (["--config=configs/photos_stage1.py"], "table6 measures the training of a generator"),
        (["--blok=1"], "there is no flag --blok: did you mean '--blocks'?"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, capsys):
    assert benchmark.main(["table6", *flags, *KEYS]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")


def table6_flags(*flags):
    return cli.parse(table6.FLAGS, flags)[0]
