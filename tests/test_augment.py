"""What a critic sees: DiffAugment and the blur against the recorded ones; draws, gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import files, load

from evqgan.losses import augment
from evqgan.losses.augment import blur, cutout_size, largest_shift

DRAWS = {  # of each change, in the order of its arguments
    "brightness": ("u",),
    "saturation": ("u",),
    "contrast": ("u",),
    "translation": ("tx", "ty"),
    "cutout": ("ox", "oy"),
}
IMAGE = np.float32(np.random.default_rng(0).uniform(-1, 1, (4, 20, 28, 3)))


@pytest.fixture(
    scope="module", params=files("projected_gan_diffaug*.npz"), ids=lambda path: path.stem
)
def recording(request):
    return load(request.param)


def test_every_recorded_output_equals_the_original(recording):
    _, _, inputs, outputs = recording
    image = inputs["x"].transpose(0, 2, 3, 1)
    for name, expected in outputs.items():
        if sigma := re.fullmatch(r"blur_sigma([\d.]+)", name):
            y = blur(image, float(sigma[1]), float(sigma[1]))
        else:
            assert name in DRAWS, f"no change of ours is {name}: build it"
            draws = [inputs[f"{name}_{draw}"].reshape(-1) for draw in DRAWS[name]]
            y = jax.jit(getattr(augment, name))(image, *draws)
        np.testing.assert_allclose(
            np.asarray(y).transpose(0, 3, 1, 2), expected, atol=2e-6, err_msg=name
        )


def test_draws_are_uniform_and_reach_both_ends():
    """Seen through the changes of images that tell them.

    A constant image tells its brightness, a ramp its translation, ones its hole.
    """
    count, side = 3000, 10
    ones = jnp.ones((count, side, side, 1))
    call = jax.jit(augment.augment, static_argnums=2)
    # A grey image has no contrast.
    bright = np.mean(call(jax.random.key(0), ones, ("color",)) - 1, (1, 2, 3))
    assert -0.5 <= bright.min() < -0.49 and 0.49 < bright.max() < 0.5
    np.testing.assert_allclose(bright.std(), 12**-0.5, rtol=0.03)

    rows = 1 + jnp.arange(side, dtype=jnp.float32).reshape(1, -1, 1, 1)
    moved = call(jax.random.key(1), jnp.broadcast_to(rows, ones.shape), ("translation",))
    at = np.max(np.asarray(moved)[:, side // 2], (1, 2)) - 1 - side // 2
    most = largest_shift(side)
    assert most == 1 and set(at) == {-1, 0, 1}
    assert np.bincount(np.int32(at + 1)).min() > 0.3 * count

    holes = np.sum(np.asarray(call(jax.random.key(2), ones, ("cutout",))) == 0, (1, 2, 3))
    size = cutout_size(side)
    assert size == 2 and set(holes) == {1, 2, 4}  # cut at a corner, at a border, whole
    # An even rectangle has side + 1 places along a side, two of which are cut in half.
    np.testing.assert_allclose(np.mean(holes == 1), (2 / (side + 1)) ** 2, atol=0.015)
    np.testing.assert_allclose(np.mean(holes == 4), ((side - 1) / (side + 1)) ** 2, atol=0.03)


@pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",), augment.POLICY])
def test_each_image_has_its_own_draws_and_the_key_decides(policy):
    same = jnp.broadcast_to(IMAGE[:1], (16, *IMAGE.shape[1:]))
    call = jax.jit(augment.augment, static_argnums=2)
    y = np.asarray(call(jax.random.key(0), same, policy))
    assert y.shape == same.shape and y.dtype == np.float32
    assert len(np.unique(y.reshape(16, -1), axis=0)) > 10
    np.testing.assert_array_equal(call(jax.random.key(0), same, policy), y)
    assert np.any(call(jax.random.key(1), same, policy) != y)


def test_the_three_colour_draws_differ():
    """One key for all would tie brightness to contrast."""
    gray = jnp.broadcast_to(IMAGE[:1, :, :, :1], (64, 20, 28, 3))  # saturation does nothing to it
    y = jax.jit(augment.augment, static_argnums=2)(jax.random.key(0), gray, ("color",))
    brightness, contrast = np.mean(y, (1, 2, 3)), np.std(y, (1, 2, 3))
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.4


def test_nothing_to_do():
    np.testing.assert_array_equal(augment.augment(jax.random.key(0), IMAGE, ()), IMAGE)


@pytest.mark.parametrize("policy", [augment.POLICY, ("translation", "cutout")])
def test_gradients_equal_differences(policy):
    weights = np.float32(np.random.default_rng(1).standard_normal(IMAGE.shape))

    @jax.jit
    def value(image):
        return jnp.sum(weights * augment.augment(jax.random.key(0), image, policy))

    grad = jax.jit(jax.grad(value))(IMAGE)
    direction = np.float32(np.random.default_rng(2).standard_normal(IMAGE.shape))
    # It is linear in the image.
    slope = value(IMAGE + 0.5 * direction) - value(IMAGE - 0.5 * direction)
    np.testing.assert_allclose(jnp.vdot(grad, direction), slope, rtol=1e-3)
    if "color" not in policy:  # which lets every pixel act through the mean
        assert 0 < np.mean(grad == 0) < 0.5, "what is cut or moved out has no gradient"


def test_blur_fades_to_nothing_within_one_program():
    call = jax.jit(lambda image, sigma: blur(image, sigma, 2.0))
    for sigma in (1.0, 2.0):
        np.testing.assert_allclose(call(IMAGE, sigma), blur(IMAGE, sigma, sigma), atol=1e-6)
    for sigma in (0.0, 0.3):
        np.testing.assert_allclose(call(IMAGE, sigma), IMAGE, atol=1e-6)
