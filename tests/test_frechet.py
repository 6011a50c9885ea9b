"""Gaussians of features in a stream, and their Frechet distance: cases whose answer is known."""

import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.metrics import chunks
from evqgan.metrics.frechet import Gaussian, Moments, frechet_distance, gaussian


def features(number, width=5, seed=0, dtype=np.float64):
    """Correlated features [number,width] about means of 0 to 1."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((number, width)) @ rng.standard_normal((width, width))
    return (mixed + rng.random(width)).astype(dtype)


def covariance(width, seed):
    root = np.random.default_rng(seed).standard_normal((width, width))
    return root @ root.T


def test_the_gaussian_is_that_of_the_definition():
    x = features(50)
    found = gaussian(x)
    assert found.count == 50 and found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-12)


@pytest.mark.parametrize("parts", [(37,), (20, 17), (0, 37, 0), (1, 1, 35), (9, 9, 9, 9, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_in_any_order_give_the_gaussian_of_the_whole(parts, dtype):
    x = features(37, dtype=dtype)
    cuts = np.split(x, np.cumsum(parts)[:-1])
    whole, other = gaussian(x), gaussian(features(60, seed=1))
    streamed = Moments()
    for cut in cuts:
        streamed = streamed.add(cut)
    added = sum((Moments().add(cut) for cut in reversed(cuts)), Moments())
    for found in (streamed.gaussian(), added.gaussian()):
        assert found.count == 37
        np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-10, atol=1e-12)
        assert frechet_distance(found, other) == pytest.approx(
            frechet_distance(whole, other), rel=1e-6
        )


def test_moments_go_from_process_to_process_as_their_three_fields():
    a, b = (Moments().add(features(n, seed=n)) for n in (8, 13))
    sent = [Moments(int(m.count), np.array(m.mean), np.array(m.scatter)) for m in (a, b)]
    assert frechet_distance(sum(sent, Moments()).gaussian(), (a + b).gaussian()) == 0


def test_what_was_added_before_stays_as_it_is():
    first = Moments().add(features(10))
    mean, scatter = first.mean.copy(), first.scatter.copy()
    first.add(features(10, seed=1))
    np.testing.assert_array_equal(first.mean, mean)
    np.testing.assert_array_equal(first.scatter, scatter)


def test_large_batches_are_cut_into_pieces(monkeypatch):
    x = features(50)
    whole = gaussian(x)
    monkeypatch.setattr(chunks, "CHUNK", 7 * 5)
    np.testing.assert_allclose(gaussian(x).covariance, whole.covariance, rtol=1e-12)


@pytest.mark.parametrize("offset, dtype", [(1e6, np.float64), (4096.0, np.float32)])
def test_a_large_mean_costs_no_digits(offset, dtype):
    """Sums of squares less the squared mean would be off by the offset's square."""
    # Multiples of 1/1024 stay as they are beside the offset.
    x = np.round(features(400) * 1024) / 1024
    shifted = (x + offset).astype(dtype)
    np.testing.assert_array_equal(shifted.astype(np.float64) - offset, x)
    found, expected = Moments(), gaussian(x)
    for batch in np.split(shifted, 8):
        found = found.add(batch)
    np.testing.assert_allclose(found.gaussian().mean, expected.mean + offset, rtol=1e-12)
    np.testing.assert_allclose(found.gaussian().covariance, expected.covariance, rtol=1e-8)


def test_the_distance_of_independent_features_is_that_of_their_deviations():
    a = Gaussian(np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 0.0]))
    b = Gaussian(np.array([3.0, 1.0, -2.0]), np.diag([9.0, 1.0, 25.0]))
    # |m1 - m2|^2 = 9 + 0 + 16; (s1 - s2)^2 = 4 + 1 + 25
    assert frechet_distance(a, b) == pytest.approx(25 + 30, rel=1e-12)


def test_the_distance_of_correlated_pairs_has_a_closed_form():
    """Of 2x2 matrices, the trace of the root of M is (tr M + 2 det(M)^(1/2))^(1/2)."""
    c1, c2 = covariance(2, 0), covariance(2, 1)
    product = c1 @ c2
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    found = frechet_distance(Gaussian(np.zeros(2), c1), Gaussian(np.zeros(2), c2))
    assert found == pytest.approx(np.trace(c1) + np.trace(c2) - 2 * root, rel=1e-10)


def test_the_distance_is_symmetric_and_does_not_see_rotations_and_shifts():
    a, b = gaussian(features(40, seed=1)), gaussian(features(60, seed=2))
    turn = np.linalg.qr(features(5, seed=3))[0]
    turned = [Gaussian(turn @ x.mean + 7, turn @ x.covariance @ turn.T) for x in (a, b)]
    expected = frechet_distance(a, b)
    assert expected > 0
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(*turned) == pytest.approx(expected, rel=1e-8)


def test_a_scaled_copy_is_at_its_part_of_the_trace():
    a = gaussian(features(40))
    b = Gaussian(a.mean, 4 * a.covariance)
    assert frechet_distance(a, b) == pytest.approx(np.trace(a.covariance), rel=1e-10)


@pytest.mark.parametrize("number", [2, 3, 5, 6, 40])
def test_equal_sets_are_at_distance_0_of_full_rank_or_not(number):
    x = features(number)
    assert frechet_distance(gaussian(x), gaussian(x)) == 0
    assert frechet_distance(gaussian(x), gaussian(x[::-1])) == 0
    same = gaussian(np.ones((number, 3)))
    assert frechet_distance(same, same) == 0


def test_covariances_without_full_rank_are_exact():
    """Two lines at an angle t: the trace of the root is s1 s2 |cos t|."""
    a, b = np.array([[3.0, 0, 0]]), 2 * np.array([[np.cos(1.0), np.sin(1.0), 0]])
    found = frechet_distance(Gaussian(np.zeros(3), a.T @ a), Gaussian(np.zeros(3), b.T @ b))
    assert found == pytest.approx(9 + 4 - 2 * 6 * np.cos(1.0), rel=1e-12)


@pytest.mark.parametrize("number", [0, 1])
def test_a_covariance_needs_two_images(number):
    with pytest.raises(InputError, match=f"two images or more, got {number}"):
        gaussian(features(number))


def test_sets_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="of one network and layer"):
        frechet_distance(gaussian(features(9)), gaussian(features(9, width=4)))
    some = Moments().add(features(9))
    with pytest.raises(InputError, match="5 numbers each, got 4"):
        some.add(features(9, width=4))
    with pytest.raises(InputError, match="do not add up"):
        some + Moments().add(features(9, width=4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    x = features(9)
    x[3, 2] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        Moments().add(x)
    with pytest.raises(InputError, match="NaN or infinity"):
        Gaussian(x[3], np.eye(5))
    both = np.array([[np.inf, -np.inf]])
    with pytest.raises(InputError, match="NaN or infinity"):
        Moments().add(both)


@pytest.mark.parametrize(
    "mean, matrix, message",
    [
        (np.zeros(2), np.eye(3), r"\[2\] and \[3, 3\]"),
        (np.zeros((2, 2)), np.eye(2), r"\[2, 2\]"),
        (np.zeros(0), np.zeros((0, 0)), "a mean"),
        (np.zeros(2), np.array([[1.0, 0.5], [0, 1]]), "symmetric"),
        (np.zeros(2), np.diag([1.0, -1.0]), "variances of 0 or more"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean, matrix, message):
    with pytest.raises(InputError, match=message):
        Gaussian(mean, matrix)
