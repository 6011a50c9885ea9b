"""Cards: what may differ between comparable numbers, and what is refused in one line."""

import copy
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import compare as compared
from evqgan.evals import provenance
from evqgan.evals.image_set import ImageSet, Tally
from evqgan.evals.provenance import Measured, ModelCard, Produced, Subject

REAL = ImageSet(
    source="/data/faces",
    split="train",
    count=60_000,
    size=(256, 256),
    crop="adm",
    resize="Pillow: box halving, then bicubic",
    pixels="as decoded",
    digest="0123456789abcdef",
    digest_of="pixels",
)
FEATURES = {"name": "inception", "resize": "bilinear", "weights": {"inception": "aaaa"}}
MEASURED = Measured(
    protocol="adm",
    produced=Produced("samples", 50_000, (256, 256), seed=0, labels="none"),
    real=REAL,
    features=[FEATURES],
    settings={"metrics": ["frechet"], "views": 1},
)


def subject(step):
    """The model of a card, at one of its steps."""
    model = ModelCard("workdir", step, f"fingerprint {step}", "")
    return Subject(model, "EMA", "bfloat16", {"steps": 8})


def evaluation(step=1, fid=10.0):
    """An evaluation as JSON has it."""
    found = {"numbers": {}, "protocols": {}}
    provenance.enter(found, {"fid_inception": fid}, subject(step).card("distribution", MEASURED))
    return json.loads(json.dumps(found))


@pytest.mark.parametrize(
    "ema, weights", [({}, "EMA"), ({"ema": 0.9}, "EMA"), ({"ema": 0.0}, "raw")]
)
def test_a_card_says_whether_weights_are_averaged(ema, weights):
    """Where the config leaves the key out they are, as in training."""
    config = ConfigDict({"stage": "stage1", "dtype": "float32", "optimizer": ema})
    state = {"ema": {"kernel": np.ones(2)}, "codebook": {"codes": np.ones(2)}}
    of = provenance.subject(config, "workdir", 1, state)
    assert of.card("distribution", MEASURED).weights == weights


def changed(found, place, value):
    """An evaluation with another value at a place of its card."""
    found = copy.deepcopy(found)
    *path, last = place.split(".")
    card = found["protocols"]["distribution"]
    for name in path:
        card = card[int(name) if isinstance(card, list) else name]
    assert card[last] != value
    card[last] = value
    return found


def compare(tmp_path, first, second, *flags):
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file, found in zip(files, (first, second), strict=True):
        file.write_text(json.dumps(found))
    return benchmark.main(["compare", *map(str, files), *flags])


@pytest.mark.parametrize(
    "place, value",
    [
        ("protocol", "folder"),
        ("weights", "raw"),
        ("real.split", "validation"),
        ("real.count", 50_000),
        ("real.size", [128, 128]),
        ("real.crop", "centre"),
        ("real.resize", "bilinear"),
        ("real.pixels", "truncated"),
        ("real.digest", "another"),
        ("produced.count", 10_000),
        ("produced.pixels", "truncated"),
        ("produced.seed", 1),
        ("produced.sampler.steps", 12),
        ("features.0.resize", "bicubic"),
        ("features.0.weights.inception", "random"),
        ("settings.views", 16),
        ("run.code", "another"),
        ("run.device", "another"),
        ("run.dtype", "float32"),
    ],
)
def test_what_decides_a_number_must_agree_or_be_named(tmp_path, capsys, place, value):
    first = evaluation()
    other = changed(evaluation(2, 12.5), place, value)
    assert compare(tmp_path, first, other) == 2
    said = capsys.readouterr()
    (line,) = (said.err + said.out).strip().splitlines()
    assert f"differ: {place} is " in line and " in B (distribution); measure" in line
    assert "cards of A, " in line and f" in A, {value!r} in B" in line
    assert compare(tmp_path, first, other, f"--differ={place}") == 0
    assert "2.5" in capsys.readouterr().out


def test_all_differences_of_all_cards_are_named_at_once(tmp_path, capsys):
    first, other = evaluation(), evaluation(2, 12.5)
    for place in ("weights", "run.code", *(f"real.{x}" for x in ("split", "crop", "resize"))):
        other = changed(other, place, "another")
    for found in (first, other):
        card = copy.deepcopy(found["protocols"]["distribution"])
        found["protocols"]["samples"] = {**card, "numbers": ["frechet_pixels"]}
        found["numbers"]["frechet_pixels"] = 1.0
    other["protocols"]["samples"] |= {"protocol": "folder", "weights": "EMA"}
    other["protocols"]["samples"]["produced"]["count"] = 7
    assert compare(tmp_path, first, other) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    places = ["real.crop", "real.resize", "real.split", "run.code", "weights"]
    shown = [*places[:4], "weights is 'EMA' in A, 'another' in B (distribution)"]
    assert all(text in line for text in shown) and "; and 1 more;" in line
    assert (
        "real.crop is 'adm' in A, 'another' in B (distribution, samples)" in line
    )  # once for both
    differ = line.split("--differ=")[1]
    assert differ == ",".join([*places, "produced.count", "protocol"])
    assert compare(tmp_path, first, other, f"--differ={differ}") == 0


def test_names_of_older_versions_are_said(tmp_path, capsys):
    new, old = evaluation(), evaluation()
    for found, name in ((new, "frechet_pixels"), (old, "frechet")):
        found["numbers"][name] = 3.0
        found["protocols"]["distribution"]["numbers"].append(name)
    assert compare(tmp_path, old, new) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "a.json is of an older version: frechet there is called frechet_pixels now" in first
    assert compare(tmp_path, old, old) == 0
    out = capsys.readouterr().out
    assert "older version" not in out and out.split()[-4:] == ["frechet", "3", "3", "0"]


@pytest.mark.parametrize(
    "place, value",
    [
        ("real.source", "/other/faces"),
        ("warnings", ["few"]),
        ("settings.metrics", ["frechet", "mmd"]),
    ],
)
def test_models_and_places_may_differ(tmp_path, capsys, place, value):
    assert compare(tmp_path, evaluation(), changed(evaluation(7, 12.5), place, value)) == 0
    told = capsys.readouterr().out
    assert "workdir at step 1 " in told and "workdir at step 7 " in told
    assert told.strip().splitlines()[-1].split() == ["fid_inception", "10", "12.5", "2.5"]


@pytest.mark.parametrize("missing", compared.ON_A_CARD)
def test_numbers_whose_cards_say_nothing_are_not_compared(tmp_path, capsys, missing):
    found = evaluation()
    del found["protocols"]["distribution"][missing]
    assert compare(tmp_path, found, found) == 2
    line = capsys.readouterr().err
    assert f"a.json: the card of distribution says nothing of {missing}: its numbers" in line


@pytest.mark.parametrize(
    "place, value", [("model", "m"), ("features", "f"), ("features", ["f"]), ("features", [{}])]
)
def test_cards_of_another_form_are_one_line(tmp_path, capsys, place, value):
    found = changed(evaluation(), place, value)
    assert compare(tmp_path, found, found) == 2
    assert f"the card of distribution says nothing of {place}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "made_by, step, mark, warned",
    [
        (provenance.MadeBy(1, "fingerprint 1", ""), 1, "fingerprint 1", ""),
        (provenance.MadeBy(1), 1, "fingerprint 1", ""),  # of a file that does not say whose weights
        (
            provenance.MadeBy(2, "fingerprint 2", ""),
            2,
            "fingerprint 2",
            "are of step 2, the model of 1",
        ),
        (provenance.MadeBy(1, "other", ""), 1, "other", "are of other weights than the model's"),
    ],
)
def test_finished_samples_are_of_the_model_that_their_file_says(made_by, step, mark, warned):
    card = subject(1).card("samples", dataclasses.replace(MEASURED, made_by=made_by))
    assert (card.model.step, card.model.fingerprint) == (step, mark)
    assert len(card.warnings) == bool(warned) and warned in "".join(card.warnings)
    assert "made_by" not in card.as_json()


def test_a_place_that_no_card_has_is_refused(tmp_path, capsys):
    assert compare(tmp_path, evaluation(), evaluation(), "--differ=foo.bar") == 2
    assert "no card has the place 'foo.bar'" in capsys.readouterr().err


def test_files_without_a_number_in_common_are_refused(tmp_path, capsys):
    other = {"numbers": {}, "protocols": {}}
    assert compare(tmp_path, evaluation(), other) == 2
    assert "no number of the same name" in capsys.readouterr().err
    assert benchmark.main(["compare", str(tmp_path / "a.json")]) == 2
    assert "expects two files" in capsys.readouterr().err
    assert benchmark.main(["compare", "absent.json", "absent.json"]) == 2
    for damaged in ([], {"a": [], "numbers": []}, {"a": {}}, {"a": {"numbers": 3}}):
        other = {"numbers": {}, "protocols": damaged}
        assert compare(tmp_path, evaluation(), other) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "b.json is not what evaluate writes" in line
        assert line.endswith("give an evaluation.json")  # and not: move it away


@pytest.mark.parametrize(("value", "said"), [("oops", "is 'oops', no number"), (None, "missing")])
def test_what_is_no_number_is_refused(tmp_path, capsys, value, said):
    other = evaluation()
    name = next(iter(other["numbers"]))
    other["numbers"].pop(name)
    if value:
        other["numbers"][name] = value
    assert compare(tmp_path, evaluation(), other) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"b.json is not what evaluate writes: {name}" in line and said in line


def test_networks_of_other_numbers_do_not_matter(tmp_path, capsys):
    """Only those behind a number that both have."""
    found = evaluation()
    pixels = {"name": "pixels", "resize": "averaged"}
    both = Measured(**{**vars(MEASURED), "features": [pixels, FEATURES]})
    numbers = {"frechet_pixels": 1.0, "fid_inception": 11.0}
    other = {"numbers": {}, "protocols": {}}
    provenance.enter(other, numbers, subject(2).card("distribution", both))
    assert compare(tmp_path, found, json.loads(json.dumps(other))) == 0
    out = capsys.readouterr().out
    assert "fid_inception" in out and "frechet_pixels" not in out
    changed_weights = changed(other, "features.1.weights.inception", "bbbb")
    assert compare(tmp_path, found, json.loads(json.dumps(changed_weights))) == 2


def test_numbers_that_are_not_finite_are_shown_as_none(tmp_path, capsys):
    found = provenance.finite(evaluation(fid=float("nan")))
    assert compare(tmp_path, found, evaluation(2)) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].split()[1:] == ["-", "10", "-"]


def test_a_number_replaces_what_its_evaluator_said_before():
    found = evaluation(1)
    found["numbers"] |= {"b": 2, "c": 3}
    found["protocols"]["distribution"]["numbers"].append("b")
    found["protocols"]["other"] = {"numbers": ["c"]}
    provenance.enter(found, {"d": 4}, subject(2).card("distribution", MEASURED))
    assert found["numbers"] == {"c": 3, "d": 4} and found["protocols"].keys() == {
        "distribution",
        "other",
    }
    card = found["protocols"]["distribution"]
    assert card["numbers"] == ["d"] and card["model"]["step"] == 2


def test_a_number_of_another_evaluator_makes_way_and_that_is_said(capsys):
    """Of a file from before, too, in which two cards claim a number."""
    found = evaluation(1)
    provenance.enter(found, {"frechet_pixels": 4, "own": 5}, subject(2).card("samples", MEASURED))
    assert not capsys.readouterr().out
    provenance.enter(found, {"frechet_pixels": 6}, subject(2).card("distribution", MEASURED))
    said = "frechet_pixels of samples made way for distribution's\n"
    assert capsys.readouterr().out == said
    claimed = {name: card["numbers"] for name, card in found["protocols"].items()}
    assert claimed == {"distribution": ["frechet_pixels"], "samples": ["own"]}
    assert found["numbers"] == {"frechet_pixels": 6, "own": 5}
    found["protocols"]["samples"]["numbers"].append("frechet_pixels")
    provenance.enter(found, {"mmd_pixels": 7}, subject(2).card("distribution", MEASURED))
    assert found["numbers"] == {"own": 5, "mmd_pixels": 7}
    assert found["protocols"]["samples"]["numbers"] == ["own"]


def test_a_fingerprint_is_of_every_weight_its_place_and_dtype():
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": {"c": np.float32(1)}}
    expected = provenance.fingerprint(tree)
    assert len(expected) == 16 and expected == provenance.fingerprint(jax.device_get(tree))
    others = (
        {**tree, "a": tree["a"].at[1, 2].add(1e-6)},
        {**tree, "a": tree["a"].reshape(3, 2)},
        {**tree, "a": tree["a"].astype(jnp.bfloat16)},
        {"b": tree["b"], "z": tree["a"]},
    )
    assert len({expected, *map(provenance.fingerprint, others)}) == 5


def test_a_tally_is_the_same_however_batches_are_cut_and_filled_up():
    digests = np.random.default_rng(0).integers(0, 2**32, (7, 8), np.uint32)
    found = set()
    for size in (1, 3, 7, 8):
        tally = Tally()
        for start in range(0, 7, size):
            index = np.arange(start, start + size)
            tally.add(index < 7, digests[index.clip(max=6)])
        found.add((tally.count, tally._hash.hexdigest()))
    assert len(found) == 1 and found.pop()[0] == 7
