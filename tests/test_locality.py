"""How far a change of tokens reaches."""

import json

import numpy as np
import pytest
import workdirs
from absl import flags
from PIL import Image

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import reconstruction
from evqgan.benchmark.paper import locality
from evqgan.inference.model import load

BOX = (12, 12, 20, 20)


def test_a_change_inside_the_box_reaches_nowhere():
    change = np.zeros((32, 32))
    change[12:20, 12:20] = 3.0
    assert locality.reach(change, BOX) == {"inside": 1.0, "r90": 0, "r99": 0, "far": 0.0}


def test_distances_are_counted_in_pixels_from_the_box():
    change = np.zeros((32, 32))
    change[12:20, 12:20] = 1.0  # 64 in all
    change[12:20, 9] = 2.0  # 16, three pixels away
    found = locality.reach(change, BOX)
    assert found["inside"] == pytest.approx(64 / 80)
    assert (found["r90"], found["r99"]) == (3, 3)
    change[0, 0] = 0.5  # twelve pixels away, less than a hundredth
    assert locality.reach(change, BOX)["r99"] == 3


def test_a_uniform_change_is_as_large_far_away():
    found = locality.reach(np.ones((32, 32)), BOX)
    assert found["far"] == pytest.approx(1.0)
    assert found["r99"] == 12


def test_only_the_block_is_replaced():
    model = load(workdirs.trained() / "tokenizer")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    before, after, box = locality.replaced(model, images, side=2, tokens=2)
    assert before.shape == (3, 32, 32, 3) and after.shape[1:] == before.shape
    assert box == (12, 12, 20, 20)
    ids = model.encode(images)
    np.testing.assert_array_equal(before, model.decode(ids))
    changed = ids.copy()
    kinds, counts = np.unique(ids, return_counts=True)
    changed[:, 3:5, 3:5] = kinds[np.argsort(-counts, kind="stable")[0]]
    np.testing.assert_array_equal(after[0], model.decode(changed))


def test_the_command_writes_rows_with_cards_and_a_picture(tmp_path, capsys):
    place = str(workdirs.trained() / "tokenizer")
    flags = ["fig1", f"--workdir=mine={place}", "--images=2", "--tokens=1", f"--out={tmp_path}"]
    assert benchmark.main(flags) == 0
    text = capsys.readouterr().out
    assert (
        "paper, Fig. 1" in text
        and "1 workdir given (" in text
        and "32x32, 8x8 tokens of swin)" in text
        and "r99" in text
    )
    assert "[1] evaluator: locality; protocol: reconstruction;" in text
    found = json.loads((tmp_path / "fig1.json").read_text())
    (row,) = found["rows"]
    assert row["system"] == "mine" and 0 <= row["inside"] <= 1
    assert row["card"]["real"]["count"] == 2 and row["card"]["model"]["step"] == 6
    assert found["command"].startswith("python -m evqgan.benchmark fig1")
    # Columns of two images and of the mean, with gaps; each pixel is shown as 3 x 3.
    assert Image.open(tmp_path / "fig1.png").size[0] >= 3 * 96 + 2 * 8


def test_tokenizers_are_compared_on_one_data_set(tmp_path, capsys):
    place = str(workdirs.trained() / "tokenizer")
    out, rows = tmp_path / "both.png", tmp_path / "rows.json"
    flags = ["--perceptual=", "--features=pixels", "--images=3", f"--out={out}", f"--json={rows}"]
    assert (
        benchmark.main(["reconstruction", f"--workdir={place}", f"--workdir={place}", *flags]) == 0
    )
    first, second = json.loads(rows.read_text())["rows"]
    assert (
        first == second
        and first["step"] == 6
        and 0 < first["psnr"] < 100
        and first["parameters"] > 1000
        and first["rfrechet_pixels"] > 0
    )
    assert Image.open(out).size[0] >= 3 * 32


def test_workdirs_of_one_name_are_told_apart():
    assert reconstruction.names_of(["a/one", "b/two"]) == ["one", "two"]
    assert reconstruction.names_of(["a/tokenizer", "b/tokenizer"]) == ["a/tokenizer", "b/tokenizer"]


def test_reconstruction_takes_the_tokenizer_of_a_model_of_both_stages(tmp_path):
    top, rows = workdirs.trained(), tmp_path / "rows.json"
    given = [f"--workdir={top}", "--perceptual=", "--images=2", f"--out={tmp_path / 'both.png'}"]
    assert benchmark.main(["reconstruction", *given, f"--json={rows}"]) == 0
    assert json.loads(rows.read_text())["rows"][0]["card"]["model"]["step"] == 6


@pytest.mark.parametrize(
    "given, message",
    [
        (["reconstruction", "--workdir=GENERATOR"], "holds a generator of the tokenizer "),
        (["reconstuction"], "no benchmark 'reconstuction': did you mean 'reconstruction'"),
        (["reconstruction"], "--workdir is needed: a trained tokenizer"),
        (["fig1", "--workdir=nowhere"], "nowhere is no workdir"),
        (["fig1", "--workdir=GENERATOR"], "holds a generator: give the workdir of a tokenizer"),
        (["fig1", "--workdir=TOKENIZER", "--block=9"], "--block=9 does not fit into 8 x 8 tokens"),
        (["fig1", "--workdir=a=TOKENIZER", "--blok=9"], "no flag --blok: did you mean '--block'?"),
        (["step", "--config=configs/nosuch.py"], "there is no file"),
        (
            ["step", "--config=configs/photos_stage1.py", "--batch=x"],
            "--batch=x: expected a positive integer",
        ),
        (
            ["step", "--config=configs/photos_stage1.py", "--batches=2"],
            "there is no flag --batches: did you mean '--batch'?",
        ),
    ],
)
def test_wrong_flags_are_one_line(given, message, capsys):
    place = workdirs.trained()
    for part in ("tokenizer", "generator"):
        given = [flag.replace(part.upper(), str(place / part)) for flag in given]
    assert benchmark.main(given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")


@pytest.mark.parametrize("name", benchmark.NAMES)
def test_a_number_below_the_least_one_is_refused_by_its_flag(name, capsys):
    for flag in benchmark.named(name).FLAGS:
        if isinstance(flag.kind, flags.IntegerParser):
            given = f"--{flag.name}={flag.kind.lower_bound - 1}"
            assert benchmark.main([name, given]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"error: {given}: expected ") and error.count("\n") == 1
