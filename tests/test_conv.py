"""Convolutional layers: what they compute, what they see, what they refuse."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.nn import conv
from evqgan.nn.conv import NonLocal, ResBlock


class Call(nn.Module):
    """A function of `conv` as a module."""

    function: Callable
    kind: str

    @nn.compact
    def __call__(self, x):
        return self.function(x, self.kind)


def normal(shape):
    return jax.random.normal(jax.random.key(0), shape)


def filled(module, x):
    """Its variables, all different from 0 and 1."""
    rng, like = np.random.default_rng(0), jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), like)


def run(module, x):
    return np.asarray(module.apply(filled(module, x), x))


def named(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(tree)
    }


def plain(norm="layer", **keys):
    """A block whose channels need not be a multiple of 32."""
    return ResBlock(norm=norm, **keys)


def strided(x, kernel, bias, first):
    """Return y in float64, with zeros around x.

    y[i,j] = bias + sum of kernel[dy,dx] * x[2i + dy + first, 2j + dx + first].
    """
    b, h, w, c = x.shape
    padded = np.zeros((b, h + 4, w + 4, c))
    padded[:, 2:-2, 2:-2] = x
    y = np.zeros((b, h // 2, w // 2, kernel.shape[3])) + np.asarray(bias, np.float64)
    for dy in range(len(kernel)):
        for dx in range(len(kernel)):
            top, left = 2 + dy + first, 2 + dx + first
            y += padded[:, top : top + h : 2, left : left + w : 2] @ np.float64(kernel[dy, dx])
    return y


@pytest.mark.parametrize("kind, first", [("conv", 0), ("conv4", -1)])
def test_strided_convolutions_equal_their_formula(kind, first):
    module, x = Call(conv.downsample, kind), normal((2, 6, 4, 3))
    layer = filled(module, x)["params"]["down"]
    np.testing.assert_allclose(
        run(module, x), strided(x, layer["kernel"], layer["bias"], first), atol=1e-5
    )


def test_pooling_is_the_mean_of_four_and_nearest_its_inverse():
    x = normal((2, 3, 4, 5))
    large = run(Call(conv.upsample, "nearest"), x)
    assert large.shape == (2, 6, 8, 5)
    for dy in (0, 1):
        for dx in (0, 1):
            np.testing.assert_array_equal(large[:, dy::2, dx::2], x)
    noise = normal(large.shape)
    small = run(Call(conv.downsample, "pool"), large + noise)
    np.testing.assert_allclose(small - x, noise.reshape(2, 3, 2, 4, 2, 5).mean((2, 4)), atol=1e-5)


def test_norms_make_means_zero_and_variances_one_of_what_they_are_named_after():
    x = 3 * normal((2, 4, 6, 64)) + 1000  # a mean that cancels badly
    rng = jax.random.key(0)
    group = Call(conv.normalize, "group").init_with_output(rng, x)[0].reshape(2, 24, 32, 2)
    layer = Call(conv.normalize, "layer").init_with_output(rng, x)[0]
    for y, axes in ((group, (1, 3)), (layer, -1)):
        np.testing.assert_allclose(y.mean(axes), 0, atol=1e-3)
        np.testing.assert_allclose(y.std(axes), 1, atol=1e-3)


@pytest.mark.parametrize("features", [3, 5])
def test_a_block_sees_two_places_on_each_side(features):
    module, x = plain(features=features), normal((1, 9, 9, 3))
    variables = filled(module, x)
    back = jax.jit(jax.grad(lambda x: module.apply(variables, x)[0, 4, 4].sum()))(x)
    seen = np.abs(back[0]).sum(-1) > 0
    assert seen[2:7, 2:7].all() and seen.sum() == 25


def test_only_a_change_of_width_needs_a_shortcut():
    x = jnp.zeros((1, 4, 4, 32))
    both = {
        "norm1/scale",
        "norm1/bias",
        "norm2/scale",
        "norm2/bias",
        "conv1/kernel",
        "conv2/kernel",
    }
    biases = {"conv1/bias", "conv2/bias"}
    for features, bias, expected in (
        (32, True, both | biases),
        (32, False, both),
        (64, False, both | {"shortcut/kernel"}),
        (64, True, both | biases | {"shortcut/kernel", "shortcut/bias"}),
    ):
        shapes = jax.eval_shape(ResBlock(features, bias=bias).init, jax.random.key(0), x)["params"]
        assert named(shapes) == expected


def test_a_block_with_a_silent_branch_passes_x_on():
    for features in (3, 5):
        module, x = plain(features=features), normal((2, 4, 4, 3))
        variables = filled(module, x)
        params = {
            **variables["params"],
            "conv2": jax.tree.map(np.zeros_like, variables["params"]["conv2"]),
        }
        expected = (
            x
            if features == 3
            else x @ params["shortcut"]["kernel"] + params["shortcut"]["bias"][None, None, None]
        )
        np.testing.assert_allclose(module.apply({"params": params}, x), expected, atol=1e-5)


def test_the_quirk_keeps_x_from_the_end():
    """The branch begins with a norm: what has x only through it does not feel x doubled."""
    x = normal((1, 6, 6, 3))
    for quirk, features, same in ((True, 5, True), (True, 3, False), (False, 5, False)):
        module = plain(features=features, shortcut_of_output=quirk)
        variables = filled(module, x)
        once, twice = (module.apply(variables, scale * x) for scale in (1, 2))
        assert (np.abs(once - twice).max() < 1e-3 * np.abs(once).max()) == same


def test_relu_and_swish_are_what_they_are_called():
    x = normal((50,))
    np.testing.assert_array_equal(conv.activate(x, "relu"), np.maximum(x, 0))
    np.testing.assert_allclose(conv.activate(x, "swish"), x / (1 + np.exp(-x)), rtol=1e-5)


def test_non_local_attention_sees_all_places_and_knows_no_positions():
    module, x = NonLocal("layer"), normal((1, 4, 3, 6))
    variables = filled(module, x)
    back = jax.jit(jax.grad(lambda x: module.apply(variables, x)[0, 1, 1].sum()))(x)
    assert (np.abs(back[0]).sum(-1) > 0).all()
    order = np.random.default_rng(0).permutation(12)
    mixed = module.apply(variables, x.reshape(1, 12, 6)[:, order].reshape(x.shape))
    expected = run(module, x).reshape(1, 12, 6)[:, order].reshape(x.shape)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    assert module.apply(variables, normal((2, 7, 2, 6))).shape == (2, 7, 2, 6)


def test_non_local_attention_equals_its_formula():
    module, x = NonLocal("layer"), normal((2, 3, 3, 4))
    p = jax.tree.map(np.float64, filled(module, x)["params"])
    y = np.float64(x).reshape(2, 9, 4)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6) * p["norm"][
        "scale"
    ] + p["norm"]["bias"]
    a = p["attention"]
    query = y @ a["query"]["kernel"][:, 0] + a["query"]["bias"][0]
    key, value = (
        y @ a["key_value"]["kernel"][:, i, 0] + a["key_value"]["bias"][i, 0] for i in (0, 1)
    )
    logits = query @ key.swapaxes(1, 2) / 2  # the root of four channels
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = x + (weights @ value @ a["out"]["kernel"][0] + a["out"]["bias"]).reshape(x.shape)
    np.testing.assert_allclose(run(module, x), expected, atol=1e-5)


@pytest.mark.parametrize("module", [ResBlock(64, dtype="bfloat16"), NonLocal(dtype="bfloat16")])
def test_computation_in_bfloat16_keeps_float32_parameters(module):
    x = normal((1, 4, 4, 32))
    variables = filled(module, x)
    assert {a.dtype.name for a in jax.tree.leaves(variables)} == {"float32"}
    y, exact = (jax.jit(m.apply)(variables, x) for m in (module, module.clone(dtype="float32")))
    assert y.dtype == jnp.bfloat16 and np.any(y != exact)
    np.testing.assert_allclose(y.astype("float32"), exact, atol=0.1 * np.abs(exact).max())


def test_channels_that_make_no_groups_are_named():
    with pytest.raises(InputError, match="multiples of 32, the groups of the norm, got 4"):
        ResBlock(32).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))
