"""The distance of logits: what it computes, and what gets a gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.losses import logits
from evqgan.nn import resnet


def init():
    image = jnp.zeros((1, 32, 32, 3))
    return logits.Distance().init(jax.random.key(0, impl="rbg"), image, image)  # quick to compile


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(1), (2, 2, 40, 32, 3), minval=-1.0)


def test_everything_is_frozen():
    variables = jax.eval_shape(init)
    assert set(variables) == {"frozen"} and set(variables["frozen"]) == set(logits.PRETRAINED)
    assert (
        sum(x.size for x in jax.tree.leaves(variables["frozen"]["network"]["params"])) == 25_557_032
    )


@pytest.mark.parametrize("of", ["logits", "map"])
def test_distance_and_gradient(monkeypatch, images, of):
    """With a small network in the place of ResNet-50."""
    monkeypatch.setattr(resnet, "Network", functools.partial(resnet.Network, (1, 1, 1, 1), 8))
    # A new function: `init` is traced already.
    variables, (a, b) = jax.jit(lambda: init())(), images
    mean, std = (
        np.float32(x).reshape(1, 1, 1, 3) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )

    def features(image, variables):
        image = jax.image.resize((image + 1) / 2, (2, 224, 224, 3), "bilinear", antialias=True)
        return (
            resnet.Network()
            .apply(variables["frozen"]["network"], (image - mean) / std)[of]
            .reshape(2, -1)
        )

    def total(b, variables, a):
        y = logits.Distance(of).apply(variables, a, b)
        return jnp.sum(y), y

    judge = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, there), (to_image, to_weights) = judge(b, variables, a)
    assert there.shape == (2,) and there.dtype == jnp.float32 and np.all(there > 0)
    expected = jax.jit(lambda a, b, v: jnp.mean(jnp.square(features(a, v) - features(b, v)), 1))(
        a, b, variables
    )
    np.testing.assert_allclose(there, expected, rtol=1e-3)
    assert np.all(np.isfinite(to_image)) and np.any(to_image)
    assert not any(np.any(x) for x in jax.tree.leaves(to_weights))

    (_, zero), (slope, _) = judge(a, variables, a)
    assert np.all(zero < 1e-6 * there) and np.abs(slope).max() < 1e-3 * np.abs(to_image).max()
