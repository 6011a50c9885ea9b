"""Attention, MLP, Block, and the scan over layers."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.nn import attention
from evqgan.nn.attention import MLP, Attention, Block, attend, gelu, tanh_gelu
from evqgan.nn.layers import scan_layers, separate


class Stack(nn.Module):
    """`layers` blocks in a row, of two heads, x [...,S,c] -> [...,S,c]."""

    layers: int
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, x, mask=None, deterministic=True):
        def layer_step(block, x, _):
            return block(x, (), mask, deterministic)[0], None

        block = Block(2, dropout=self.dropout, dtype=self.dtype, name="blocks")
        return scan_layers(layer_step, block, x.astype(self.dtype), self.layers, self.remat)[0]


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def random_params(module, *x):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *x)
    return jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), shapes)


def apply(module, params, *x, **keys):
    return jax.jit(lambda params, *x: module.apply(params, *x, **keys))(params, *x)


def test_attend_equals_the_definition():
    q, k, v = (np.asarray(normal((2, 5, 3, 4), seed)) for seed in range(3))
    mask, bias = np.tril(np.ones((5, 5), bool)), np.asarray(normal((3, 5, 5), 3))
    expected = np.zeros(q.shape)
    for b, head, i in np.ndindex(2, 3, 5):
        logits = np.asarray(q[b, i, head] @ k[b, :, head].T) / 2 + bias[head, i]  # 2 = sqrt(4)
        weights = np.exp(logits) * mask[i]
        expected[b, i, head] = weights / weights.sum() @ v[b, :, head]
    y = jax.jit(attend)(q, k, v, mask[None, None], bias)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_a_row_that_may_look_nowhere_is_finite_and_so_is_its_gradient():
    q = normal((1, 3, 1, 4))
    mask = np.ones((1, 1, 3, 3), bool)
    mask[..., 1, :] = False
    y, grad = jax.value_and_grad(lambda q: jnp.sum(attend(q, q, q, mask) ** 2))(q)
    assert np.isfinite(y) and np.isfinite(grad).all()
    np.testing.assert_allclose(attend(q, q, q, mask)[0, 1], q[0].mean(axis=0), atol=1e-6)


def test_masked_tokens_have_no_influence():
    x, mask = normal((2, 6, 8)), jnp.ones((2, 1, 6, 6), bool).at[..., 4:].set(False)
    stack = Stack(2)
    params = random_params(stack, x, mask)
    jacobian = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(stack.apply(params, x, mask))[:, :4])))(x)
    assert np.all(jacobian[:, 4:] == 0) and np.all(jacobian[:, :4] != 0)


def test_tokens_computed_earlier_serve_as_if_they_were_there():
    """In three pieces, the first for two rows: each piece sees itself and what is left of it."""
    x, attention = normal((1, 6, 8)), Attention(2)
    params = random_params(attention, x)
    groups = np.repeat(np.arange(3), 2)
    whole, pair = apply(attention, params, x, mask=(groups[None] <= groups[:, None])[None, None])
    _, first = apply(attention, params, x[:, :2])
    pieces, prefix = [], [(*(kept[:, None] for kept in first), None)]
    for i in (1, 2):
        part = jnp.repeat(x[:, None, 2 * i : 2 * i + 2], 2, axis=1)
        y, new = apply(attention, params, part, prefix=tuple(prefix))
        prefix.append((*new, jnp.ones((1, 1, 1, 1, 2), bool)))
        pieces.append(y)
    np.testing.assert_allclose(
        jnp.concatenate(pieces, 2), jnp.stack([whole[:, 2:]] * 2, 1), atol=1e-5
    )
    for kept, of_all in zip(new, pair, strict=True):
        np.testing.assert_allclose(kept[:, 0], of_all[:, 4:], atol=1e-5)


def test_what_is_traced_for_a_tpu_is_the_same_function(monkeypatch):
    x, block = normal((2, 3, 6, 8)), Block(2)
    params = random_params(block, x)
    mask = jnp.ones((2, 1, 1, 1, 6), bool).at[..., 4:].set(False)

    def traced():
        step = lambda x: block.apply(params, x, (), mask)  # noqa: E731
        return str(jax.make_jaxpr(step)(x)), *step(x)

    on_cpu = traced()
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    on_tpu = traced()
    assert on_tpu[0] != on_cpu[0]
    for a, b in zip(on_tpu[1:], on_cpu[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_products_around_dropped_weights_stay_apart_on_a_tpu_and_are_the_same(monkeypatch):
    """Values and gradients; fused, a causal step ended the compiler of libtpu 0.0.42."""
    query, key, value = (normal((2, 6, 2, 4), seed=seed) for seed in range(3))
    causal = jnp.tril(jnp.ones((6, 6), bool))[None, None]
    kept = normal((2, 2, 6, 6), seed=3) > 0

    def traced(platform):
        monkeypatch.setattr(attention, "platform", lambda: platform)

        def total(*pieces):
            given = (*pieces, causal, None, lambda weights: weights * kept)
            return (attention.attend(*given) ** 2).sum()

        grad = jax.grad(total, (0, 1, 2))
        return str(jax.make_jaxpr(grad)(query, key, value)), grad(query, key, value)

    (on_gpu, expected), (on_tpu, got) = traced("gpu"), traced("tpu")
    assert "optimization_barrier" in on_tpu and "optimization_barrier" not in on_gpu
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_heads_must_divide_width():
    with pytest.raises(InputError, match="multiple of the 3 heads, got 8"):
        Attention(3).init(jax.random.key(0), jnp.zeros((1, 2, 8)))


def exact_gelu(x):
    """x float64 -> value, slope."""
    below = 0.5 * np.vectorize(math.erfc)(-x / 2**0.5)
    return x * below, below + x * np.exp(-x * x / 2) / (2 * np.pi) ** 0.5


def exact_tanh_gelu(x):
    factor = 2 * (2 / np.pi) ** 0.5
    below = 1 / (1 + np.exp(-factor * (x + 0.044715 * x**3)))
    return x * below, below + x * below * (1 - below) * factor * (1 + 3 * 0.044715 * x * x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("ours", "exact"), [(gelu, exact_gelu), (tanh_gelu, exact_tanh_gelu)])
def test_gelu_and_its_derivative_down_to_the_end_of_the_tail(ours, exact, dtype):
    x = jnp.linspace(-6, 6, 100).astype(dtype)
    value = jax.vjp(ours, x)[0]
    (slope,) = jax.jit(lambda x: jax.vjp(ours, x)[1](jnp.ones_like(x)))(x)
    assert value.dtype == slope.dtype == jnp.dtype(dtype)
    close = 4e-3 if dtype == "bfloat16" else 1e-4  # 2**-8: half of its last bit
    for got, expected in zip((value, slope), exact(np.float64(x)), strict=True):
        np.testing.assert_allclose(np.float64(got), expected, rtol=close, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gelu_and_its_derivative_on_a_gpu(dtype, monkeypatch):
    """Within 1e-6 of an exact one, and in bfloat16 within half of its last bit from -4 on."""
    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    x = jnp.linspace(-4 if dtype == "bfloat16" else -12, 6, 100).astype(dtype)
    value, pull = jax.vjp(gelu, x)
    close = {"rtol": 4e-3, "atol": 0} if dtype == "bfloat16" else {"rtol": 1e-5, "atol": 1e-6}
    got = value, *pull(jnp.ones_like(x))
    for found, expected in zip(got, exact_gelu(np.float64(x)), strict=True):
        assert found.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(np.float64(found), expected, **close)


def test_gelus_are_those_of_jax():
    x = jnp.linspace(-6, 6, 101)
    for ours, approximate in ((gelu, False), (tanh_gelu, True)):
        theirs = lambda x, approximate=approximate: jax.nn.gelu(x, approximate=approximate)  # noqa: E731
        np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)
        np.testing.assert_allclose(*(jax.vmap(jax.grad(f))(x) for f in (ours, theirs)), atol=1e-5)


def test_mlp_acts_on_each_token_alone():
    x, mlp = normal((2, 3, 4)), MLP()
    params = random_params(mlp, x)
    assert params["params"]["hidden"]["kernel"].shape == (4, 16)
    np.testing.assert_allclose(
        mlp.apply(params, x)[1, 2], mlp.apply(params, x[1, 2][None])[0], atol=1e-5
    )


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "squared_relu", "tanh"])
def test_the_mlp_without_biases_is_its_formula(name):
    x, mlp = normal((3, 8)), MLP(1.5, activation=name, use_bias=False)
    params = random_params(mlp, x)
    formulas = {
        "gelu": lambda y: y * (1 + np.vectorize(math.erf)(y / 2**0.5)) / 2,
        "quick_gelu": lambda y: y / (1 + np.exp(-1.702 * y)),
        "squared_relu": lambda y: np.maximum(y, 0) ** 2,
        "tanh": np.tanh,
    }
    layers = params["params"]
    assert {key: list(layer) for key, layer in layers.items()} == {
        "hidden": ["kernel"],
        "out": ["kernel"],
    }
    assert layers["hidden"]["kernel"].shape == (8, 12)
    expected = formulas[name](np.asarray(x) @ layers["hidden"]["kernel"]) @ layers["out"]["kernel"]
    np.testing.assert_allclose(apply(mlp, params, x), expected, atol=1e-5)


def test_heads_of_another_width_and_without_a_projection():
    x = normal((1, 5, 8))
    shapes = jax.eval_shape(Attention(3, head_dim=4, qkv_bias=False).init, jax.random.key(0), x)[
        "params"
    ]
    assert {key: layer["kernel"].shape for key, layer in shapes.items()} == {
        "query": (8, 3, 4),
        "key_value": (8, 2, 3, 4),
        "out": (3, 4, 8),
    }
    assert "bias" in shapes["out"] and "bias" not in shapes["query"]
    bare = Attention(1, project=False)
    params = random_params(bare, x)
    assert "out" not in params["params"] and apply(bare, params, x)[0].shape == x.shape


def test_a_scan_equals_blocks_one_by_one_and_remat_changes_nothing():
    x, mask = normal((2, 5, 8)), jnp.tril(jnp.ones((5, 5), bool))[None, None]
    params = random_params(Stack(3), x, mask)
    one_by_one = x
    for i in range(3):
        layer = jax.tree.map(lambda p, i=i: p[i], params["params"]["blocks"])
        one_by_one, _ = apply(Block(2), {"params": layer}, one_by_one, mask=mask)

    def run(**keys):
        stack = Stack(3, **keys)
        return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(stack.apply(p, x, mask)))))(
            params
        )

    value, grads = run()
    np.testing.assert_allclose(value, jnp.sum(jnp.sin(one_by_one)), rtol=1e-4, atol=1e-4)
    apart = {"params": {"blocks": separate(params["params"]["blocks"])}}
    np.testing.assert_allclose(apply(Stack(3), apart, x, mask), one_by_one, rtol=1e-4, atol=1e-4)
    other, others = run(remat=True)
    np.testing.assert_allclose(other, value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, others)


def test_program_does_not_grow_with_depth():
    x = normal((1, 4, 8))

    def length(layers):
        stack = Stack(layers)
        params = jax.eval_shape(stack.init, jax.random.key(0), x)
        return len(jax.jit(stack.apply).lower(params, x).as_text())

    assert length(24) < 1.02 * length(4)


def test_dropout_differs_between_layers_and_draws_and_is_off_by_default():
    x = jnp.ones((1, 4, 8))
    stack = Stack(2, dropout=0.5)
    params = random_params(stack, x)
    run = jax.jit(
        lambda seed: stack.apply(params, x, None, False, rngs={"dropout": jax.random.key(seed)})
    )
    np.testing.assert_array_equal(run(0), run(0))
    assert not np.allclose(run(0), run(1))
    np.testing.assert_array_equal(apply(stack, params, x), apply(Stack(2), params, x))


def test_bfloat16_computes_in_bfloat16_with_float32_parameters():
    x = normal((1, 4, 8))
    y, params = jax.eval_shape(Stack(2, dtype="bfloat16").init_with_output, jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert {p.dtype.name for p in jax.tree.leaves(params)} == {"float32"}


def test_softmax_is_float32():
    q = jnp.ones((1, 512, 1, 8), jnp.bfloat16)
    # The mean of equal values is that value.
    # A bfloat16 sum of 512 weights would stop growing before 1.
    np.testing.assert_allclose(np.float32(attend(q, q, q)), 1.0, atol=4e-3)


def test_initial_kernels_are_normal_numbers_of_deviation_002_within_two_deviations():
    params = jax.jit(Block(2).init)(jax.random.key(0), jnp.zeros((1, 2, 64)))["params"]
    kernels = [x["kernel"] for part in ("attention", "mlp") for x in params[part].values()]
    assert len(kernels) == 5
    for kernel in kernels:
        assert 0.017 < kernel.std() < 0.019 and 0.038 < np.abs(kernel).max() <= 0.0401


def test_dropout_of_attention_weights_may_be_another_than_that_of_the_branches():
    x = normal((2, 5, 8))
    params = Block(2).init(jax.random.key(0), x)

    def out(block, deterministic=False):
        rngs = {"dropout": jax.random.key(1)}
        return block.apply(params, x, deterministic=deterministic, rngs=rngs)[0]

    still = out(Block(2), deterministic=True)
    assert np.abs(out(Block(2, attention_dropout=0.5)) - still).max() > 1e-3
    np.testing.assert_array_equal(out(Block(2, attention_dropout=0.0)), still)
    same = out(Block(2, dropout=0.5, attention_dropout=0.5))
    np.testing.assert_array_equal(out(Block(2, dropout=0.5)), same)
    assert np.abs(out(Block(2, dropout=0.5, attention_dropout=0.0)) - same).max() > 1e-3
