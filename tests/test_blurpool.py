"""VQGAN+'s critic: its shapes, what its blur is, and that examples are judged one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.losses.blurpool import Critic
from evqgan.losses.stylegan import blur


def image(number, height, width):
    return jax.random.uniform(jax.random.key(0), (number, height, width, 3), minval=-1.0)


def test_shapes_and_parameters_of_the_published_size():
    """Widths 128, 128, 256, 512, 1024: MaskBit's vqgan_plus_10bit.yaml."""
    shapes = jax.eval_shape(Critic().init, jax.random.key(0), image(1, 256, 256))
    assert jax.eval_shape(Critic(dtype="bfloat16").apply, shapes, image(2, 256, 384)).shape == (
        2,
        16,
        24,
        1,
    )
    assert (
        jax.eval_shape(Critic(dtype="bfloat16").apply, shapes, image(2, 256, 256)).dtype
        == np.float32
    )
    convolutions = [
        (5, 3, 128),
        (3, 128, 128),
        (3, 128, 256),
        (3, 256, 512),
        (3, 512, 1024),
        (1, 1024, 1024),
        (5, 1024, 1),
    ]
    count = sum((size**2 * c + 1) * width for size, c, width in convolutions) + 2 * (
        128 + 256 + 512 + 1024
    )
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count == 7_431_297
    assert set(shapes) == {"params"}  # neither running statistics nor frozen networks


def test_the_blur_is_binomial_sums_to_one_and_hides_what_half_the_map_cannot_show():
    kernel = jax.grad(lambda x: blur(x, stride=2)[0, 2, 2, 0])(jnp.zeros((1, 12, 12, 1)))[0, ..., 0]
    np.testing.assert_allclose(kernel[3:7, 3:7], np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64)
    assert float(kernel.sum()) == 1
    rows, columns = np.indices((12, 12))
    board = np.float32(1 - 2 * ((rows + columns) % 2))
    np.testing.assert_allclose(blur(board[None, ..., None], stride=2)[0, 1:-1, 1:-1], 0, atol=1e-6)
    assert not np.allclose(board[::2, ::2], 0)


def test_examples_are_judged_one_by_one_and_every_weight_learns():
    critic, images = Critic(stages=2, width=8), image(3, 16, 24)
    variables = jax.jit(critic.init)(jax.random.key(1), images)
    judge = jax.jit(lambda variables, x: critic.apply(variables, x, train=True))
    whole = judge(variables, images)
    assert whole.shape == (3, 4, 6, 1)
    np.testing.assert_allclose(judge(variables, images[:1]), whole[:1], atol=1e-5)
    grads = jax.jit(jax.grad(lambda variables: jnp.mean(jnp.square(judge(variables, images)))))(
        variables
    )
    assert all(np.isfinite(x).all() and np.any(x) for x in jax.tree.leaves(grads))


def test_sides_that_cannot_be_halved_are_named():
    with pytest.raises(InputError, match="blurpool with 4 stages sees multiples of 16, got 24x16"):
        jax.eval_shape(Critic().init, jax.random.key(0), image(1, 16, 24))
