"""The notation of splits."""

import pytest

from evqgan.core.errors import InputError
from evqgan.data.splits import select

SPLITS = {"train": list(range(10)), "test": list(range(100, 104))}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[-2:]", (8, 9)),
        ("train[20%:50%]", (2, 3, 4)),
        ("train[:-90%]", (0,)),
        ("test[:1]+train[9:]", (100, 9)),
        (" train[:] + test ", (*range(10), *range(100, 104))),
    ],
)
def test_select(spec, expected):
    assert select(spec, SPLITS, "it") == list(expected)


def test_percents_part_a_split_without_gap_or_overlap():
    for length in range(20, 60):
        splits = {"train": list(range(length))}
        parts = [select(f"train[{p}%:{p + 10}%]", splits, "it") for p in range(0, 100, 10)]
        assert [k for part in parts for k in part] == splits["train"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tain", "it has no split 'tain': did you mean 'train'?"),
        ("train[", "it: expected a split such as"),
        ("train[:1.5%]", "it: expected a split such as"),
        ("", "it: expected a split such as"),
        ("train[10:]", "it: the split 'train\\[10:\\]' holds no example"),
    ],
)
def test_wrong_splits_are_named(spec, message):
    with pytest.raises(InputError, match=message):
        select(spec, SPLITS, "it")
