"""The benchmark of variants of a generator: equal terms, resumed work, statistics over seeds.

These are mean and spread.
"""

import json
import pathlib

import jax
import numpy as np
import pytest
import workdirs
from PIL import Image

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import variants
from evqgan.training import stage2

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "quickstart.py"


def overrides():
    """The keys of a tiny generator on the tests' tokenizer."""
    keys = {
        "batch_size": 4,
        "duration": "2 steps",
        "tokenizer.weights": workdirs.trained() / "tokenizer",
    }
    return [f"--config.{key}={value}" for key, value in keys.items()]


def flags(*more):
    return ["variants", f"--config={CONFIG}:tiny", "--samples=20", *overrides(), *more]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two seeds of a variant, shared by two processes, one after the other."""
    place = tmp_path_factory.mktemp("variants")
    for part in ("1/2", "2/2"):
        which = ["--only=own_dropped", "--seeds=2", f"--part={part}"]
        assert (
            benchmark.main(flags(*which, f"--out={place}", f"--json={place}/{part[0]}.json")) == 0
        )
    return place


def read(file):
    return {row["variant"]: row for row in json.loads(file.read_text())["rows"]}


@pytest.mark.slow
def test_each_run_is_a_workdir(out):
    for seed in range(2):
        place = out / f"own_dropped_{seed}"
        assert list((place / "checkpoints").glob("[0-9]*"))
        config = json.loads((place / "config.json").read_text())
        assert config["seed"] == seed and config["generator"]["own"] == "dropped"
    with Image.open(out / "variants.png") as picture:
        assert min(picture.size) > 2 * 32


def test_a_variant_that_is_named_twice_is_run_once():
    assert variants.chosen(["own_dropped", "base", "own dropped"]) == ["own dropped", "base"]


def test_terms_are_equal():
    """As many steps, parameters and target blocks for all.

    The tokens of a step are as the cost table counts them.
    """
    terms, parameters = {}, set()
    for name in variants.VARIANTS:
        config = variants.changed(variants.read(f"{CONFIG}:tiny", overrides()), name, 0)
        shapes = jax.eval_shape(stage2.make(config).init)["params"]
        parameters.add(sum(x.size for x in jax.tree.leaves(shapes)))
        blocks = config.batch_size * (config.loss.targets or 4)
        terms[name] = config.duration, blocks, config.batch_size, variants.tokens(config)
    assert len(parameters) == 1
    assert {term[:2] for term in terms.values()} == {("2 steps", 4)}
    assert terms["base"][2:] == (4, 4 * (4 + 25))
    assert (
        terms["joint"][2:] == terms["masked"][2:] == terms["own dropped"][2:] == terms["base"][2:]
    )
    assert terms["all blocks"][2:] == (1, 4 + 4 * 25)  # four blocks of 4 x 4, in a corner each
    # Globals of their own.
    assert terms["masked, all blocks"][2:] == terms["paper"][2:] == (1, 4 * (4 + 25))
    assert terms["wider"][2:] == (4, 4 * (4 + 36))


def test_evaluation_takes_the_batch_of_the_config_where_a_step_takes_less():
    config = variants.read(f"{CONFIG}:tiny", overrides())
    with config.unlocked():
        config.eval_batch_size = None
    made = variants.changed(config, "all blocks", 0)
    assert made.batch_size < made.eval_batch_size == config.batch_size


@pytest.mark.slow
def test_rows_are_mean_and_deviation_over_seeds(out):
    assert read(out / "1.json")["own dropped"]["seeds"] == 1
    assert read(out / "1.json")["own dropped"]["cross_entropy_sd"] is None
    rows = read(out / "2.json")
    assert list(rows) == ["own dropped", "real images"]
    runs = [
        json.loads((out / f"own_dropped_{seed}" / "variant.json").read_text()) for seed in range(2)
    ]
    settings = {tuple(entry["sampler"].items()) for numbers in runs for entry in numbers["scan"]}
    assert settings == {
        (("choice_temperature", value),) for value in variants.SCAN["choice_temperature"]
    }
    for name in (*variants.NUMBERS, "frechet_pixels"):
        values = [{**numbers, **numbers["scan"][0]}[name] for numbers in runs]
        assert rows["own dropped"][name] == pytest.approx(np.mean(values))
        assert rows["own dropped"][f"{name}_sd"] == pytest.approx(np.std(values, ddof=1))
    distances = np.mean(
        [[entry["frechet_pixels"] for entry in numbers["scan"]] for numbers in runs], axis=0
    )
    assert rows["own dropped"]["best_frechet_pixels"] == pytest.approx(distances.min())
    assert rows["real images"]["sample_accuracy"] == runs[0]["scan"][0]["heldout_accuracy"]
    assert rows["real images"]["cross_entropy"] is None
    card = rows["own dropped"]["card"]
    assert "cross_entropy" in str(card) and card["samples"]["produced"]["count"]
    assert len(card["samples"]["model"]["workdir"]) == 2  # of two seeds
    assert rows["real images"]["card"]["real"] == card["samples"]["real"]


@pytest.mark.slow
def test_what_is_done_is_not_done_again(out, capsys):
    before = {p: p.stat().st_mtime_ns for p in out.rglob("variant.json")}
    only = ["--only=own dropped", "--seeds=2"]
    assert benchmark.main(flags(*only, f"--out={out}", f"--json={out}/again.json")) == 0
    text = capsys.readouterr().out
    assert text.count("trained to step 2 of 2") == 2 and "real images" in text
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("variant.json")}
    assert read(out / "again.json") == read(out / "2.json")


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--only=joints"], "there is no variant 'joints': did you mean 'joint'"),
        (["--part=3/2"], "expected --part=I/N with I from 1 to N"),
        (["--part=1"], "expected --part=I/N"),
        (["--seeds=0"], "--seeds=0: expected a positive integer"),
        (["--features=pixel"], "--features names 'pixel', no module with Features"),
        (["--sed=1"], "there is no flag --sed: did you mean '--seeds'?"),
        (["--only=all_blocks", "--config.batch_size=3"], "a multiple of the 4 blocks, got 3"),
        (["--config.generator.windw=4"], "has no key 'windw'"),
    ],
)
def test_wrong_flags_are_one_line(wrong, message, tmp_path, capsys):
    assert benchmark.main(flags(f"--out={tmp_path / 'new'}", *wrong)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("checkpoints/[0-9]*"))
