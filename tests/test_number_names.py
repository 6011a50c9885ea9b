"""What numbers of features are called, and whose features a name is of: inverses."""

import itertools
import pkgutil

import pytest

from evqgan import features
from evqgan.evals.feature_metrics import METRICS
from evqgan.features.names import OF_CLIP, OF_INCEPTION, name_of, network_of

NETWORKS = [module.name for module in pkgutil.iter_modules(features.__path__)]


@pytest.mark.parametrize("network", [*NETWORKS, "digits_of_mine"])
def test_a_name_says_whose_features_it_is_of(network):
    known = [*NETWORKS, "digits_of_mine", "mine"]
    numbers = [*METRICS, *OF_INCEPTION, *OF_CLIP, "precision"]
    for number, untrained, prefix in itertools.product(numbers, (False, True), ("", "r")):
        assert network_of(name_of(number, network, untrained, prefix), known) == network


@pytest.mark.parametrize("name", ["psnr", "lpips_untrained", "codebook_usage", "pixels", "frechet"])
def test_a_number_of_no_network_is_of_none(name):
    assert network_of(name, NETWORKS) == ""
