"""The main job from end to end, small.

Everything the README promises is there, and a second run does nothing again.
"""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_configs import load

from evqgan import main, quickstart
from evqgan.core import checkpoint
from evqgan.core.errors import InputError
from evqgan.inference import finished_samples, mode_sample
from evqgan.training import resume_rules


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
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*.png")} == before


def test_samples_of_another_step_are_not_called_made(workdir, monkeypatch, capsys):
    read = finished_samples.read
    step = checkpoint.latest(workdir / "generator")
    request = mode_sample.SampleRequest(20, pngs=False)
    config = resume_rules.settings(load("quickstart", "tiny"), workdir / "generator")
    assert quickstart.has_made(config, workdir, step, request)
    monkeypatch.setattr(finished_samples, "read", lambda out: {**read(out), "step": 2})
    assert not quickstart.has_made(config, workdir, step, request)
    assert f"{workdir / 'samples'} is of step 2 now: all results are made again" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("samples", 30, "20"), ("generator.sample.temperature", 3.0, "temperature")],
)
def test_results_of_other_settings_are_not_called_made(workdir, key, value, says):
    config = load("quickstart", "tiny")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f"made with .*{says}.*: move .*samples away, and the"):
        quickstart.run(config, workdir)


@pytest.mark.parametrize(
    "name", ["samples/samples.npz", "samples/grid.png", "reconstructions.png", "edits.png"]
)
@pytest.mark.parametrize("kept", [None, 0, 200])
def test_results_that_are_missing_or_damaged_are_found(workdir, tmp_path, name, kept):
    shutil.copytree(workdir, tmp_path / "run")
    file = tmp_path / "run" / name
    assert quickstart.lost_in(tmp_path / "run") == []
    if kept is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:kept])
    assert quickstart.lost_in(tmp_path / "run") == [file]


def test_what_is_no_evaluation_is_refused_before_anything_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "train", None)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match="evaluation.json is not what evaluate writes"):
        quickstart.run(load("quickstart", "tiny"), tmp_path)


def test_a_tokenizer_that_is_lost_is_not_trained_anew_below_its_generator(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "train", None)
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="was trained on a tokenizer that is not in .*put it back"):
        quickstart.check_tokenizer_stays(load("quickstart", "tiny"), tmp_path)


def test_a_tokenizer_stays_as_its_generator_knows_it(workdir, monkeypatch):
    monkeypatch.setattr(quickstart.pipeline, "prepare", None)  # no data are made before that
    config = load("quickstart", "tiny")
    config.tokenizer.duration = "1000 steps"
    with pytest.raises(
        InputError,
        match=r"was trained on the tokenizer of config\.tokenizer\.duration = .*, now it is 1000",
    ):
        quickstart.run(config, workdir)


def test_a_tokenizer_stays_whose_duration_is_the_same_in_other_words(tmp_path):
    for part in ("tokenizer", "generator"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text('{"duration": "1000 steps"}')
    config = load("quickstart", "tiny")
    for same in ("1000", "1,000steps"):
        config.tokenizer.duration = same
        quickstart.check_tokenizer_stays(config, tmp_path)


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


@pytest.mark.slow
def test_results_that_were_cut_off_are_made_again(workdir):
    (workdir / "evaluation.json").unlink()
    (workdir / "edits.png").unlink()
    quickstart.run(load("quickstart", "tiny"), workdir)
    assert (workdir / "evaluation.json").is_file() and (workdir / "edits.png").is_file()
    for name in ("edits.png", "samples/grid.png", "samples/samples.npz"):
        file = workdir / name
        file.write_bytes(file.read_bytes()[:100])
    quickstart.run(load("quickstart", "tiny"), workdir)
    assert quickstart.lost_in(workdir) == []


def test_it_goes_on_by_its_workdir_alone(workdir, tmp_path, monkeypatch, capsys):
    """With the config file and the keys that it was begun with, and those that are given now."""
    place = tmp_path / "run"
    shutil.copytree(workdir, place)
    command = [
        "evqgan",
        "--config=quickstart:tiny",
        f"--workdir={place}",
        "--config.generator.keep=2",
    ]
    assert main.main([*command, "--config.generator.changed_data=True"]) == 0
    kept = json.loads((place / "quickstart.json").read_text())
    assert kept == {"config": "quickstart:tiny", "keys": ["--config.generator.keep=2"]}

    def stopped(*given):
        raise InputError("stopped")

    monkeypatch.setattr(mode_sample, "sample", stopped)
    assert main.main(["evqgan", f"--workdir={place}", "--config.generator.duration=21 steps"]) == 2
    config = json.loads((place / "generator" / "config.json").read_text())
    assert config["duration"] == "21 steps" and checkpoint.latest(place / "generator") == 21
    # It was cut off, and goes on without the key, too.
    _, config = main.parse([f"--workdir={place}"])
    assert (config.stage, config.generator.keep) == ("quickstart", 2)
    assert config.generator.duration == "21 steps"
    capsys.readouterr()
    assert main.main(["evqgan", f"--workdir={place}", "--config.tokenizer.duration=9 steps"]) == 2
    assert "was trained on the tokenizer of" in capsys.readouterr().err
    keys = ["--config.generator.keep=2", "--config.generator.duration=21 steps"]
    assert json.loads((place / "quickstart.json").read_text())["keys"] == keys
    foreign = place / "own.py"  # as of a workdir that somebody passed on
    foreign.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    begun = {"config": str(foreign), "keys": ["--config.generator.keep=2"]}
    (place / "quickstart.json").write_text(json.dumps(begun))
    assert main.main(["evqgan", f"--workdir={place}"]) == 2
    said = capsys.readouterr().err
    assert f"only where it is given: add --config={foreign} --config.generator.keep=2\n" in said
    assert not (tmp_path / "ran").exists()
    (place / "quickstart.json").write_text("{}")
    assert main.main(["evqgan", f"--workdir={place}"]) == 2
    assert "quickstart.json is changed: bring back a whole one" in capsys.readouterr().err
    (place / "quickstart.json").unlink()
    assert main.main(["evqgan", f"--workdir={place}"]) == 2
    said = capsys.readouterr().err
    assert "were begun with, and its keys, as there is no quickstart.json that says them" in said
