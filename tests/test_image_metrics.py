"""The metrics of images without a network: copies, collapse and wrong classes show."""

import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from evqgan.core.errors import InputError
from evqgan.metrics import chunks, pixels
from evqgan.metrics.classifier import classifier_agreement
from evqgan.metrics.frechet import Moments, frechet_distance
from evqgan.metrics.nearest import nearest
from evqgan.metrics.spread import spread


@pytest.fixture(scope="module")
def digits():
    """Images uint8 [1797,32,32,3] and labels of the bundled digits.

    They are in random order: 1,437 train, 360 held out.
    """
    bundle = load_digits()
    order = np.random.default_rng(0).permutation(len(bundle.images))
    grey = np.round(bundle.images[order] * (255 / 16)).astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)) for one in grey
    ]
    images = np.repeat(np.stack(large)[..., None], 3, -1)
    labels = bundle.target[order]
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 1), (2,)])
def test_what_are_no_images_is_refused(shape):
    with pytest.raises(InputError, match=r"must be uint8 \[N,H,W,3\] of one size to be compared"):
        nearest(*[np.zeros(shape, np.uint8)] * 3)


def noisy(images, seed=0, levels=12):
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def frechet(*sets):
    """Of samples, and of held-out images, beside real ones; all come in two batches each."""
    halves = [(images[: len(images) // 2], images[len(images) // 2 :]) for images in sets]
    samples, real, heldout = (
        Moments().add(pixels.colours(a)).add(pixels.colours(b)).gaussian() for a, b in halves
    )
    return {
        "frechet": frechet_distance(samples, real),
        "heldout_frechet": frechet_distance(heldout, real),
    }


def test_the_frechet_distance_grows_with_what_is_wrong(digits):
    (train, _), (heldout, _) = digits
    floor = frechet(train[:700], train[700:], heldout)
    same = frechet(train, train, heldout)
    assert 0 <= same["frechet"] < 1e-6 < same["heldout_frechet"] < 0.5
    some = frechet(noisy(heldout, levels=60), train, heldout)["frechet"]
    collapsed = frechet(np.repeat(heldout[:2], 180, 0), train, heldout)["frechet"]
    assert floor["frechet"] < some < collapsed
    rng = np.random.default_rng(0)
    red = rng.integers(0, 255, (40, 16, 16, 3)).astype(np.uint8) * np.array([1, 0, 0], np.uint8)
    assert frechet(red, red[..., ::-1], red)["frechet"] > 1  # colours count
    means = red[..., 0].reshape(40, 8, 2, 8, 2).mean(axis=(2, 4)).reshape(40, -1) / 255
    np.testing.assert_allclose(pixels.features(red, 8, colour=True)[:, ::3], means, rtol=1e-5)


def test_real_digits_are_given_their_class_and_shuffled_labels_are_not(digits):
    real, heldout = digits
    found = classifier_agreement(*real, noisy(heldout[0]), heldout[1], *heldout)
    assert found["heldout_accuracy"] > 0.98 and found["sample_accuracy"] > 0.98
    assert len(found["per_class"]) == 10 and min(found["per_class"]) > 0.9
    shuffled = np.random.default_rng(1).permutation(heldout[1])
    wrong = classifier_agreement(*real, heldout[0], shuffled, *heldout)
    assert wrong["sample_accuracy"] < 0.2 and wrong["heldout_accuracy"] == found["heldout_accuracy"]


def test_accuracy_by_class_is_that_of_the_class_alone(digits):
    real, heldout = digits
    chosen = np.isin(heldout[1], (2, 5))
    # 5 was asked to be a 7.
    images, labels = heldout[0][chosen], np.where(heldout[1][chosen] == 5, 7, 2)
    per_class = classifier_agreement(*real, images, labels, *heldout)["per_class"]
    assert per_class[2] > 0.9 and per_class[7] < 0.1 and per_class[0] is None


def test_features_average_by_area():
    image = np.zeros((1, 64, 24, 3), np.uint8)
    image[:, :32] = 200
    found = pixels.features(image, 16, colour=False).reshape(16, 16)
    np.testing.assert_allclose(found[:8], 200 / 255, rtol=1e-6)
    np.testing.assert_allclose(found[8:], 0, atol=1e-7)
    noise = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 1)).astype(np.uint8).repeat(3, -1)
    means = noise.astype(np.float64).mean((1, 2, 3)) / 255
    found = pixels.features(noise, 16, colour=False)
    np.testing.assert_allclose(found.mean(1), means, rtol=1e-6)  # nothing lost with 20 -> 16
    assert pixels.features(noise[:, :8, :8], 16, colour=True).shape == (2, 64 * 3)


def test_a_class_may_be_a_colour(digits):
    images, labels = digits[0][0][:100], np.arange(100) % 3
    images = images * np.uint8(np.eye(3))[labels][:, None, None]
    real, made = (images, labels), (images[::-1], labels[::-1])
    found = classifier_agreement(*real, *made, *real, colour=True)
    assert found["sample_accuracy"] == found["heldout_accuracy"] == 1.0


def test_a_collapsed_class_has_no_spread_and_real_digits_have_that_of_real_digits(digits):
    real, heldout = digits
    collapsed = np.stack([real[0][real[1] == k][0] for k in range(10)]).repeat(5, 0)
    found = spread(collapsed, np.arange(10).repeat(5), *real)
    assert found["sample_spread"] == 0 and found["spread_ratio"] == 0 and found["real_spread"] > 20
    assert 0.9 < spread(*heldout, *real)["spread_ratio"] < 1.1
    assert spread(*real, *real)["spread_ratio"] == 1


def test_the_spread_is_the_mean_distance_of_pairs():
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[1] += 10
    images[2] += 40
    found = spread(images, [4, 4, 4], images[:2], [4, 4])
    assert found == pytest.approx(
        {"sample_spread": 80 / 3, "real_spread": 10.0, "spread_ratio": 8 / 3}
    )
    with pytest.raises(InputError, match="two samples"):
        spread(images, [0, 1, 2], images, [0, 1, 2])


def test_copies_are_found_and_held_out_images_are_none(digits):
    (train, _), (heldout, _) = digits
    copies = np.concatenate([train[:30], noisy(train[30:60], levels=3)])
    found = nearest(copies, train, heldout)
    assert found["nearest_min"] == 0 and found["nearest_copies"] == 0.5
    assert (
        0 < found["nearest_mean"] < 2 < found["heldout_nearest_q05"] < found["heldout_nearest_mean"]
    )
    assert found["heldout_nearest_copies"] == 0


def test_distances_in_pieces_are_those_of_the_definition(digits, monkeypatch):
    (train, _), (heldout, _) = digits
    train, heldout = train[:50], heldout[:23]
    difference = heldout[:, None].astype(np.float64) - train[None]
    expected = np.sqrt((difference**2).mean((2, 3, 4))).min(1)
    # Pieces of seven images, the last ones smaller.
    monkeypatch.setattr(chunks, "CHUNK", 7 * heldout[0].size)
    found = nearest(heldout, train, heldout)
    np.testing.assert_allclose(
        [found["nearest_mean"], found["nearest_min"], found["nearest_q05"]],
        [expected.mean(), expected.min(), np.quantile(expected, 0.05)],
        rtol=1e-12,
    )
    whole = pixels.features(train, 16, colour=True)
    monkeypatch.setattr(chunks, "CHUNK", 1)
    np.testing.assert_array_equal(pixels.features(train, 16, colour=True), whole)


def test_a_thousand_samples_take_under_three_seconds(digits):
    (train, train_labels), heldout = digits
    images, labels = noisy(train[:1000]), train_labels[:1000]
    began = time.process_time()  # of both cores, whatever else runs
    classifier_agreement(train, train_labels, images, labels, *heldout)
    spread(images, labels, train, train_labels)
    nearest(images, train, heldout[0])
    assert time.process_time() - began < 6


def test_images_of_another_size_or_type_are_refused(digits):
    (train, _), (heldout, _) = digits
    with pytest.raises(InputError, match="one size"):
        nearest(heldout[:, ::2, ::2], train, heldout)
    with pytest.raises(InputError, match="uint8"):
        nearest(heldout / 255, train, heldout)
