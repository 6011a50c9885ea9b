"""The Inception score of logits whose score is known."""

import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.metrics import chunks
from evqgan.metrics.inception_score import inception_score


def logits(number=60, classes=7, seed=0):
    return np.random.default_rng(seed).standard_normal((number, classes)) * 2


def definition(rows):
    p = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    return np.exp((p * np.log(p / p.mean(0))).sum(1).mean())


@pytest.mark.parametrize("classes", [1, 2, 10, 1008])
def test_certain_classes_that_all_occur_score_their_number(classes):
    certain = 1e4 * np.tile(np.eye(classes), (3, 1))
    mean, std = inception_score(certain, splits=3, seed=None)
    assert mean == pytest.approx(classes, rel=1e-12) and std == pytest.approx(0, abs=1e-9)


def test_certain_classes_score_the_number_that_occurs():
    certain = 1e4 * np.eye(10)[np.arange(40) % 4]
    assert inception_score(certain, splits=1)[0] == pytest.approx(4, rel=1e-12)


def test_equal_predictions_score_1():
    for row in (np.zeros(10), np.arange(10.0), 1e4 * np.eye(10)[3]):
        assert inception_score(np.tile(row, (20, 1)), splits=2) == pytest.approx((1, 0), abs=1e-9)


def test_the_score_is_that_of_the_definition_split_by_split():
    x = logits(61)
    scores = [definition(x[i * 61 // 4 : (i + 1) * 61 // 4]) for i in range(4)]
    found = inception_score(x, splits=4, seed=None)
    assert found == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)
    order = np.random.RandomState(5).permutation(61)
    assert inception_score(x, 4, seed=5) == inception_score(x[order], 4, seed=None)


def test_what_softmax_does_not_see_the_score_does_not_see():
    x = logits()
    shifted = x + np.linspace(-1e5, 1e5, len(x))[:, None]
    assert inception_score(shifted) == pytest.approx(inception_score(x), rel=1e-8)


def test_the_score_is_computed_in_pieces(monkeypatch):
    x = logits()
    whole = inception_score(x, 3)
    monkeypatch.setattr(chunks, "CHUNK", 4 * 7)
    assert inception_score(x, 3) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logits_of_any_float_are_summed_in_float64(dtype):
    x = logits(2000).astype(dtype)
    assert inception_score(x) == inception_score(x.astype(np.float64))


def test_what_has_no_score_is_refused():
    with pytest.raises(InputError, match="10 images or more, got 9"):
        inception_score(logits(9))
    with pytest.raises(InputError, match="one split"):
        inception_score(logits(9), splits=0)
    with pytest.raises(InputError, match="shape"):
        inception_score(np.zeros(9))
    bad = logits()
    bad[0, 0] = np.nan
    with pytest.raises(InputError, match="logits hold NaN"):
        inception_score(bad)
