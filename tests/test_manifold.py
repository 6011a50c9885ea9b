"""Precision, recall, density and coverage of sets that can be drawn on a line or a plane."""

import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.metrics import chunks
from evqgan.metrics.manifold import density_coverage, precision_recall


def line(*points):
    return np.array(points, np.float64)[:, None]


def sets(n=40, m=57, width=4, seed=0):
    rng = np.random.default_rng(seed)
    return 0.7 * rng.standard_normal((n, width)), rng.standard_normal((m, width))


def definition(generated, real, k, real_k):
    """All four, from all distances at once."""
    own_real, own = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (real, generated))
    across = np.linalg.norm(generated[:, None] - real[None], axis=-1)
    radii, real_radii = np.sort(own)[:, k], np.sort(own_real)[:, k]
    wide = np.sort(own_real)[:, real_k]
    return (
        (across <= real_radii).any(1).mean(),
        (across <= radii[:, None]).any(0).mean(),
        (across < wide).sum(1).mean() / real_k,
        (across.min(0) < wide).mean(),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_are_those_of_the_definition(k):
    generated, real = sets()
    found = *precision_recall(generated, real, k), *density_coverage(generated, real, k)
    assert found == pytest.approx(definition(generated, real, k, k), rel=1e-12)


def test_the_defaults_are_three_and_five_neighbours():
    generated, real = sets()
    found = *precision_recall(generated, real), *density_coverage(generated, real)
    assert found == pytest.approx(definition(generated, real, 3, 5), rel=1e-12)


def test_equal_sets_have_all_and_sets_apart_have_nothing():
    generated, _ = sets()
    assert precision_recall(generated, generated) == (1, 1)
    assert density_coverage(generated, generated).coverage == 1
    assert precision_recall(generated, generated + 100) == (0, 0)
    assert density_coverage(generated, generated + 100) == (0, 0)


def test_a_collapse_onto_one_image_is_precise_and_recalls_nothing():
    _, real = sets()
    # The nearest neighbours of equal images are at 0, and no real image is quite there.
    collapsed = np.tile(real[:1] + 1e-3, (20, 1))
    assert precision_recall(collapsed, real) == (1, 0)
    assert density_coverage(collapsed, real).coverage < 0.5


def test_copies_of_one_real_image_recall_that_one():
    _, real = sets()
    for offset in (0.0, 1e4):
        copies = np.tile(real[:1] + offset, (20, 1))
        found = precision_recall(copies, real + offset)
        assert found == pytest.approx((1, 1 / len(real)), rel=1e-12)


def test_samples_far_about_the_real_ones_recall_all_and_are_not_precise():
    real = line(-0.2, -0.1, 0, 0.1, 0.2, 0.3)
    generated = line(-100, -99, -98, 98, 99, 100)
    assert precision_recall(generated, real) == (0, 1)
    assert density_coverage(generated, real) == (0, 0)


def test_balls_on_a_line_are_counted_by_hand():
    """Real images at 0 to 4 have balls of radius 1 about them."""
    real = line(0, 1, 2, 3, 4)
    found = density_coverage(line(0.5, 1.5, 9), real, k=1)
    assert found == pytest.approx(((2 + 2 + 0) / 3, 3 / 5))  # nearest to 0, 1 and 2 within 1
    # Radii of the generated ones are 1, 1 and 7.5: all but 4 are within; 4 is in the ball of 9.
    found = precision_recall(line(0.5, 1.5, 9), real, k=1)
    assert found == pytest.approx((2 / 3, 1))


def test_a_ball_has_its_border_for_precision_and_none_for_density():
    real = line(0, 1, 2)
    generated = line(-1, -51)
    assert precision_recall(generated, real, k=1).precision == 0.5
    assert density_coverage(generated, real, k=1) == (0, 0)


def test_outliers_among_real_images_do_not_count_for_density():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((200, 2)), [[500.0, 500.0]]])
    generated = rng.uniform(-500, 500, (300, 2))
    # An eighth of a disc of the square's diagonal is in the ball of the outlier, and in no other.
    assert precision_recall(generated, real).precision == pytest.approx(np.pi / 8, abs=0.05)
    assert density_coverage(generated, real).density < 0.1


def test_density_of_the_same_distribution_is_about_1():
    rng = np.random.default_rng(0)
    found = density_coverage(*rng.standard_normal((2, 1000, 8)))
    assert 0.85 < found.density < 1.15 and 0.93 < found.coverage < 1


@pytest.mark.parametrize("piece", [1, 4 * 4, 9 * 9])
def test_they_are_computed_in_pieces(monkeypatch, piece):
    generated, real = sets(23, 31)
    whole = precision_recall(generated, real), density_coverage(generated, real)
    monkeypatch.setattr(chunks, "CHUNK", piece)
    assert (precision_recall(generated, real), density_coverage(generated, real)) == whole


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_do_not_see_where_the_origin_is(dtype):
    """Not even copies, whose distance is 0 and not what rounding makes of it."""
    generated, real = (np.round(x * 256) / 256 for x in sets())
    generated[:12] = real[:12]
    generated[12:20] = generated[0]
    expected = precision_recall(generated, real), density_coverage(generated, real)
    a, b = (np.asarray(x + 4096, dtype) for x in (generated, real))
    assert (precision_recall(a, b), density_coverage(a, b)) == expected


@pytest.mark.parametrize("metric", [precision_recall, density_coverage])
def test_sets_that_cannot_be_compared_are_refused(metric):
    generated, real = sets()
    with pytest.raises(InputError, match="real images must be of 5 images or more, got 4"):
        metric(generated, real[:4], k=4)
    with pytest.raises(InputError, match="generated images must be of 5 images or more, got 1"):
        metric(generated[:1], real, k=4)
    with pytest.raises(InputError, match="counted from 1"):
        metric(generated, real, k=0)
    with pytest.raises(InputError, match="4 numbers each, got 3"):
        metric(generated[:, :3], real)
    real[0, 0] = np.inf
    with pytest.raises(InputError, match="real images hold NaN or infinity"):
        metric(generated, real)
