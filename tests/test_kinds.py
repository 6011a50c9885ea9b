"""Values of a config by the annotations of its constructors: what fits.

The message says what is wrong with the rest.
"""

import inspect
import math
from typing import Any, Literal

import numpy as np
import pytest

from evqgan.core import kinds

INF, NAN = math.inf, math.nan
FITS = [
    (int, [0, 7, np.int64(3)], [-1, 1.0, True, "1", None, NAN, (1,)], "a whole number from 0"),
    (float, [0, 0.5, 10**9], [-0.5, NAN, INF, False, "1", None], "a number from 0"),
    (bool, [True, False], [0, 1, "True", None], "True or False"),
    (str, ["", "x"], [1, None, ("x",)], "a text"),
    (dict, [{}, {"a": 1}], [None, 1, ()], "keys of its own"),
    (kinds.Positive, [1, 10**12], [0, -1, 1.0, True], "a whole number from 1"),
    (kinds.Seed, [0, 2**32 - 1], [2**32, -1, 0.0], "a whole number from 0 to 4294967295"),
    (kinds.Share, [0, 1, 0.5], [1.1, -0.1, NAN], "a number from 0 to 1"),
    (kinds.PartialShare, [0, 0.99], [1, 1.0], "a number from 0 to below 1"),
    (kinds.Above0, [1e-9], [0, -1, INF], "a number above 0"),
    (kinds.Signed, [-1.5, 0, 3.4e38], [NAN, INF, 1e39, -1e308], "a number"),
    (
        kinds.Several,
        [(1,), (2, 2)],
        [(), (0,), 3, (1, -2), (1.0,)],
        "a list of at least one whole number from 1",
    ),
    (
        kinds.Steps,
        [0, 10, "5%", "20 epochs", "1_000 steps"],
        [-1, "x", "5 years", None, NAN, True],
        '"20 epochs" or "5%"',
    ),
    (kinds.Often, [1, "5%"], [0, "0 steps", "0%"], "more than 0"),
    (kinds.Whole, [1, "20 epochs"], ["5%", "0 epochs"], '"1000 steps" or "20 epochs"'),
    (kinds.Dtype, ["float32", "bfloat16"], ["float16", 32, None], "one of float32, bfloat16"),
    (Literal[-1] | kinds.Positive, [-1, 1], [0, -2, "1"], "one of -1 or a whole number from 1"),
    (
        int | tuple[int, int],
        [3, (3, 4)],
        [(3,), (3, -4), (1, 2, 3)],
        "a whole number from 0 or (a whole number from 0, a",
    ),
    (
        dict[str, kinds.Share],
        [{}, {"a": 0.5}],
        [{"a": 2}, None],
        "keys of its own, each a number from 0 to 1",
    ),
    (tuple[kinds.Share, ...], [(), (1, 0.5)], [(2,), "1"], "a list (on a command line a,b or "),
    (float | None, [None, 1.0], [-1, "x"], "a number from 0 or None"),
    (Any, ["x", None, (1,)], [NAN], "a value of type Any"),
]


@pytest.mark.parametrize("kind, good, bad, words", FITS, ids=[str(row[3]) for row in FITS])
def test_what_fits_and_what_is_said(kind, good, bad, words):
    assert all(kinds.fits(value, kind) for value in good)
    assert not any(kinds.fits(value, kind) for value in bad)
    assert words in kinds.describe(kind)


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (tuple[Literal["a", "b"], ...], "a,b", ("a", "b")),
        (tuple[Literal["a", "b"], ...], "a", ("a",)),
        (tuple[Literal["a", "b"], ...], "a,c", "a,c"),  # what was given is said
        (tuple[str, ...], "a, b", ("a", "b")),
        (tuple[str, ...], ("a,b",), ("a,b",)),
        (str | tuple[str, ...], "a,b", "a,b"),
        (str, "a,b", "a,b"),
        (int, "1,2", "1,2"),
    ],
)
def test_a_text_with_commas_is_a_list_where_one_is_wanted(kind, value, read):
    assert kinds.read(value, kind) == read


def test_a_parameter_without_annotation_takes_what_its_default_is():
    def function(a, b=1, c=None, d: int | None = None, e: float = 1.0):
        pass

    found = {name: kinds.of(x) for name, x in inspect.signature(function).parameters.items()}
    assert found == {"a": Any, "b": int, "c": Any, "d": int | None, "e": float}
