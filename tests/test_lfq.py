"""Lookup-free quantization: signs, bits, gradients; the entropy loss computed plainly too."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.tokenizers.quantizers.codebooks import codebook_statistics
from evqgan.tokenizers.quantizers.lfq import Quantizer


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@functools.partial(jax.jit, static_argnums=0)
def quantize(quantizer, z):
    return quantizer.apply({}, z)


@functools.partial(jax.jit, static_argnums=0)
def embed(quantizer, ids):
    return quantizer.apply({}, ids, method="embed")


@functools.partial(jax.jit, static_argnums=0)
def codebook(quantizer):
    return quantizer.apply({}, method="codebook")[0]


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_ids_are_the_bits_of_the_signs(bits):
    quantizer = Quantizer(bits)
    assert (quantizer.codes, quantizer.width, quantizer.depth) == (2**bits, bits, 1)
    book = np.asarray(codebook(quantizer))
    np.testing.assert_array_equal(
        book, [x[::-1] for x in itertools.product([-1.0, 1.0], repeat=bits)]
    )
    z_q, ids, aux = quantize(quantizer, jnp.asarray(0.3 * book)[None, :, None])
    np.testing.assert_array_equal(ids[0, :, 0, 0], np.arange(2**bits))
    np.testing.assert_array_equal(z_q[0, :, 0], book)
    assert aux["usage"] == 1
    np.testing.assert_allclose(aux["perplexity"], 2**bits, rtol=1e-4)


def test_embed_equals_quantized_bit_for_bit():
    quantizer, z = Quantizer(6), normal((2, 5, 6, 6))
    z = z.at[0, 0, 0].set(0.0)  # of which the sign is -1 (MAGVIT-v2, Sec. 3.1)
    z_q, ids, aux = quantize(quantizer, z)
    again = embed(quantizer, ids)
    assert np.asarray(again).tobytes() == np.asarray(z_q).tobytes() and ids[0, 0, 0] == 0
    assert ids.dtype == jnp.int32 and z_q.dtype == jnp.float32
    np.testing.assert_array_equal(z_q, np.where(z > 0, 1.0, -1.0))
    counts = np.bincount(np.asarray(ids).ravel(), minlength=64)
    np.testing.assert_allclose(
        [aux["usage"], aux["perplexity"]], codebook_statistics(counts[None]), rtol=1e-5
    )


def test_straight_through_is_identity():
    quantizer, z, weight = Quantizer(4), normal((1, 2, 3, 4)), normal((1, 2, 3, 4), 1)
    grad = jax.jit(jax.grad(lambda z: jnp.sum(weight * quantizer.apply({}, z)[0])))(z)
    np.testing.assert_allclose(grad, weight, rtol=1e-6)


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_entropy_loss_equals_the_plain_computation_over_all_codes(bits):
    """E[H(q)] - H(E[q]), in float64.

    q is the softmax of minus the squared distances to all 2^bits codes.
    """
    quantizer = Quantizer(bits, temperature=0.7, entropy=0.2, commitment=0.5)
    z = normal((2, 4, 5, bits), 3)
    book = np.float64(codebook(quantizer))
    scores = -np.sum((np.float64(z).reshape(-1, 1, bits) - book) ** 2, axis=-1) / 0.7
    q = np.exp(scores - scores.max(axis=-1, keepdims=True))
    q /= q.sum(axis=-1, keepdims=True)
    entropy = np.mean(-np.sum(q * np.log(q), axis=-1)) + np.sum(
        q.mean(axis=0) * np.log(q.mean(axis=0) + 1e-5)
    )
    _, _, aux = quantize(quantizer, z)
    np.testing.assert_allclose(aux["entropy_loss"], entropy, rtol=1e-4, atol=1e-5)
    commitment = np.mean((np.abs(np.float64(z)) - 1) ** 2)
    np.testing.assert_allclose(aux["commitment_loss"], commitment, rtol=1e-5)
    np.testing.assert_allclose(
        aux["quantizer_loss"], 0.2 * entropy + 0.5 * commitment, rtol=1e-4, atol=1e-5
    )


def test_entropy_is_least_for_sure_choices_of_all_codes_and_has_a_finite_gradient_far_out():
    quantizer = Quantizer(3, temperature=1.0)
    book = np.asarray(codebook(quantizer))
    loss = jax.jit(jax.value_and_grad(lambda z: quantizer.apply({}, z, method="entropy_loss")))
    every, one, unsure = (loss(z)[0] for z in (9 * book, 9 * book[:1].repeat(8, 0), 0.1 * book))
    np.testing.assert_allclose(every, -np.log(8), atol=1e-3)
    assert every < unsure < one + 0.1 and abs(one) < 1e-3
    assert all(np.isfinite(x).all() for x in loss(1e4 * book))


@pytest.mark.parametrize("wrong", [{"bits": 0}, {"bits": 19}, {"bits": 2.5}, {"bit": 10}], ids=str)
def test_wrong_bits_are_refused_in_one_line(wrong):
    with pytest.raises(InputError, match="bits") as error:
        build.build(
            "tokenizers.quantizers",
            "Quantizer",
            {"name": "lfq", **wrong},
            "config.tokenizer.quantizer",
        )
    assert "\n" not in str(error.value) and "config.tokenizer.quantizer" in str(error.value)
