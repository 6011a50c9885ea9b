"""All metrics of features have the values that torch-fidelity and pytorch-fid gave."""

import re

import numpy as np
import pytest
from golden_files import load, recorded

from evqgan.metrics.frechet import frechet_distance, gaussian
from evqgan.metrics.inception_score import inception_score
from evqgan.metrics.manifold import precision_recall
from evqgan.metrics.mmd import kid, polynomial_mmd

CASES = [
    pytest.param(path, name, id=f"{path.stem}-{name}")
    for path, name in recorded("metrics_stats*.npz")
]


def frechet(inputs, rows=None):
    return frechet_distance(*(gaussian(inputs[name][:rows]) for name in ("f1", "f2")))


def rank_deficient(inputs, expected):
    """The distance of so many of the first images that it is the recorded one.

    How many is not recorded; they are no more than features.
    """
    distances = [frechet(inputs, rows) for rows in range(2, inputs["f1"].shape[1] + 1)]
    close = [one for one in distances if abs(one - expected) < 1e-6 * expected]
    assert len(close) == 1, f"{len(close)} numbers of images give {expected}"
    return close[0]


def ours(name, config, inputs, expected):
    """Our value of a recorded output."""
    splits = re.fullmatch(r"is_(mean|std)_splits(\d+)_shuffle([01])", name)
    if splits:
        which, number, shuffle = splits.groups()
        seed = config["is_rng_seed"] if shuffle == "1" else None
        return inception_score(inputs["logits"], int(number), seed)[which == "std"]
    if name.startswith("fid_rank_deficient"):
        return rank_deficient(inputs, expected)
    if name.startswith(("fid_torch_fidelity", "fid_pytorch_fid")):
        return frechet(inputs)
    if name == "fid_identical":
        return frechet_distance(*2 * [gaussian(inputs["f1"])])
    if name[:-1] in ("mu", "sigma"):
        found = gaussian(inputs["f" + name[-1]])
        return found.mean if name.startswith("mu") else found.covariance
    features = inputs["f1"], inputs["f2"]
    if name in ("kid_mean", "kid_std"):
        drawn = config["kid_subsets"], config["kid_subset_size"], config["kid_rng_seed"]
        return kid(*features, *drawn)[name == "kid_std"]
    if name == "kid_mmd2_poly3_unbiased_all":
        number = min(map(len, features))  # torch-fidelity compares sets of one size alone
        return polynomial_mmd(*(some[:number] for some in features))
    if name in ("precision", "recall", "f_score"):
        sets = inputs["prc_gen"], inputs["prc_real"]
        found = precision_recall(*sets, config["prc_neighborhood"])
        harmonic_mean = 2 / (1 / found.precision + 1 / found.recall)
        return harmonic_mean if name == "f_score" else getattr(found, name)
    raise AssertionError(f"{name} is recorded, and there is no metric of that name here")


@pytest.mark.parametrize("path, name", CASES)
def test_every_recorded_value_is_met(path, name):
    config, _, inputs, outputs = load(path)
    assert config["kid_poly"] == {"degree": 3, "gamma": "1/d", "coef0": 1}
    expected = outputs[name]
    np.testing.assert_allclose(
        ours(name, config, inputs, expected), expected, rtol=1e-6, atol=1e-9, err_msg=name
    )
