"""The memory of a generator's training step."""

import json

import jax
import numpy as np
import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import generator_step, step
from evqgan.benchmark.paper import beside, published, table6
from evqgan.core import cli
from evqgan.core.space import GIB
from evqgan.training import stage2

SMALL = {"layers": 1, "width": 32, "heads": 2, "code_width": 8}
KEYS = [f"--config.generator.{key}={value}" for key, value in SMALL.items()]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    place = tmp_path_factory.mktemp("table6")
    cases = ["--system=ours", "--latent=32", "--blocks=all", "--blocks=1"]
    assert benchmark.main(["table6", *cases, *KEYS, f"--out={place}"]) == 0
    return json.loads((place / "table6.json").read_text())["rows"]


def test_rows_name_what_was_measured_beside_those_of_the_paper(rows):
    paper, ours = rows[:-2], rows[-2:]
    assert len(paper) == 12 and all(row["from"] == "paper, Table 6" for row in paper)
    assert [row["mib"] for row in paper if row["system"] == "ours"] == [5560, 14154, 58096]
    assert [(row["blocks"], row["latent"]) for row in ours] == [("all", 32), (1, 32)]
    for row in ours:
        card = row["card"]
        assert row["from"] == beside.OURS and row["system"] == "ours"
        assert row["measured_by"] == "compiler" and row["seconds"] is None  # on a CPU
        assert (card["attention"], card["batch"]) == ("prefix", 1)
        assert (
            card["run"]["dtype"] == "bfloat16"
            and card["run"]["device"]
            and card["weights"] == "untrained"
        )


def test_memory_holds_the_state_and_the_gradients(rows):
    for row in rows[-2:]:
        state = row["state_mib"] * step.MIB
        # Without a tokenizer.
        assert 4 * 3 * row["parameters"] < state < 4 * 4.1 * row["parameters"] + step.MIB
        assert row["mib"] > row["state_mib"]


def test_few_blocks_need_less_memory(rows):
    # What is beside the state.
    every, one = (row["mib"] - row["state_mib"] for row in rows[-2:])
    assert one < every / 2


def test_all_systems_have_the_sizes_that_the_paper_gives_and_as_many_codes_an_image():
    given = table6_flags()
    found = {}
    for system in (*table6.OTHERS, table6.OURS):
        config = table6.configured(given, [], system, 32, "all")
        model = stage2.make(config, examples=1000).model
        h, w = model.tokenizer.grid
        assert h * w * model.tokenizer.network.quantizer.depth == 32 * 32
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        found[system] = sum(x.size for x in jax.tree.leaves(shapes)) / 1e6
    printed = {system: parameters for system, parameters, *_ in published.TABLE6.rows}
    assert printed == {"VQGAN": "1.4B", "VIM-Base": "650M", "MaskGIT": "227M", "ours": "185M"}
    # MaskGIT's 227 M hold its tokenizer of 54.5 M. 24 layers of 1,536 are 680 M alone, whose
    # transformer ViT-VQGAN's paper gives 650 M.
    expected = {"VQGAN": 1410, "VIM-Base": 650, "MaskGIT": 227 - 54.5, "ours": 185}
    for system, number in expected.items():
        assert found[system] == pytest.approx(number, rel=0.1), system


def test_a_step_with_a_codebook_in_it_can_be_traced():
    keys = ["--config.generator.layers=1", "--config.generator.width=64"]
    keys.append("--config.generator.heads=2")
    config = table6.configured(table6_flags(), keys, "RQ-Transformer", 16, "")
    like, _, update, batch = generator_step.prepared(config)
    assert "tokenizer" in like and batch["ids"].shape == (1, 8, 8, 4)
    state, metrics = update.eval_shape(like, batch)
    assert metrics["loss"].shape == () and state.keys() == like.keys()


def test_the_step_that_is_measured_trains():
    given = table6_flags("--attention=joint", "--batch=2", "--extend=2", "--dtype=float32")
    config = table6.configured(given, KEYS, "ours", 16, "1")
    assert (
        config.generator.extend == 2
        and config.generator.attention == "joint"
        and config.loss.targets == 1
    )
    like, init, update, batch = generator_step.prepared(config)
    assert "tokenizer" not in like and batch["ids"].shape == (2, 16, 16, 1)
    state, metrics = update(init(), batch)
    assert int(state["step"]) == 1 and int(metrics["skipped"]) == 0 and float(metrics["loss"]) > 0
    assert jax.tree.map(lambda x: x.shape, state) == jax.tree.map(lambda x: x.shape, like)


def test_the_allocator_is_asked_where_there_is_one(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"peak_bytes_in_use": 3 * GIB}

    def compiled(state, batch):
        return state + batch, np.zeros(())

    assert table6.taken(lambda: 0, compiled, 1).keys() == {"seconds"}
    monkeypatch.setattr(table6.jax, "devices", lambda: [Device()])
    assert table6.taken(lambda: 0, compiled, 1)["mib"] == 3 * 1024


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--blocks=some"], "expected --blocks=all, or a number from 1, got 'some'"),
        (["--blocks=0"], "expected --blocks=all, or a number from 1"),
        (["--dtype=float16"], "--dtype=float16: value should be one of <bfloat16|float32>"),
        (["--attention=full"], "--attention=full: value should be one of <joint|prefix>"),
        (["--latent=12"], "does not divide the 12 x 12 token grid"),
        (["--config=configs/photos_stage1.py"], "table6 measures the training of a generator"),
        (["--system=VQGAM"], "there is no system 'VQGAM': did you mean 'VQGAN'"),
        (["--blok=1"], "there is no flag --blok: did you mean '--blocks'?"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, capsys):
    system = [] if "--system" in flags[0] else ["--system=ours"]
    assert benchmark.main(["table6", *system, *flags, *KEYS]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")


def table6_flags(*flags):
    return cli.parse(table6.FLAGS, flags)[0]
