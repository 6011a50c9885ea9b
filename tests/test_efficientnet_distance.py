"""The distance of EfficientNet's maps: what it computes, what grows it, what gets a gradient."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core import weights
from evqgan.data.builders import photographs
from evqgan.losses.efficientnet_distance import PRETRAINED, Distance
from evqgan.nn import efficientnet


@pytest.fixture(scope="module")
def like():
    """The shapes of the variables."""
    image = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(Distance().init, jax.random.key(0), image, image)


@pytest.fixture(scope="module")
def judge():
    """b, variables, a -> (sum, (distances, maps of a and b)), (gradients by b, by variables)."""

    def total(b, variables, a):
        distances = Distance().apply(variables, a, b)
        network = efficientnet.Network(), variables["frozen"]["network"]
        maps = [network[0].apply(network[1], x) for x in (a, b)]
        return jnp.sum(distances), (distances, maps)

    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    both = jax.value_and_grad(total, (0, 1), has_aux=True)
    return jax.jit(both, compiler_options=quick)


@pytest.fixture(scope="module")
def photos():
    """Eight pieces [8,64,64,3] of four photographs, in [-1, 1]."""
    corners = ((60, 130), (150, 200))
    images = [photographs.read(name) for name in ("coffee", "chelsea", "flower", "rocket")]
    pieces = [image[y : y + 64, x : x + 64] for image in images for y, x in corners]
    return np.float32(pieces) / 127.5 - 1


def random(path, leaf):
    """He's normal kernels and the norms of an untrained network, in NumPy: nothing to compile."""
    if path[-1].key == "kernel":
        normal = np.random.default_rng(0).standard_normal(leaf.shape, np.float32)
        return normal * np.float32(np.sqrt(2 / np.prod(leaf.shape[:3])))
    return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)


def test_values_are_those_of_numpy_and_only_images_get_a_gradient(judge, photos, like):
    assert set(like) == {"frozen"} and set(like["frozen"]) == set(PRETRAINED)
    variables = jax.tree_util.tree_map_with_path(random, like)
    a, b = photos, photos[::-1]
    (_, (found, maps)), (to_image, to_weights) = judge(b, variables, a)
    expected = np.zeros(len(a))
    for pair in zip(*maps, strict=True):
        x, y = (np.float64(side) for side in pair)
        x, y = (side / np.linalg.norm(side, axis=-1, keepdims=True) for side in (x, y))
        expected += np.square(x - y).sum(-1).mean((1, 2)) / len(maps[0])
    assert found.shape == (8,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert np.all(np.isfinite(to_image)) and np.any(to_image)
    assert not any(np.any(x) for x in jax.tree.leaves(to_weights))

    (_, (zero, _)), (slope, _) = judge(a, variables, a)
    assert np.all(zero < 1e-6 * found) and np.abs(slope).max() < 1e-3 * np.abs(to_image).max()
    (_, (grey, _)), (slope, _) = judge(np.zeros_like(a), variables, np.zeros_like(a))
    assert not np.any(grey) and np.all(np.isfinite(slope))


def test_with_trained_weights_it_grows_with_blur_and_with_noise(judge, photos, like, trained):
    network = like["frozen"]["network"]
    variables = {"frozen": {"network": weights.load(trained, PRETRAINED["network"], network)}}
    noise = np.random.default_rng(0).normal(size=photos.shape).astype(np.float32)
    noisy = [photos + level * noise for level in (0.05, 0.1, 0.2, 0.4)]
    blurred = [
        np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in photos])
        for sigma in (0.5, 1, 2, 4)
    ]
    for damaged in (noisy, blurred):
        distances = np.stack([judge(x, variables, photos)[0][1][0] for x in damaged])
        assert np.all(distances[0] > 1e-3) and np.all(np.diff(distances.mean(1)) > 0)
        assert np.mean(np.diff(distances, axis=0) > 0) > 0.9  # of nearly all images
