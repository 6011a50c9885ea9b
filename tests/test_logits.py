"""The distance of logits: what it computes, and what gets a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.critics import logits
from evqgan.nn import resnet


@pytest.fixture(scope="module")
def variables():
    """Random weights that keep the size of what flows through."""
    image, rng = jnp.zeros((1, 32, 32, 3)), np.random.default_rng(0)
    like = jax.eval_shape(logits.Distance().init, jax.random.key(0), image, image)

    def one(path, x):
        if x.ndim > 1:
            return rng.standard_normal(x.shape).astype(np.float32) * float(np.prod(x.shape[:-1])) ** -0.5
        return np.full(x.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(one, like)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (2, 2, 40, 32, 3), minval=-1.0)


def test_everything_is_frozen(variables):
    assert set(variables) == {"frozen"} and set(variables["frozen"]) == set(logits.PRETRAINED)
    assert sum(x.size for x in jax.tree.leaves(variables["frozen"]["network"]["params"])) == 25_557_032


@pytest.mark.parametrize("of", ["logits", "map"])
def test_distance_and_gradient(variables, images, of):
    a, b = images
    distance = logits.Distance(of)

    def total(b, a, variables):
        y = distance.apply(variables, a, b)
        return jnp.sum(y), y

    judge = jax.jit(jax.value_and_grad(total, (0, 2), has_aux=True))
    (_, there), (to_image, to_weights) = judge(b, a, variables)
    assert there.shape == (2,) and there.dtype == jnp.float32 and np.all(there > 0)
    assert np.all(np.isfinite(to_image)) and np.any(to_image)
    assert not any(np.any(x) for x in jax.tree.leaves(to_weights))

    @jax.jit
    def features(variables, image):
        small = jax.image.resize((image + 1) / 2, (2, 224, 224, 3), "bilinear", antialias=True)
        small = (small - np.float32([0.485, 0.456, 0.406]).reshape(1, 1, 1, 3)) / np.float32(
            [0.229, 0.224, 0.225]
        ).reshape(1, 1, 1, 3)
        return resnet.Network().apply(variables["frozen"]["network"], small)[of]

    x, y = (np.asarray(features(variables, image)).reshape(2, -1) for image in images)
    np.testing.assert_allclose(there, np.mean((x - y) ** 2, 1), rtol=1e-3)

    (_, zero), (slope, _) = judge(a, a, variables)
    assert np.all(zero < 1e-6 * there) and np.abs(slope).max() < 1e-3 * np.abs(to_image).max()


def test_other_outputs_are_refused(variables, images):
    with pytest.raises(InputError, match='"logits" or "map", not \'pooled\''):
        logits.Distance("pooled").apply(variables, *images)
