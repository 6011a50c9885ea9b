"""Numbers of features that come batch by batch: those of all at once, and what fills up is not."""

import numpy as np
import pytest

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.evals.feature_metrics import (
    METRICS,
    FeatureSet,
    bytes_kept,
    left_out,
    measure,
    too_few,
)
from evqgan.features.names import name_of
from evqgan.metrics import manifold, mmd
from evqgan.metrics.frechet import frechet_distance, gaussian
from evqgan.metrics.inception_score import inception_score

WIDTHS = {"pooled": 4, "spatial": 6, "logits": 5}


def features(number, seed):
    rng = np.random.default_rng(seed)
    return {name: np.float32(rng.normal(size=(number, n)) + seed) for name, n in WIDTHS.items()}


def gathered(metrics, found, size):
    """The FeatureSet of batches of one size, each with as many rows that do not count."""
    result = FeatureSet(metrics)
    number = len(found["pooled"])
    for start in range(0, number, size):
        part = {name: x[start : start + size] for name, x in found.items()}
        filled = {name: np.concatenate([x, 1e3 + x]) for name, x in part.items()}
        valid = np.arange(2 * len(part["pooled"])) < len(part["pooled"])
        result.add(filled, valid)
    assert result.count == number
    return result


@pytest.mark.parametrize("size", [1, 7, 40])
def test_numbers_are_those_of_all_features_at_once(size):
    generated, real = features(40, 0), features(33, 1)
    sets = [gathered(METRICS.values(), found, size) for found in (generated, real)]
    found = measure(METRICS, *sets)
    a, b = generated["pooled"], real["pooled"]
    expected = {"frechet": frechet_distance(gaussian(a), gaussian(b))}
    spatial = gaussian(generated["spatial"]), gaussian(real["spatial"])
    expected["spatial_frechet"] = frechet_distance(*spatial)
    expected["mmd"], expected["mmd_sd"] = mmd.kid(a, b, subset_size=33)
    expected["rbf_mmd"] = mmd.rbf_mmd(a, b)
    expected["score"], expected["score_sd"] = inception_score(generated["logits"])
    expected |= (
        manifold.precision_recall(a, b)._asdict() | manifold.density_coverage(a, b)._asdict()
    )
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for network in build.having("features", ["Features"]):
        assert len({name_of(number, network) for number in found}) == len(found)


def test_gaussians_keep_no_features():
    metrics = [METRICS["frechet"], METRICS["spatial_frechet"]]
    assert bytes_kept(metrics, WIDTHS, 10**9) == 0
    assert gathered(metrics, features(20, 0), 5)._kept == {}
    kept = [METRICS["mmd"], METRICS["precision_recall"], METRICS["score"]]
    assert bytes_kept(kept, WIDTHS, 1000) == 2 * 4 * 1000 * (4 + 5)  # pooled ones only once


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].least > 1])
def test_a_metric_of_too_few_images_is_left_out_and_said(name):
    """Its `least` is the number from which it has a value, of either set."""
    metric = METRICS[name]
    one, numbers = {name: metric}, (metric.least, metric.least - 1)
    enough, few = ([gathered([metric], features(n, i), 7) for i in range(2)] for n in numbers)
    assert measure(one, *enough) and left_out(one, str, {"samples": metric.least}, {}) == {}
    with pytest.raises(InputError):
        metric.compute(few[0].of(metric), enough[1].of(metric))
    assert measure(one, few[0], enough[1]) == {}
    assert (measure(one, enough[0], few[1]) == {}) == metric.real
    said = left_out(one, "{}_mine".format, {"samples": metric.least - 1}, {"real images": 0})
    least, got = f"{metric.least} or more", counted(metric.least - 1, "sample")
    assert said == {name: f"no {name}_mine: it needs {least}, got {got}"}
    assert too_few(one, "{}_mine".format, WIDTHS, {"samples": metric.least - 1}, {}) == [said[name]]


def test_no_images_are_one_line():
    empty = FeatureSet(METRICS.values())
    with pytest.raises(InputError, match="^there are no images to compare$"):
        measure(METRICS, empty, empty)


@pytest.mark.parametrize(
    ("metric", "width", "enough"),
    [
        ("frechet", 48, 1_000),
        ("frechet", 2048, 2_049),
        ("spatial_frechet", 2023, 2_024),
        ("mmd", 48, 1_000),
        ("rbf_mmd", 48, 1_000),
        ("score", 10, 1_000),
        ("score", 1008, 10_080),
        ("precision_recall", 48, 1_000),
        ("density_coverage", 48, 1_000),
    ],
)
def test_each_metric_says_of_how_many_images_it_means_little(metric, width, enough):
    """Of any set it looks at, of which the number is known."""
    one, widths = {metric: METRICS[metric]}, {METRICS[metric].layer: width}

    def said(generated, real):
        names = {"samples": generated}, {"real images": real}
        return too_few(one, lambda name: f"{name}_mine", widths, *names)

    assert said(enough, enough) == [] == said(enough, 0)
    begins = f"{metric}_mine: {enough - 1:,} samples are few, {enough:,} would do: "
    (line,) = said(enough - 1, 0)
    assert line.startswith(begins) and line.endswith(METRICS[metric].few)
    both = f"{metric}_mine: 50 samples, 49 real images are few"
    (line,) = said(50, 49)
    assert line.startswith(both if METRICS[metric].real else f"{metric}_mine: 50 samples are few")


def test_no_metric_is_without_its_rule():
    widths = {"pooled": 48, "spatial": 48, "logits": 10}
    assert len(too_few(METRICS, str, widths, {"samples": 50}, {"real images": 50})) == len(METRICS)
