"""The benchmark of variants of a generator: equal terms, resumed work, mean and spread over seeds."""

import json
import pathlib

import jax
import numpy as np
import pytest
import workdirs
from PIL import Image

from evqgan import stage2
from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import variants

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "quickstart.py"


def flags(*more):
    """Of a tiny generator on the tests' tokenizer."""
    keys = {"batch_size": 4, "duration": "2 steps", "tokenizer.weights": workdirs.trained() / "tokenizer"}
    return [
        "variants",
        f"--config={CONFIG}:tiny",
        "--samples=20",
        *(f"--config.{k}={v}" for k, v in keys.items()),
        *more,
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two seeds of two variants, shared by two processes, one after the other."""
    place = tmp_path_factory.mktemp("variants")
    with workdirs.quick_to_compile():
        for part in ("1/2", "2/2"):
            which = ["--only=base", "--only=all_blocks", "--seeds=2", f"--part={part}"]
            assert benchmark.main(flags(*which, f"--out={place}", f"--json={place}/{part[0]}.json")) == 0
    return place


def read(file):
    return {row["variant"]: row for row in json.loads(file.read_text())["rows"]}


def test_each_run_is_a_workdir(out):
    for name in ("base_0", "base_1", "all_blocks_0", "all_blocks_1"):
        assert (out / name / "config.json").is_file() and list((out / name / "checkpoints").glob("[0-9]*"))
    configs = [json.loads((out / name / "config.json").read_text()) for name in ("base_0", "base_1")]
    assert [config["seed"] for config in configs] == [0, 1]
    with Image.open(out / "variants.png") as picture:
        assert min(picture.size) > 3 * 32


def test_terms_are_equal(out):
    rows = read(out / "2.json")
    base, every = rows["base"], rows["all blocks"]
    assert base["parameters"] == every["parameters"] and base["steps"] == every["steps"] == 2
    assert (base["batch"], every["batch"]) == (4, 1)  # four blocks of 4 x 4
    assert base["tokens_a_step"] == 4 * (4 + 36) and every["tokens_a_step"] == 4 + 4 * 36


def test_rows_are_mean_and_deviation_over_seeds(out):
    assert read(out / "1.json")["base"]["seeds"] == 2 and read(out / "1.json")["base"]["cross_entropy_sd"] is not None
    rows = read(out / "2.json")
    assert list(rows) == ["base", "all blocks", "real images"]
    runs = [json.loads((out / f"base_{seed}" / "variant.json").read_text()) for seed in range(2)]
    for name in variants.NUMBERS:
        values = [numbers[name] for numbers in runs]
        assert rows["base"][name] == pytest.approx(np.mean(values))
        assert rows["base"][f"{name}_sd"] == pytest.approx(np.std(values, ddof=1))
    assert rows["real images"]["sample_accuracy"] == runs[0]["heldout_accuracy"]
    assert rows["real images"]["cross_entropy"] is None


def test_what_is_done_is_not_done_again(out, capsys):
    before = {p: p.stat().st_mtime_ns for p in out.rglob("samples.npz")}
    only = ["--only=base", "--only=all blocks", "--seeds=2"]
    assert benchmark.main(flags(*only, f"--out={out}", f"--json={out}/again.json")) == 0
    text = capsys.readouterr().out
    assert text.count("trained to step 2 of 2") == 4 and "real images" in text
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("samples.npz")}
    assert read(out / "again.json") == read(out / "2.json")


def test_every_variant_names_keys_that_exist():
    """Of all variants a stage can be made, with parameters of the same number."""
    rest = [flag for flag in flags() if flag.startswith("--config.")]
    config = variants.read(f"{CONFIG}:tiny", rest)
    counts = set()
    for name in variants.VARIANTS:
        stage = stage2.make(variants.changed(config, name, 0))
        shapes = jax.eval_shape(stage.init)["params"]
        counts.add(sum(x.size for x in jax.tree.leaves(shapes)))
    assert len(counts) == 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--only=joints"], "there is no variant 'joints': did you mean 'joint'"),
        (["--part=3/2"], "expected --part=I/N with I from 1 to N"),
        (["--part=1"], "expected --part=I/N"),
        (["--seeds=0"], "at least one seed"),
        (["--sed=1"], "there is no flag --sed=1"),
        (["--only=all_blocks", "--config.batch_size=3"], "a multiple of the 4 blocks, got 3"),
        (["--config.generator.windw=4"], "has no key 'windw'"),
    ],
)
def test_wrong_flags_are_one_line(wrong, message, tmp_path, capsys):
    assert benchmark.main(flags(f"--out={tmp_path / 'new'}", *wrong)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("checkpoints/[0-9]*"))
