"""Batch normalization: what it normalizes with, what it keeps, where it differs from linen's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.nn.norms import BatchNorm

SHAPE = (3, 5, 4, 7)


@pytest.fixture(scope="module")
def x():
    return np.float32(2 + 3 * np.random.default_rng(0).standard_normal(SHAPE))


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(1)
    draw = lambda offset, scale: np.float32(offset + scale * rng.random(SHAPE[-1]))  # noqa: E731
    return {
        "params": {"scale": draw(1, 1), "bias": draw(0, 1)},
        "batch_stats": {"mean": draw(0, 1), "var": draw(0.5, 1)},
    }


def expected(x, mean, var, params):
    return (x - mean) / np.sqrt(np.float64(var) + 1e-5) * params["scale"] + params["bias"]


def test_evaluation_uses_the_running_statistics_and_keeps_them(x, variables):
    y, changed = BatchNorm().apply(variables, x, train=False, mutable=["batch_stats"])
    stats = variables["batch_stats"]
    np.testing.assert_allclose(
        y, expected(x, stats["mean"], stats["var"], variables["params"]), atol=1e-5
    )
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], stats)


def test_training_normalizes_with_the_biased_variance_and_keeps_the_unbiased_one(x, variables):
    y, changed = BatchNorm(momentum=0.2).apply(variables, x, train=True, mutable=["batch_stats"])
    flat = np.float64(x).reshape(-1, SHAPE[-1])
    np.testing.assert_allclose(
        y, expected(x, flat.mean(0), flat.var(0), variables["params"]), atol=1e-5
    )
    for name, batch in (("mean", flat.mean(0)), ("var", flat.var(0, ddof=1))):
        new = 0.8 * variables["batch_stats"][name] + 0.2 * batch
        np.testing.assert_allclose(changed["batch_stats"][name], new, rtol=1e-5)


def test_linen_keeps_the_biased_variance(x, variables):
    """The reason for a module of our own: delete it when this fails."""
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9)
    y, changed = theirs.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, BatchNorm().apply(variables, x, train=True), atol=1e-4)
    biased = 0.9 * variables["batch_stats"]["var"] + 0.1 * np.float64(x).var((0, 1, 2))
    np.testing.assert_allclose(changed["batch_stats"]["var"], biased, rtol=1e-5)


def test_statistics_stay_when_the_collection_is_not_mutable_and_at_initialization(x, variables):
    assert BatchNorm().apply(variables, x, train=True).shape == SHAPE
    fresh = BatchNorm().init(jax.random.key(0), x, train=True)["batch_stats"]
    np.testing.assert_array_equal(fresh["mean"], np.zeros(SHAPE[-1]))
    np.testing.assert_array_equal(fresh["var"], np.ones(SHAPE[-1]))


def test_a_large_mean_does_not_spoil_the_variance(x, variables):
    """E[x^2] - E[x]^2 in float32 would."""
    y = BatchNorm().apply(variables, x + 3000, train=True)
    np.testing.assert_allclose(y, BatchNorm().apply(variables, x, train=True), atol=2e-3)


def test_bfloat16_in_and_out_float32_in_between(x, variables):
    low = jnp.asarray(x, jnp.bfloat16)
    y, changed = BatchNorm().apply(variables, low, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {a.dtype.name for a in jax.tree.leaves(changed)} == {"float32"}
    high, of_high = BatchNorm().apply(
        variables, low.astype(jnp.float32), train=True, mutable=["batch_stats"]
    )
    jax.tree.map(np.testing.assert_array_equal, changed, of_high)
    np.testing.assert_array_equal(y, high.astype(jnp.bfloat16))


def test_one_value_a_channel_cannot_be_trained_on():
    variables = BatchNorm().init(jax.random.key(0), jnp.ones((2, 7)), train=True)
    with pytest.raises(InputError, match=r"over one value a channel, got \[1, 7\]"):
        BatchNorm().apply(variables, jnp.ones((1, 7)), train=True)
