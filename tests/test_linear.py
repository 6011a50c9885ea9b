"""Linear layers whose bias is added in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.nn import linear

PAIRS = {
    "Dense": ((6,), {}),
    "DenseGeneral": (((2, 3),), {"axis": (-2, -1)}),
    "Conv": ((6, (3, 3)), {}),
}
layers = pytest.mark.parametrize("name", PAIRS)


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def make(module, name, dtype):
    values, keys = PAIRS[name]
    return getattr(module, name)(
        *values, **keys, dtype=dtype, bias_init=nn.initializers.normal(1.0)
    )


@layers
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_is_that_of_linen(name, dtype):
    x = normal((2, 5, 5, 4))
    ours, theirs = make(linear, name, dtype), make(nn, name, dtype)
    params = theirs.init(jax.random.key(1), x)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, ours.init(jax.random.key(1), x))
    y = ours.apply(params, x)
    assert y.dtype == dtype
    close = 1e-6 if dtype == "float32" else 2**-7  # a rounding of the bias and one of the sum
    np.testing.assert_allclose(
        np.float32(y), np.float32(theirs.apply(params, x)), rtol=close, atol=close
    )


@layers
def test_the_gradient_of_a_bias_is_a_sum_in_float32(name):
    """Of 20,000 numbers in bfloat16, whose sum is small beside theirs."""
    x = jnp.zeros((20, 25, 40, 4), jnp.bfloat16)
    layer = make(linear, name, "bfloat16")
    params = layer.init(jax.random.key(0), x)
    shape = jax.eval_shape(layer.apply, params, x).shape
    weight = (1 + normal(shape)).astype(jnp.bfloat16)
    weight = weight * jnp.where(jnp.arange(20) % 2, 1, -1).reshape(
        20, *[1] * (len(shape) - 1)
    ).astype(weight.dtype)
    grads = jax.jit(lambda params, weight: jax.vjp(layer.apply, params, x)[1](weight)[0])(
        params, weight
    )
    bias = grads["params"]["bias"]
    assert bias.dtype == jnp.float32
    expected = np.float64(weight).reshape(-1, *bias.shape).sum(axis=0)
    np.testing.assert_allclose(bias, expected, rtol=1e-3, atol=1e-2)
