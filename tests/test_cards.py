"""What the cards of evaluations say of whether two numbers of a run were measured alike."""

import copy
import json

import pytest

from evqgan.core import cards, files


def evaluation(evaluator, numbers, count=8, **card):
    """An evaluation of so many samples, as training notes it."""
    card = {
        "protocol": "folder",
        "weights": "EMA",
        "model": {"workdir": "run", "step": 5, "fingerprint": "ab"},
        "real": {"source": "folder", "count": 9, "digest": "cd"},
        "heldout": None,
        "produced": {"count": count, "seed": 0, "sampler": {"steps": 4}},
        "features": [{"name": "pixels", "resize": "none"}],
        "settings": {"metrics": ["frechet"]},
        "run": {"code": "ef", "commit": "", "jax": "0.10", "device": "cpu", "dtype": "float32"},
        "warnings": [],
        **card,
    }
    return {
        "numbers": numbers,
        "protocols": {evaluator: {"numbers": [*numbers], "evaluator": evaluator, **card}},
    }


def changed(place, value):
    """The card of an evaluation with another value at a place."""
    card = copy.deepcopy(evaluation("distribution", {"fid": 1.0})["protocols"]["distribution"])
    *sections, name = place
    tree = card
    for section in sections:
        tree = tree[section]
    tree[name] = value
    return card


SAME = [
    ("model", "step"),
    ("run", "commit"),
    ("run", "device"),
    ("run", "code"),
    ("real", "source"),
    ("settings", "metrics"),
    ("warnings",),
    ("numbers",),
]
OTHER = [
    ("produced", "count"),
    ("produced", "seed"),
    ("produced", "sampler", "steps"),
    ("real", "digest"),
    ("features", 0, "resize"),
    ("settings", "batch_size"),
    ("protocol",),
]


@pytest.mark.parametrize("place", [*SAME, *OTHER], ids=lambda place: ".".join(map(str, place)))
def test_a_measurement_is_what_decides_the_number_and_not_of_which_model_or_where(place):
    one, other = changed(place, ["x"]), changed(place, ["y"])
    assert (cards.measurement_digest(one) == cards.measurement_digest(other)) == (place in SAME)


def test_a_fingerprint_outlives_json_and_what_is_not_said():
    card = changed(("heldout",), None)
    there = json.loads(json.dumps(card))
    del there["heldout"]
    assert cards.measurement_digest(card) == cards.measurement_digest(there)


def test_what_is_measured_otherwise_is_named_with_what_differs():
    before = evaluation("distribution", {"fid": 1.0, "kid": 2.0})
    now = evaluation("distribution", {"fid": 0.5, "is": 2.0}, 64)
    assert cards.remeasured(before, now) == ["val/fid (produced.count: 8 -> 64)"]
    assert not cards.remeasured(before, before)
    assert not cards.remeasured(before, evaluation("generation", {"fid": 0.5}, 64))
    found = cards.measurements(now)
    assert found.keys() == {"val/fid", "val/is"} and len({*found.values()}) == 1


def test_the_last_evaluation_up_to_a_step_is_found(tmp_path):
    assert cards.latest(tmp_path, 5) is None
    for step in (2, 4, 12):
        noted = evaluation("distribution", {"fid": float(step)})
        files.save_json(cards.file_of(tmp_path, step), noted)
    assert cards.latest(tmp_path, 1) is None
    assert cards.latest(tmp_path, 5) == (4, evaluation("distribution", {"fid": 4.0}))
    assert cards.latest(tmp_path, 12)[0] == 12


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"numbers": {}}', '{"protocols": {"a": 3}}', "[" * 10**5]
)
def test_a_damaged_evaluation_says_nothing(text, tmp_path):
    file = cards.file_of(tmp_path, 3)
    file.parent.mkdir()
    file.write_text(text)
    assert not cards.measurements(cards.of_step(tmp_path, 3))
    assert not cards.measurements(cards.of_step(tmp_path, 4))
