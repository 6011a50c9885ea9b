"""Work in chunks: all of it, once, and none larger than asked; checks of features."""

import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.metrics import chunks


@pytest.mark.parametrize("number, width", [(0, 3), (1, 3), (10, 3), (10, 100), (9, 1)])
def test_slices_are_all_rows_in_order_and_small(monkeypatch, number, width):
    monkeypatch.setattr(chunks, "CHUNK", 9)
    cuts = list(chunks.slices(number, width))
    rows = [row for cut in cuts for row in range(number)[cut]]
    assert rows == list(range(number))
    assert all((cut.stop - cut.start) * width <= max(9, width) for cut in cuts)


@pytest.mark.parametrize("piece", [1, 10, 50, 10_000])
def test_each_pair_of_rows_meets_once_in_small_tiles(monkeypatch, piece):
    monkeypatch.setattr(chunks, "CHUNK", piece)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (11, 3)).astype(np.uint8), rng.random((17, 3)).astype(np.float32)
    origin, met = np.array([1.0, 2, 3]), np.zeros((11, 17), int)
    for i, j, x, y in chunks.tiles(a, b, origin):
        met[i, j] += 1
        assert x.dtype == y.dtype == np.float64
        np.testing.assert_array_equal(x, a[i] - origin)
        np.testing.assert_array_equal(y, b[j].astype(np.float64) - origin)
        assert max(x.size, y.size, len(x) * len(y)) <= max(piece, 3)
    assert (met == 1).all()


def test_distances_of_bytes_are_exact_and_those_of_equal_rows_0():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20, 3000)).astype(np.float64)
    y = x.copy()
    y[:, 7] = 255 - y[:, 7]
    expected = ((x[:, None] - y) ** 2).sum(-1)
    np.testing.assert_array_equal(chunks.squared_distances(x, y, integers=True), expected)
    white = np.full((2, 800_000), 255.0)
    white[1, 0] = 254
    assert chunks.squared_distances(white[:1], white[1:], integers=True) == 1


@pytest.mark.parametrize("width", [1, 24, 2048])
@pytest.mark.parametrize("make", ["standard_normal", "random"])
def test_equal_rows_of_floats_are_at_0_and_others_are_not(width, make):
    x = getattr(np.random.default_rng(width), make)((100, width))
    found = chunks.squared_distances(x, x[::-1].copy())[:, ::-1]
    assert (np.diagonal(found) == 0).all()
    assert (found[~np.eye(100, dtype=bool)] > 0).all()
    near = chunks.squared_distances(x, x * (1 + 1e-5))
    np.testing.assert_allclose(np.diagonal(near), 1e-10 * (x**2).sum(1), rtol=0.01)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros(3), r"float64 \[3\]"),
        (np.zeros((3, 2, 2)), r"\[3, 2, 2\]"),
        (np.zeros((3, 0)), r"\[3, 0\]"),
        (np.zeros((3, 2), complex), "complex128"),
        (np.zeros((3, 2), bool), "bool"),
        (np.full((3, 2), "x"), "<U1"),
        (np.zeros((3, 2), object), "object"),
        (np.zeros((1, 2)), "of 2 images or more, got 1"),
        (np.zeros((3, 5)), "2 numbers each, got 5"),
        (np.full((3, 2), np.nan, np.float32), "NaN"),
        (np.array([[np.inf, -np.inf], [0, 0]]), "NaN or infinity"),
    ],
)
def test_what_are_no_features_is_refused_by_name(array, message):
    with pytest.raises(InputError, match=f"these .*{message}"):
        chunks.checked_features(array, least=2, width=2, name="these")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_features_of_any_real_dtype_are_taken_as_they_are(dtype):
    array = np.ones((3, 2), dtype)
    assert chunks.checked_features(array) is array
