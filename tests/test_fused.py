"""Attention as one kernel: the same function as products and a softmax."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.nn import fused
from evqgan.nn.attention import attend_joined, attend_one_by_one, attend_pieces


def case(dtype, *, rows=(2, 3), queries=17, lengths=(5, 9, 17), masked=True):
    """Random queries [2,3,S,2,8], and pieces of which the first serves all targets of an image."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    pieces = []
    for i, length in enumerate(lengths):
        of = (rows[0], 1) if i == 0 else rows
        mask = jnp.asarray(rng.random((*rows, 1, 1, length)) < 0.7) if masked and i < 2 else None
        pieces.append((normal(*of, length, 2, 8), normal(*of, length, 2, 8), mask))
    return normal(*rows, queries, 2, 8), pieces


def value_and_gradients(attend, query, pieces):
    """Of a function of all that comes out, with respect to queries, keys and values."""

    def total(query, sides):
        pieces_now = [(*side, mask) for side, (*_, mask) in zip(sides, pieces, strict=True)]
        out = attend(query, pieces_now).astype(jnp.float32)
        return jnp.sum(jnp.sin(out)), out

    given = query, [piece[:2] for piece in pieces]
    (_, out), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(*given)
    return out, *jax.tree.leaves(gradients)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"masked": False},  # an odd number of keys
        {"masked": False, "lengths": (4, 8), "queries": 16},
        {"lengths": (6,), "rows": (1, 1)},
    ],
)
def test_all_forms_of_attention_are_one_function(changes):
    query, pieces = case("float32", **changes)

    def by_kernel(query, pieces):
        return fused.attend(query, pieces, implementation="xla")

    expected = value_and_gradients(attend_one_by_one, query, pieces)
    for other in (by_kernel, attend_joined):
        found = value_and_gradients(other, query, pieces)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


def test_bias_and_dropped_weights_of_joined_pieces():
    query, pieces = case("float32")
    bias = jnp.asarray(np.random.default_rng(1).normal(size=(2, 17, 31)), "float32")
    given = query, pieces, bias, lambda weights: weights * (weights > 0.02)
    np.testing.assert_allclose(attend_joined(*given), attend_one_by_one(*given), atol=2e-6)


# cuDNN runs on NVIDIA's GPUs alone. That the kernel is handed the same function is guarded always,
# by test_all_forms_of_attention_are_one_function; on a GPU `python -m evqgan.benchmark
# device --part=checks` compares it with float64, too.
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="the kernel is cuDNN's: it needs a GPU")
def test_the_kernel_gives_what_products_and_a_softmax_give():
    query, pieces = case("bfloat16")
    assert fused.fits(query)
    wide = (
        query.astype(jnp.float32),
        [(k.astype(jnp.float32), v.astype(jnp.float32), m) for k, v, m in pieces],
    )
    expected = value_and_gradients(attend_one_by_one, *wide)
    found = value_and_gradients(attend_pieces, query, pieces)
    for a, b in zip(found, expected, strict=True):
        assert np.linalg.norm(a.astype(jnp.float32) - b) < 0.02 * np.linalg.norm(b)


def test_float32_and_short_queries_are_left_to_products_and_a_softmax():
    assert not fused.fits(jnp.zeros((1, 64, 2, 8)))
    assert not fused.fits(jnp.zeros((1, 5, 2, 8), jnp.bfloat16))


@pytest.mark.parametrize("capability, has", [("7.5", False), ("8.0", True), ("12.0", True)])
def test_gpus_before_ampere_have_no_kernel(monkeypatch, capability, has):
    gpu = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(fused, "platform", lambda: "gpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert fused.fits(np.zeros((1, 64, 2, 8), jnp.bfloat16)) is has
