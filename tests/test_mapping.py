"""Tables of weight names."""

import numpy as np
import pytest

from evqgan.convert.mapping import Row, to_ours, to_theirs
from evqgan.core.errors import InputError

TABLE = [
    Row("stem.weight", "params/stem/kernel", "conv"),
    Row("blocks.{i}.fc.weight", "params/blocks/kernel[{i}]", "dense"),
    Row("stages.{s}.{i}.bias", "params/stage{s}/block{i}/bias"),
    Row("tail.0.bias", "params/tail/bias[1]"),
    Row("tail.1.bias", "params/tail/bias[0]"),
]


def example():
    """Weights of theirs, and the tree they are to become."""
    rng = np.random.default_rng(0)
    theirs = {
        "stem.weight": rng.standard_normal((4, 3, 2, 5)),
        **{f"blocks.{i}.fc.weight": rng.standard_normal((6, 7)) for i in range(12)},
        "stages.1.10.bias": rng.standard_normal(3),
        "tail.0.bias": rng.standard_normal(2),
        "tail.1.bias": rng.standard_normal(2),
    }
    theirs = {name: np.float32(x) for name, x in theirs.items()}
    tree = {
        "params": {
            "stem": {"kernel": theirs["stem.weight"].transpose(2, 3, 1, 0)},
            "blocks": {"kernel": np.stack([theirs[f"blocks.{i}.fc.weight"].T for i in range(12)])},
            "stage1": {"block10": {"bias": theirs["stages.1.10.bias"]}},
            "tail": {"bias": np.stack([theirs["tail.1.bias"], theirs["tail.0.bias"]])},
        }
    }
    return theirs, tree


def equal(a, b):
    assert sorted(a) == sorted(b)
    for key in a:
        if isinstance(a[key], dict):
            equal(a[key], b[key])
        else:
            np.testing.assert_array_equal(a[key], b[key])


def test_weights_arrive_and_return_bit_for_bit():
    theirs, tree = example()
    equal(to_ours(TABLE, theirs, tree), tree)
    back = to_theirs(TABLE, tree)
    equal({name: back[name] for name in theirs}, theirs)
    assert len(back) == len(theirs)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("stem.weight"), "params/stem/kernel is missing"),
        (lambda t: t.pop("blocks.3.fc.weight"), "params/blocks/kernel has the parts"),
        (
            lambda t: t.update({"head.weight": np.zeros(1)}),
            "head.weight is no name of a weight of it",
        ),
        (
            lambda t: t.update({"stages.2.10.bias": np.zeros(3)}),
            "params/stage2/block10/bias is no weight of ours",
        ),
        (
            lambda t: t.update({"stem.weight": np.zeros((4, 3, 2, 2))}),
            r"is \[2, 2, 3, 4\] there, \[2, 5, 3, 4\] here",
        ),
        (
            lambda t: t.update({"blocks.12.fc.weight": np.zeros((6, 7))}),
            "params/blocks/kernel has the parts",
        ),
    ],
)
def test_whatever_does_not_fit_is_named(change, message):
    theirs, tree = example()
    change(theirs)
    with pytest.raises(InputError, match=message):
        to_ours(TABLE, theirs, tree)


def test_nothing_is_set_twice():
    theirs, tree = example()
    twice = [*TABLE, Row("other.weight", "params/stem/kernel", "conv")]
    with pytest.raises(
        InputError, match="params/stem/kernel is set twice, the second time by other.weight"
    ):
        to_ours(twice, {**theirs, "other.weight": theirs["stem.weight"]}, tree)
    with pytest.raises(InputError, match=r"stem\.weight is mapped 2 times"):
        to_ours([*TABLE, Row("stem.weight", "params/tail/bias", "conv")], theirs, tree)


def test_only_what_is_ignored_may_be_left_out():
    theirs, tree = example()
    theirs["fc.num_batches_tracked"] = np.zeros((), np.int64)
    equal(to_ours(TABLE, theirs, tree, ignored=(r"num_batches_tracked$",)), tree)
    with pytest.raises(InputError, match="num_batches_tracked is no name of a weight of it"):
        to_ours(TABLE, theirs, tree)


def test_a_path_without_a_name_of_theirs_is_named():
    _, tree = example()
    tree["params"]["new"] = {"bias": np.zeros(2)}
    with pytest.raises(InputError, match="no name of theirs is known for params/new/bias"):
        to_theirs(TABLE, tree)
