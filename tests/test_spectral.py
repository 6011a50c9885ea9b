"""Spectral normalization: the right norm, when it iterates, what it stores, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.nn.spectral import (
    SpectralConv,
    iterate,
    times,
    torch_bias,
    torch_kernel,
    transposed_times,
)

X = np.float32(np.random.default_rng(0).standard_normal((2, 7, 6, 5)))


def layer(**keys):
    return SpectralConv(**{"channels": 8, "size": 4, "stride": 2, "padding": 1, **keys})


def init(module, seed=0):
    return jax.jit(lambda key: module.init(key, X, train=True))(jax.random.key(seed))


def matrix(kernel):
    """As PyTorch sees it: [o, i*h*w]."""
    return np.asarray(kernel).transpose(3, 2, 0, 1).reshape(kernel.shape[3], -1)


def with_vectors(variables, seed=1):
    """The same with random unit vectors u and v: far from the first singular ones."""
    rng = np.random.default_rng(seed)
    random = {
        name: np.float32(rng.standard_normal(x.shape))
        for name, x in variables["batch_stats"].items()
    }
    return {**variables, "batch_stats": {name: x / np.linalg.norm(x) for name, x in random.items()}}


def plain(variables, kernel, stride=2, padding=1, groups=1):
    y = jax.lax.conv_general_dilated(
        X,
        kernel,
        (stride,) * 2,
        ((padding,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y + variables["params"].get("bias", jnp.zeros(y.shape[-1])).reshape(1, 1, 1, -1)


def test_products_are_those_of_the_matrix():
    kernel = np.float32(np.random.default_rng(0).standard_normal((4, 3, 5, 8)))
    v, u = (np.float32(np.random.default_rng(1).standard_normal(n)) for n in (60, 8))
    np.testing.assert_allclose(times(kernel, v), matrix(kernel) @ v, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        transposed_times(kernel, u), matrix(kernel).T @ u, rtol=1e-4, atol=1e-5
    )


def test_iterations_find_the_largest_singular_value():
    kernel = np.float32(np.random.default_rng(0).standard_normal((4, 4, 5, 8)))
    u = jnp.ones(8) / 8**0.5
    for _ in range(200):
        u, v = iterate(kernel, u)
    np.testing.assert_allclose(u @ times(kernel, v), np.linalg.norm(matrix(kernel), 2), rtol=1e-4)


def test_evaluation_divides_by_the_stored_vectors_norm_and_iterates_never():
    module = layer()
    variables = with_vectors(init(module))
    kernel, stats = variables["params"]["kernel"], variables["batch_stats"]
    sigma = stats["u"] @ matrix(kernel) @ stats["v"]
    y, changed = module.apply(variables, X, train=False, mutable=["batch_stats"])
    np.testing.assert_allclose(y, plain(variables, kernel / sigma), rtol=1e-4, atol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, dict(changed["batch_stats"]), stats)


def test_training_iterates_once_and_stores_if_it_may():
    module = layer()
    variables = with_vectors(init(module))
    kernel, stats = variables["params"]["kernel"], variables["batch_stats"]
    v = matrix(kernel).T @ stats["u"]
    v /= np.linalg.norm(v)
    u = matrix(kernel) @ v
    u /= np.linalg.norm(u)
    expected = plain(variables, kernel / (u @ matrix(kernel) @ v))
    y, changed = module.apply(variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(changed["batch_stats"]["u"], u, atol=1e-5)
    np.testing.assert_allclose(changed["batch_stats"]["v"], v, atol=1e-5)
    # Not mutable: same, nothing stored.
    np.testing.assert_array_equal(module.apply(variables, X, train=True), y)


def test_gradient_takes_the_vectors_as_constants():
    module = layer()
    variables = init(module)
    kernel = variables["params"]["kernel"]
    u, v = iterate(kernel, variables["batch_stats"]["u"])

    def ours(kernel):
        params = {**variables["params"], "kernel": kernel}
        return jnp.sum(jnp.sin(module.apply({**variables, "params": params}, X, train=True)))

    def literal(kernel):
        return jnp.sum(jnp.sin(plain(variables, kernel / (u @ times(kernel, v)))))

    grad = jax.grad(ours)(kernel)
    np.testing.assert_allclose(grad, jax.grad(literal)(kernel), rtol=1e-3, atol=1e-4)
    # The output does not depend on the kernel's length, so at u, v near the singular vectors
    # neither does the gradient.
    assert abs(jnp.vdot(grad, kernel)) < 1e-3 * jnp.linalg.norm(grad) * jnp.linalg.norm(kernel)


def test_a_fresh_layer_has_nearly_norm_one():
    variables = init(layer())
    kernel, stats = variables["params"]["kernel"], variables["batch_stats"]
    norm = np.linalg.norm(matrix(kernel), 2)
    assert 0.9 * norm < stats["u"] @ matrix(kernel) @ stats["v"] <= 1.0001 * norm


def test_initialization_is_pytorchs():
    kernel = torch_kernel(jax.random.key(0), (4, 4, 20, 50))
    bound = (4 * 4 * 20) ** -0.5
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(np.std(kernel), bound / 3**0.5, rtol=0.02)
    bias = torch_bias(100)(jax.random.key(0), (1000,))
    assert 0.09 < np.abs(bias).max() <= 0.1 and bias.min() < -0.09


@pytest.mark.parametrize(
    "keys, groups, bias",
    [
        ({"size": 3, "stride": 1, "use_bias": False}, 1, False),
        ({}, 1, True),
        ({"channels": 5, "size": 3, "stride": 1, "depthwise": True}, 5, True),
    ],
)
def test_strides_groups_and_bias(keys, groups, bias):
    module = layer(**keys)
    variables = init(module)
    kernel, stats = variables["params"]["kernel"], variables["batch_stats"]
    assert ("bias" in variables["params"]) == bias and kernel.shape[2] == 5 // groups
    sigma = stats["u"] @ matrix(kernel) @ stats["v"]
    expected = plain(variables, kernel / sigma, module.stride, module.padding, groups)
    np.testing.assert_allclose(
        module.apply(variables, X, train=False), expected, rtol=1e-4, atol=1e-4
    )


def test_bfloat16_keeps_float32_parameters_and_vectors():
    module = layer(dtype="bfloat16")
    variables = init(module)
    y, changed = module.apply(variables, X, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {x.dtype.name for x in jax.tree.leaves((variables, changed))} == {"float32"}
    np.testing.assert_allclose(np.float32(y), layer().apply(variables, X, train=True), atol=0.05)
