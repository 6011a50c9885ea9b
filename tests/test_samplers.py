"""The scan of sampler settings: what it measures, what it chooses, and the preset it writes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import workdirs
from ml_collections import ConfigDict

import evqgan
from evqgan import main
from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import front
from evqgan.benchmark.real_images import Beside
from evqgan.benchmark.sampler_measuring import Measurements
from evqgan.benchmark.sampler_scan import (
    Measured,
    chosen,
    effective,
    front_of,
    half_width,
    holds,
    search,
    untried,
)
from evqgan.core import presets, ticks
from evqgan.core.errors import InputError
from evqgan.evals.image_set import ImageSet

DEFAULTS = {"steps": 8, "choice": "confidence", "choice_temperature": 4.5, "remask": 0.0}
DEFAULTS |= {"schedule": "cosine", "remask_schedule": "rescale"}


def one(name, distance, seconds=1.0, share=0.9, sd=0.01):
    distances, shares = (
        tuple(x + s * np.array([-1, 0, 1])) for x, s in ((distance, sd), (share, 0.001))
    )
    return Measured({"name": name}, distances, shares, seconds)


def test_error_bars_are_students():
    a, b = (1.0, 2.0, 3.0), (2.0, 4.0, 6.0)
    # scipy.stats.ttest_ind(a, b).confidence_interval(0.95) is -2 +- 3.5842
    assert half_width(a, b) == pytest.approx(3.5842, abs=1e-3)
    assert half_width((1.0,), (2.0,)) == 0.0


def test_ties_go_to_the_cheaper_setting_and_fewer_in_class_are_not_taken():
    preset = one("preset", 0.42)
    best, cheap, dear = one("best", 0.35), one("cheap", 0.36, 0.5), one("dear", 0.355, 2.0)
    far, wrong = one("far", 0.40, 0.1), one("wrong", 0.2, share=0.8)
    assert chosen([preset, best, cheap, dear, far, wrong], preset) == cheap
    assert chosen([preset, best, dear, far], preset) == best
    assert chosen([preset, wrong], preset) == preset
    assert chosen([preset, best, one("as cheap", 0.352, 0.98)], preset) == best


def test_of_ties_that_cost_the_same_the_one_with_fewer_changes_is_taken():
    def of(steps, schedule, middle, seconds):
        distances = (middle - 0.01, middle, middle + 0.01)
        return Measured({"steps": steps, "schedule": schedule}, distances, (), seconds)

    preset, plain = of(8, "cosine", 0.42, 2.0), of(4, "cosine", 0.35, 1.0)
    odd, lucky = of(4, "square", 0.345, 0.9), of(4, "linear", 0.34, 1.0)
    assert chosen([preset, plain, odd, lucky], preset) == plain
    assert chosen([preset, odd, lucky], preset) == lucky


def test_a_choice_holds_if_it_is_better_or_ties_and_is_cheaper():
    preset = one("preset", 0.42)
    assert holds(one("better", 0.35), preset) and holds(one("as good", 0.425, 0.5), preset)
    assert not holds(one("by chance", 0.41), preset) and not holds(one("worse", 0.5, 0.1), preset)
    assert not holds(one("out of class", 0.2, share=0.8), preset)
    without = Measured({}, preset.distances, (), 1.0)
    assert holds(Measured({}, (0.3, 0.3, 0.3), (), 1.0), without)


def test_the_front_has_nothing_nearer_and_cheaper():
    points = [one("a", 0.5, 1), one("b", 0.4, 2), one("c", 0.45, 3), one("d", 0.3, 3)]
    assert [x.setting["name"] for x in front_of(reversed(points))] == ["a", "b", "d"]


def test_settings_that_make_the_same_images_are_one():
    once = effective({**DEFAULTS, "steps": 1, "choice": "halton", "remask": 0.3}, DEFAULTS)
    assert once == {**DEFAULTS, "steps": 1}
    halton = effective({**DEFAULTS, "choice": "halton", "choice_temperature": 9.0}, DEFAULTS)
    assert halton == {**DEFAULTS, "choice": "halton"}
    assert effective({**DEFAULTS, "remask_schedule": "cap"}, DEFAULTS) == DEFAULTS
    assert effective({"temperature": 0.9}, {"temperature": 1.0}) == {"temperature": 0.9}
    preset = {**DEFAULTS, "choice_temperature": 9.0}  # of what counts for nothing, its own values
    assert effective({**preset, "steps": 1}, preset) == {**preset, "steps": 1}


def measured_by(log):
    """A measure with its optimum at steps 4, choice_temperature 9; every step costs."""

    def measure(setting):
        log.append((setting["steps"], setting["choice_temperature"]))
        distance = abs(setting["steps"] - 4) + abs(setting["choice_temperature"] - 9)
        return Measured(setting, (distance, distance), (), setting["steps"])

    return measure


def test_a_small_scan_is_a_grid_and_a_large_one_goes_key_by_key():
    values = {"steps": (2, 4), "choice_temperature": (0.0, 9.0)}
    preset = {"steps": 8, "choice_temperature": 4.5}
    log = []
    found = search(preset, values, 9, measured_by(log))
    assert len(set(log)) == len(log) == 9 and log[0] == (8, 4.5)
    log.clear()
    found = search(preset, values, 8, measured_by(log))
    assert log == [(8, 4.5), (2, 4.5), (4, 4.5), (4, 0.0), (4, 9.0), (2, 9.0)]
    assert chosen(found, found[0]).setting == {"steps": 4, "choice_temperature": 9.0}
    log.clear()
    assert not untried(values, found)
    found = search(preset, values, 3, measured_by(log := []))
    assert len(found) == len(log) == 3
    assert untried(values, found) == {"choice_temperature": [0.0, 9.0]}


def test_ticks_are_round_and_the_picture_shows_every_point():
    assert ticks.ticks(0.31, 0.72) == pytest.approx([0.4, 0.5, 0.6, 0.7])
    assert ticks.log_ticks(0.9, 25) == [1, 2, 5, 10, 20]
    assert ticks.log_ticks(3.0, 6.5) == pytest.approx([3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5])
    points = [
        front.Point(1.0, 0.5, 0.02, "steps=1", ("front",)),
        front.Point(8.0, 0.4, 0.01, "the preset", ("preset",)),
        front.Point(4.0, 0.3, 0.01, "steps=4 " * 20, ("chosen", "front")),
        front.Point(6.0, 0.45, 0.0, "no name"),
    ]
    picture = front.picture(points, "seconds", "distance")
    colours = {tuple(x) for x in picture.reshape(-1, 3)}
    assert {front.GREEN, front.RED, front.BLUE, front.GREY} <= colours
    assert front.picture(points[:1], "seconds", "distance").shape == picture.shape


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A trained workdir, and what a scan of three settings of it leaves: (workdir, out, rows)."""
    out = tmp_path_factory.mktemp("scan")
    rows = out / "rows.json"
    assert call(out, f"--json={rows}") == 0
    return workdirs.trained(), out, json.loads(rows.read_text())["rows"]


def call(out, *args):
    few = ["--num=20", "--seeds=2", "--scan.steps=1,2", "--config.sample.steps=2", "--budget=3"]
    return benchmark.main(
        ["samplers", f"--workdir={workdirs.trained()}", f"--out={out}", *few, *args]
    )


def test_a_scan_says_what_it_measured_and_does_nothing_again(
    scanned, tmp_path, monkeypatch, capsys
):
    _, out, rows = scanned
    assert [x["setting"] for x in rows[:2]] == ["the preset", "steps=1"]
    assert rows[-1]["setting"] == "real images, held out"
    for row in rows[:2]:
        assert row["seeds"] == "0-1" and row["frechet_pixels"] > 0 and row["seconds_per_image"] > 0
        assert row["frechet_pixels_sd"] >= 0 and 0 <= row["sample_accuracy"] <= 1
        assert row["card"]["produced"]["seed"] == [0, 1] and row["card"]["real"]["digest"]
    assert [row["card"]["produced"]["sampler"]["steps"] for row in rows[:2]] == [2, 1]
    assert "preset" in rows[0]["note"] and (out / "front.png").is_file()
    before = (out / "scan.json").read_bytes()
    monkeypatch.setattr(Measurements, "_compile", None)  # whoever would measure something fails
    assert call(out) == 0 and (out / "scan.json").read_bytes() == before
    told = capsys.readouterr().out
    assert "ETA" not in told and "was used up" not in told
    shutil.copytree(out, tmp_path / "copy")
    assert call(tmp_path / "copy", "--budget=1") == 0
    told = capsys.readouterr().out
    assert "--budget=1 was used up before these were measured: steps 1\n" in told
    assert call(out, "--num=30") == 2
    assert "num: 20 -> 30): give another --out" in capsys.readouterr().err


def test_a_scan_beside_other_images_or_of_another_network_is_another(tmp_path, capsys):
    model = evqgan.load(workdirs.trained(), batch_size=4)
    images = ImageSet("a", "train", 3, (8, 8), "centre", "area", "uint8", "abc", "pixels")
    card = {"name": "mine", "weights": {"mine": "abc"}}
    real = Beside(None, images, images, {"views": 1}, [card])
    given = "frechet_mine", 20, 2, 3, tmp_path / "scan.json"
    first = Measurements(model, real, *given)
    kept = {"protocol": first.protocol, "measured": {"a setting": {"frechet_mine": 1.0}}}
    given[-1].write_text(json.dumps(kept))
    assert Measurements(model, real, *given).known == kept["measured"]
    moved = real._replace(train=dataclasses.replace(images, source="b"))
    assert Measurements(model, moved, *given).known == kept["measured"]
    others = {
        "train": dataclasses.replace(images, digest="abd"),
        "settings": {"views": 2},
        "features": [{**card, "weights": {"mine": "abd"}}],
    }
    for name, value in others.items():
        other = real._replace(**{name: value})
        with pytest.raises(InputError, match="was measured otherwise .*: give another --out"):
            Measurements(model, other, *given)
        assert not Measurements(model, other, *given, anew=True).known
        assert "was measured otherwise (" in (said := capsys.readouterr().out)
        assert said.endswith("and is begun anew\n")


def test_the_preset_is_what_samples_are_made_by(scanned, tmp_path, capsys):
    workdir, out, rows = scanned
    kept = json.loads((out / "sample.json").read_text())
    (steps,) = [2 if "preset" in x["note"] else 1 for x in rows if "chosen" in str(x["note"])]
    assert kept["generator"] == "multigrained" and kept["sample"]["steps"] == steps
    kept["sample"] |= {"steps": 3, "choice": "halton"}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(kept))
    given = ["main", "--mode=sample", f"--workdir={workdir}", f"--preset={file}", "--num=2"]
    assert main.main([*given, f"--out={tmp_path / 's'}", "--config.sample.top_p=0.9"]) == 0
    with np.load(tmp_path / "s" / "samples.npz") as made:
        sampler = json.loads(made["sampler"].item())
        images = evqgan.load(workdir).generate(2, steps=3, choice="halton", top_p=0.9)
        np.testing.assert_array_equal(made["arr_0"], images)
    assert (sampler["steps"], sampler["choice"], sampler["top_p"]) == (3, "halton", 0.9)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "is not a preset of a sampler"),
        ("\x89PNG", "is cut short or changed at .*; give such a file$"),
        ('{"sample": {}}', "it lacks generator or sample"),
        (
            '{"generator": "gpt", "sample": {}}',
            "for the generator gpt: here is the generator maskgit",
        ),
    ],
)
def test_a_wrong_preset_is_one_line(tmp_path, text, message):
    file = tmp_path / "preset.json"
    file.write_text(text)
    config = ConfigDict({"stage": "stage2", "generator": {"name": "maskgit"}, "sample": {}})
    with pytest.raises(InputError, match=message) as error:
        presets.apply(config, file)
    assert "\n" not in str(error.value) and config.sample.to_dict() == {}


@pytest.mark.parametrize(
    "args, message",
    [
        (["--scan.step=1"], "the sampler has no key 'step' to scan: did you mean 'steps'"),
        (["--scan.steps=1,,2"], "expected --scan.steps=VALUE,VALUE,..."),
        (["--scan.steps=0"], "steps expects a whole number from 1 to 4096, got 0"),
        (["--scan.guidance=1"], "trained without generator.class_dropout"),
        (["--config.seed=1"], "samplers takes --config.sample.KEY=VALUE, got --config.seed=1"),
        (["--scam.steps=1"], "there is no flag --scam.steps"),
        (["--features=inceptoin"], "did you mean 'inception'"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(tmp_path, capsys, args, message):
    out = tmp_path / "out"
    assert call(out, *args) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json"))
