"""Numbers about a generator: sums over all masked tokens, whatever the batches.

The samples are from a fixed seed.
"""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from evqgan.core.errors import ContractError
from evqgan.evals.generation import Evaluator

SHARES = ("0.25", "0.50", "0.75", "1.00")


@pytest.fixture(scope="module")
def counted():
    """{name: [13,2]}: of 13 images, the sum over masked tokens and their number, no two alike."""
    rng = np.random.default_rng(0)
    pairs = {}
    for name in ("cross_entropy", "accuracy"):
        for share in SHARES:
            number = rng.integers(1, 17, 13)
            pairs[f"{name}@{share}"] = np.stack(
                [rng.uniform(size=13) * number, number], axis=-1
            ).astype(np.float32)
    return pairs


def run(counted, batch_size, classes=3, seen=None, show=4):
    """The evaluator's numbers with batches of one size.

    Rows that fill the last one up would change every number.
    """

    def batches():
        for i in range(0, 13, batch_size):
            yield {"rows": np.arange(i, i + batch_size)}

    def predict(state, batch, rng):
        valid = batch["rows"] < 13
        rows = np.minimum(batch["rows"], 12)
        sums = {name: np.where(valid[:, None], x[rows], 1e6) for name, x in counted.items()}
        digest = np.zeros((batch_size, 8), np.uint32)
        return {
            "ids": np.zeros((batch_size, 2, 4, 1), np.int32),
            "valid": valid,
            "digest": digest,
            "sums": sums,
        }

    def sample(state, request):
        ids, mask, label, keys = request
        if seen is not None:
            seen.append((ids, mask, label, jax.random.key_data(keys)))
        return np.broadcast_to(
            np.asarray(label, np.uint8)[:, None, None, None], (len(ids), 8, 16, 3)
        )

    config = ConfigDict({"generator": {"classes": classes}})
    return dict(Evaluator(predict, batches, config, sample, show=show).run({}))


@pytest.mark.parametrize("batch_size", [1, 4, 13, 32])
def test_numbers_are_means_over_all_masked_tokens(counted, batch_size):
    found = run(counted, batch_size)
    for name, pairs in counted.items():
        total, number = pairs.astype(np.float64).sum(axis=0)
        assert found[name] == pytest.approx(total / number, rel=1e-5)
    expected = np.mean([found[f"cross_entropy@{share}"] for share in SHARES])
    assert found["cross_entropy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "sums, message",
    [
        ({"cross_entropy@1.00": np.ones(13)}, r"gave cross_entropy@1.00 as \[13\] for 13 images"),
        (
            {"accuracy@1.00": np.ones((13, 2))},
            "gave accuracy@1.00, expected at least one name that",
        ),
        ({}, "gave nothing, expected at least one name that begins with cross_entropy"),
        (np.ones((13, 2)), "gave ndarray, expected a dict"),
    ],
)
def test_sums_that_are_not_those_of_a_generator_are_named(sums, message):
    def predict(state, batch, rng):
        digest = np.zeros((13, 8), np.uint32)
        ids = np.zeros((13, 2, 4, 1), np.int32)
        return {"ids": ids, "valid": np.ones(13, bool), "digest": digest, "sums": sums}

    config = ConfigDict({"generator": {"classes": 0, "name": "mine"}})
    evaluator = Evaluator(predict, lambda: iter([{}]), config, None, show=0)
    with pytest.raises(ContractError, match=f"^evqgan/generators/mine.py: `evaluate` {message}"):
        dict(evaluator.run({}))


def test_no_picture_is_made_with_show_0(counted):
    seen = []
    assert "samples" not in run(counted, 4, seen=seen, show=0) and not seen


@pytest.mark.parametrize("classes, labels", [(3, [0, 1, 2, 0, 1]), (0, [0] * 5)])
def test_samples_are_of_all_classes_in_turn_and_always_the_same(counted, classes, labels):
    seen = []
    shown = [run(counted, 4, classes, seen, show=5)["samples"] for _ in range(2)]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert shown[0].shape == (2 * 8 + 2, 3 * 16 + 2 * 2, 3)
    (ids, mask, label, keys), other = seen
    assert ids.shape == (5, 2, 4, 1) and mask.shape == (5, 2, 4) and mask.all()
    np.testing.assert_array_equal(label, labels)
    np.testing.assert_array_equal(keys, other[3])
    assert len(np.unique(keys, axis=0)) == 5
