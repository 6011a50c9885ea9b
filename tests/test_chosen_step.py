"""--step, and evqgan.load(step=): the best checkpoint, the last, and any that is there."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
import workdirs

import evqgan
from evqgan import main, models
from evqgan.core import chosen_step, png_records, retention
from evqgan.core.checkpoint import Checkpoints
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.core.retention import Score
from evqgan.demo import __main__ as demo
from evqgan.demo import studio
from evqgan.export import __main__ as export
from evqgan.export.gathered import blank
from evqgan.export.gathered import gather as gathered

LOSS, PSNR = "val/cross_entropy", "val/psnr"


def score(value, name=LOSS, measured="a"):
    return Score(value, name, measured)


def test_the_best_is_the_lowest_of_what_compares_with_the_last_score():
    scores = {2: score(0.1, PSNR), 4: score(0.5), 6: score(0.4), 8: score(0.4), 9: score(0.9)}
    assert retention.best(scores) == 6
    assert retention.best({**scores, 10: None}) == 6
    assert retention.best({**scores, 11: score(0.7, measured="b")}) == 11
    assert retention.best({2: None}) is retention.best({}) is None


@functools.cache
def several():
    """A run of both stages with checkpoints 6, 8 and 10 of each, 8 the best, 6 rated otherwise."""
    place = workdirs.copy(workdirs.trained().parent / f"{workdirs.trained().name}-steps")
    for part in ("tokenizer", "generator"):
        state, step = models.restored(place / part, blank(of_workdir(place / part)[0]))
        assert step == 6
        checkpoints = Checkpoints(place / part, keep=9)
        for step, value in ((8, 0.5), (10, 0.9)):
            ema = jax.tree.map(lambda x, by=1 + step / 100: x * by, state["ema"])
            saved = {**state, "ema": ema, "step": np.int32(step)}
            checkpoints.save(step, saved, score(value, "val/of_a_test"))
        checkpoints.close()
    return place


@pytest.fixture(scope="module", autouse=True)
def removed():
    yield
    if several.cache_info().currsize:
        shutil.rmtree(several())


def run(*words):
    return main.main(["main", *map(str, words)])


def test_a_number_best_and_last_are_found_and_what_is_not_there_is_a_line(tmp_path):
    place = several() / "generator"
    found = [chosen_step.number_of(place, step) for step in ("best", "last", None, 6, 8)]
    assert found == [8, None, None, 6, 8]
    with pytest.raises(InputError, match="no checkpoint of step 7 in .*: expected one of 6, 8, 10"):
        chosen_step.number_of(place, 7)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, {"step": np.int32(3)})
    checkpoints.close()
    with pytest.raises(InputError, match="no checkpoint in .* has a score .* one of 3, or"):
        chosen_step.number_of(tmp_path, "best")
    with pytest.raises(InputError, match="there is no checkpoint in"):
        chosen_step.number_of(tmp_path / "nowhere", "best")


def test_python_loads_the_best():
    place = several()
    steps = [evqgan.load(place, step=step).step for step in ("best", "last", None, 6)]
    assert steps == [8, 10, 10, 6]
    assert evqgan.load(place / "tokenizer", step="best").step == 8
    for wrong in ("bset", 2.5, True, [8]):
        with pytest.raises(InputError, match="a whole number.*, 'best' or 'last', got"):
            evqgan.load(place, step=wrong)
    assert evqgan.load("drawings", step="last").step == evqgan.load("drawings").step
    with pytest.raises(InputError, match="holds one checkpoint alone: leave step out"):
        evqgan.load("drawings", step="best")


def test_samples_of_the_best_say_so_and_stay(tmp_path, capsys):
    place, out = f"--workdir={several()}", f"--out={tmp_path / 'out'}"
    assert not run(place, "--mode=sample", "--num=1", "--step=best", out)
    said = capsys.readouterr().out
    assert f"loading {several()}, step 8" in said and "1 sample of step 8 is in" in said
    assert "--mode=edit" in said and "--step=best --image=PICTURE" in said
    with np.load(tmp_path / "out" / "samples.npz") as made:
        assert made["step"] == 8
    png = tmp_path / "out" / "images" / "00000.png"
    assert png_records.read(png)["step"] == 8
    # Again by its record, of its own step.
    again = f"--image={png}", f"--out={tmp_path / 'again'}"
    assert not run(place, "--mode=sample", *again)
    assert "has the very pixels of" in capsys.readouterr().out
    assert run(place, "--mode=sample", *again, "--step=last") == 2
    error = capsys.readouterr().err
    assert "of step 8, whose weights are others" in error and "of step 10: load that" in error
    # Of another step that is asked for they are others.
    assert run(place, "--mode=sample", "--num=1", "--step=6", out) == 2
    assert "made with step = 8, not step = 6: give another folder" in capsys.readouterr().err
    assert run(place, "--mode=sample", "--num=1", "--step=last", out) == 2
    assert "made with step = 8, not step = 10: give another folder" in capsys.readouterr().err
    assert not run(place, "--mode=sample", "--num=1", "--step=8", out)
    assert "they are made already: 1 sample of step 8" in capsys.readouterr().out


def test_numbers_ids_and_exported_models_know_their_step(tmp_path, capsys):
    place = several()
    given = f"--workdir={place}", "--mode=evaluate", f"--out={tmp_path}"
    assert not run(*given, "--metrics=generation", "--step=best")
    cards = json.loads((tmp_path / "evaluation.json").read_text())["protocols"]
    assert cards["generation"]["model"]["step"] == 8
    assert run(*given, "--metrics=reconstruction", "--step=best") == 2
    assert f"give the tokenizer alone by --workdir={place / 'tokenizer'}" in capsys.readouterr().err
    ids = tmp_path / "ids"
    assert not run(f"--workdir={place}", "--mode=encode", f"--out={ids}", "--step=best")
    assert json.loads((ids / "info.json").read_text())["tokenizer"]["step"] == 8
    picture = next((place / "images").rglob("*.png"))
    given = f"--image={picture}", f"--out={tmp_path / 'pictures'}"
    assert not run(f"--workdir={place}", "--mode=reconstruct", *given, "--step=8")
    assert f"loading {place}, step 8" in capsys.readouterr().out
    assert run(f"--workdir={place}", "--mode=reconstruct", *given, "--step=7") == 2
    assert "there is no checkpoint of step 7" in capsys.readouterr().err
    assert gathered(str(place), say=lambda line: None, step="best").steps["generator"] == 8


@pytest.mark.parametrize(
    "words, line",
    [
        (["--step=7.5"], "--step=7.5: expected the step of a checkpoint, best or last"),
        (["--step=worst"], "--step=worst: expected the step of a checkpoint, best or last"),
        (["--mode=train", "--step=8"], "--step is a flag of --mode=encode and sample"),
    ],
)
def test_a_wrong_flag_is_a_line(words, line, capsys):
    assert run("--workdir=nowhere", "--mode=sample", *words) == 2
    assert line in capsys.readouterr().err


def test_a_model_that_is_only_pushed_or_copied_has_no_step(tmp_path, capsys):
    assert export.main(["drawings", "--push=hf://a/b", "--step=8"]) == 2
    assert "drawings is pushed as it is: leave --step out" in capsys.readouterr().err
    assert export.main(["drawings", str(tmp_path / "new"), "--step=8"]) == 2
    assert "whose weights stay as they are: leave --step out" in capsys.readouterr().err


def test_the_command_that_the_page_shows_has_the_step(tmp_path):
    model = evqgan.load("drawings")
    assert " --step=8 " in studio.Studio(model, "x", tmp_path, (), 8).command("sample", {"num": 1})
    assert "--step" not in studio.Studio(model, "x", tmp_path).command("sample", {"num": 1})
    assert [flag.name for flag in demo.FLAGS][:2] == ["workdir", "step"]
