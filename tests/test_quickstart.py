"""The main job from end to end, small.

Everything the README promises is there, and a second run does nothing again.
"""

import json

import numpy as np
import pytest
from PIL import Image
from test_configs import load

from evqgan import quickstart
from evqgan.core.errors import InputError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    place = tmp_path_factory.mktemp("quickstart") / "run"
    quickstart.run(load("quickstart", "tiny"), place)
    return place


def test_everything_is_there(workdir):
    for part in ("tokenizer", "generator"):
        for name in ("config.json", "metrics.jsonl", "parameters.txt"):
            assert (workdir / part / name).is_file()
        assert list((workdir / part / "checkpoints").glob("[0-9]*"))
    for name in ("samples/grid.png", "reconstructions.png", "edits.png"):
        with Image.open(workdir / name) as picture:
            assert min(picture.size) > 32 and picture.mode == "RGB"
    with np.load(workdir / "samples" / "samples.npz", allow_pickle=False) as saved:
        assert saved["arr_0"].shape == (20, 32, 32, 3) and saved["arr_0"].dtype == np.uint8
        assert saved["ids"].shape == (20, 8, 8, 1) and saved["ids"].dtype == np.int32
        np.testing.assert_array_equal(saved["labels"], np.arange(20) % 10)


def test_every_number_stands_with_its_protocol(workdir):
    found = json.loads((workdir / "evaluation.json").read_text())
    wanted = (
        {"mse", "psnr", "ssim", "codebook_usage", "codebook_perplexity"}
        | {"cross_entropy", "cross_entropy@0.50", "accuracy@0.50", "spread_ratio"}
        | {"sample_accuracy", "heldout_accuracy", "nearest_mean", "heldout_nearest_mean"}
    )
    assert wanted <= set(found["numbers"])
    cards = found["protocols"]
    for card in cards.values():
        assert {"protocol", "weights", "model", "real", "produced", "run"} <= set(card)
        assert card["real"]["digest"] and card["model"]["fingerprint"] and card["run"]["code"]
    assert sorted(name for card in cards.values() for name in card["numbers"]) == sorted(
        found["numbers"]
    )
    assert "psnr" in cards["reconstruction"]["numbers"]
    assert cards["samples"]["produced"]["count"] == 20


def test_a_second_run_makes_nothing_again(workdir, capsys):
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*.png")}
    quickstart.run(load("quickstart", "tiny"), workdir)
    assert "everything is made already" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*.png")}


def test_a_tokenizer_stays_as_its_generator_knows_it(workdir):
    config = load("quickstart", "tiny")
    config.tokenizer.duration = "1000 steps"
    with pytest.raises(
        InputError,
        match=r"was trained on the tokenizer of config\.tokenizer\.duration = .*, now it is 1000",
    ):
        quickstart.run(config, workdir)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"features": "nothing"}, "features names 'nothing'"),
        ({"features": "inception", "weights": "{place}"}, "inception"),
        ({"features": "digits", "reference": "{place}/none.npz"}, "there is no {place}/none.npz"),
        ({"features": "digits", "split": "nothing"}, "split: "),
    ],
)
def test_a_wrong_evaluator_of_the_generator_is_refused_before_anything_trains(
    tmp_path, monkeypatch, keys, message
):
    monkeypatch.setattr(quickstart, "train", None)
    config, place = load("quickstart", "tiny"), str(tmp_path)
    keys = {key: text.format(place=place) for key, text in keys.items()}
    config.generator.evals.distribution = keys
    with pytest.raises(InputError, match="^config.generator: .*") as caught:
        quickstart.run(config, tmp_path / "run")
    assert message.format(place=place) in str(caught.value) and not (tmp_path / "run").exists()


def test_another_tokenizer_for_the_generator_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "train", None)
    config = load("quickstart", "tiny")
    config.generator.tokenizer.weights = "elsewhere"
    with pytest.raises(InputError, match=r"^config\.generator\.tokenizer\.weights is what "):
        quickstart.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_results_that_were_cut_off_are_made_again(workdir):
    (workdir / "evaluation.json").unlink()
    (workdir / "edits.png").unlink()
    quickstart.run(load("quickstart", "tiny"), workdir)
    assert (workdir / "evaluation.json").is_file() and (workdir / "edits.png").is_file()
