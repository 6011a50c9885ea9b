"""The count of floating-point operations."""

import jax
import jax.numpy as jnp
import pytest

from evqgan.core import flops


def test_products_and_convolutions_are_counted():
    x, w = jnp.zeros((4, 3, 5)), jnp.zeros((5, 7))
    assert flops.count(lambda x, w: jnp.tanh(x @ w) + 1, x, w) == 2 * 4 * 3 * 5 * 7
    image, kernel = jnp.zeros((2, 8, 8, 6)), jnp.zeros((3, 3, 6, 10))
    layout = ("NHWC", "HWIO", "NHWC")

    def convolve(image, kernel, groups=1, **keys):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=layout,
            feature_group_count=groups,
            **keys,
        )

    assert flops.count(convolve, image, kernel) == 2 * (2 * 8 * 8 * 10) * 9 * 6
    depthwise = jnp.zeros((3, 3, 1, 6))
    assert flops.count(lambda x, k: convolve(x, k, 6), image, depthwise) == 2 * (2 * 8 * 8 * 6) * 9


def test_what_is_within_loops_and_calls_is_counted_as_often_as_it_runs():
    x, w = jnp.zeros((4, 5)), jnp.zeros((5, 5))
    once = 2 * 4 * 5 * 5

    def scanned(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=3)[0]

    assert flops.count(scanned, x, w) == 3 * once
    assert flops.count(jax.jit(jax.remat(scanned)), x, w) == 3 * once
    gradient = jax.grad(lambda x, w: jnp.sum(scanned(x, w)), (0, 1))
    assert flops.count(gradient, x, w) == 9 * once  # of both sides, backward

    def branches(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)

    assert flops.count(branches, x, w) == 2 * once
    assert (
        flops.count(lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x - 1, x), x) == 0
    )
    with pytest.raises(ValueError, match="loop of unknown length"):
        flops.count(
            lambda x, w: jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ w, x), x, w
        )


def test_what_no_result_depends_on_is_not_counted():
    x, w = jnp.zeros((4, 5)), jnp.zeros((5, 5))
    once = 2 * 4 * 5 * 5

    def layers(weights):
        y = jax.lax.scan(lambda y, w: (y @ w, None), x, weights[0])[0]
        return jnp.sum(jax.jit(lambda y: y @ weights[1])(y))

    def last(weights):  # the gradient for the last layer, as the adaptive weight takes it
        return jax.grad(layers)(weights)[1]

    weights = jnp.stack([w, w, w]), w
    # Three layers forward, and backward for two sides each; of the last, whose result is not asked
    # for, the two sides backward, or one.
    assert flops.count(jax.grad(layers), weights) == (3 + 2 * 3 + 2) * once
    assert flops.count(last, weights) == (3 + 1) * once


def test_fused_attention_counts_as_the_products_that_it_stands_for(monkeypatch):
    # Nothing is compiled: JAX asks for the library while it traces.
    version = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
    monkeypatch.setattr(version, lambda: 91000)
    query, keys = (jnp.zeros((2, length, 4, 64), "bfloat16") for length in (10, 12))

    def gradient(implementation):
        def attended(query, keys):
            given = query, keys, keys
            return jnp.sum(jax.nn.dot_product_attention(*given, implementation=implementation))

        return jax.grad(attended, (0, 1))

    each = 2 * (2 * 4) * 10 * 12 * 64
    assert (
        flops.count(gradient("xla"), query, keys) == (2 + 4 - 1) * each
    )  # the sum is not asked for
    assert flops.count(gradient("cudnn"), query, keys) == (2 + 4) * each  # its forward part is one
