"""Maximum mean discrepancies of sets whose answer is known, and of the definition."""

import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.metrics import chunks
from evqgan.metrics.mmd import kid, polynomial_mmd, rbf_mmd


def sets(n=30, m=41, width=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, width)), 0.5 + rng.standard_normal((m, width))


def polynomial(x, y):
    return (np.dot(x, y) / len(x) + 1) ** 3


def unbiased(a, b, kernel):
    """MMD^2 by loops over pairs of different images."""
    within = [
        np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])


def test_the_unbiased_mmd_is_that_of_the_definition_for_sets_of_any_size():
    a, b = sets(7, 11)
    assert polynomial_mmd(a, b) == pytest.approx(unbiased(a, b, polynomial), rel=1e-10)
    assert polynomial_mmd(b, a) == pytest.approx(polynomial_mmd(a, b), rel=1e-10)


def test_two_points_have_the_mmd_of_their_kernel():
    a, b = np.tile([1.0, 2.0], (4, 1)), np.tile([3.0, -1.0], (3, 1))
    expected = (5 / 2 + 1) ** 3 + (10 / 2 + 1) ** 3 - 2 * (1 / 2 + 1) ** 3
    assert polynomial_mmd(a, b) == pytest.approx(expected, rel=1e-12)
    expected = 1000 * (2 - 2 * np.exp(-13 / 200))
    assert rbf_mmd(a, b) == pytest.approx(expected, rel=1e-10)
    assert rbf_mmd(a, b, sigma=2, scale=1) == pytest.approx(2 - 2 * np.exp(-13 / 8), rel=1e-10)


def test_equal_sets_have_no_mmd_but_the_unbiased_ones_own_pairs():
    a, _ = sets()
    assert rbf_mmd(a, a) == pytest.approx(0, abs=1e-9) and rbf_mmd(a, a) >= 0
    kernel = (a @ a.T / 6 + 1) ** 3
    everything, own, n = kernel.sum(), np.trace(kernel), len(a)
    expected = 2 * ((everything - own) / (n * (n - 1)) - everything / n**2)
    assert polynomial_mmd(a, a) == pytest.approx(expected, rel=1e-9)
    assert polynomial_mmd(a, a) < 0


def test_a_copied_set_has_the_same_biased_mmd():
    a, b = sets()
    expected = rbf_mmd(a, b)
    assert expected > 0
    assert rbf_mmd(np.tile(a, (3, 1)), b[::-1]) == pytest.approx(expected, rel=1e-9)


def test_the_biased_mmd_does_not_see_where_the_origin_is():
    a, b = (np.round(x * 1024) / 1024 for x in sets())
    assert rbf_mmd(a + 1e5, b + 1e5) == pytest.approx(rbf_mmd(a, b), rel=1e-8)


def test_samples_of_one_distribution_have_mmds_about_0():
    a, _ = sets(400)
    b, _ = sets(400, seed=1)
    far = polynomial_mmd(*sets(400, 400))
    assert abs(polynomial_mmd(a, b)) < 0.1 * far
    assert abs(kid(a, b, subsets=20, subset_size=100)[0]) < 0.1 * far


def test_kid_of_one_subset_of_all_is_the_mmd_over_all():
    a, b = sets(30, 30)
    mean, std = kid(a, b, subsets=3, subset_size=30)
    assert mean == pytest.approx(polynomial_mmd(a, b), rel=1e-10)
    assert std == pytest.approx(0, abs=1e-12)


def test_kid_is_of_the_subsets_that_its_seed_draws():
    a, b = sets()
    rng = np.random.RandomState(3)
    drawn = []
    for _ in range(4):
        x = a[rng.choice(30, 10, replace=False)]
        y = b[rng.choice(41, 10, replace=False)]
        drawn.append(unbiased(x, y, polynomial))
    found = kid(a, b, subsets=4, subset_size=10, seed=3)
    assert found == pytest.approx((np.mean(drawn), np.std(drawn)), rel=1e-9)
    assert found == kid(a, b, 4, 10, 3) != kid(a, b, 4, 10, 4)


def test_float32_features_are_summed_in_float64():
    a, b = (x.astype(np.float32) for x in sets())
    exact = a.astype(np.float64), b.astype(np.float64)
    assert polynomial_mmd(a, b) == polynomial_mmd(*exact)
    assert rbf_mmd(a, b) == rbf_mmd(*exact)
    assert kid(a, b, 3, 20) == kid(*exact, 3, 20)


@pytest.mark.parametrize("piece", [1, 6 * 7, 9 * 9])
def test_kernels_are_summed_in_pieces(monkeypatch, piece):
    a, b = sets()
    whole = polynomial_mmd(a, b), rbf_mmd(a, b)
    monkeypatch.setattr(chunks, "CHUNK", piece)
    assert (polynomial_mmd(a, b), rbf_mmd(a, b)) == pytest.approx(whole, rel=1e-9)


def test_sets_that_cannot_be_compared_are_refused():
    a, b = sets()
    with pytest.raises(InputError, match=r"as many images, got 30 generated and 41 real"):
        kid(a, b)
    for wrong in ({"subsets": 0}, {"subset_size": 1}):
        with pytest.raises(InputError, match="one subset or more of two images"):
            kid(a, b, **wrong)
    for metric in (polynomial_mmd, rbf_mmd):
        with pytest.raises(InputError, match="6 numbers each, got 5"):
            metric(a[:, :5], b)
        with pytest.raises(InputError, match="real images must be of"):
            metric(a, b[:0])
        bad = a.copy()
        bad[3, 3] = np.nan
        with pytest.raises(InputError, match="features of generated images hold NaN"):
            metric(bad, b)
    with pytest.raises(InputError, match="2 images or more, got 1"):
        polynomial_mmd(a[:1], b)
    assert rbf_mmd(a[:1], b[:1]) > 0
