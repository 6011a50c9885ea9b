"""Finite scalar quantization: the grid, ids, gradients, and what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.tokenizers.quantizers.codebooks import codebook_statistics
from evqgan.tokenizers.quantizers.fsq import Quantizer

LEVELS = [(8, 5, 5, 5), (2, 3, 4), (7,)]
levels_of = pytest.mark.parametrize("levels", LEVELS, ids=str)


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


@levels_of
def test_ids_and_vectors_of_the_grid_are_one_to_one(levels):
    """All L_i whole numbers around 0, up to half the number of levels.

    The first channel is the fastest, as in the paper's code.
    """
    quantizer = Quantizer(levels)
    assert (quantizer.codes, quantizer.width, quantizer.depth) == (np.prod(levels), len(levels), 1)
    channels = [(np.arange(n) - n // 2) / (n // 2) for n in levels]
    expected = np.float32([x[::-1] for x in itertools.product(*channels[::-1])])
    book = np.asarray(codebook(quantizer))
    np.testing.assert_array_equal(book, expected)
    assert len(np.unique(book, axis=0)) == quantizer.codes
    # Far out: both ends of a channel alone.
    z_q, ids, _ = quantize(quantizer, jnp.asarray(30 * book)[None, :, None])
    assert set(np.asarray(ids).ravel()) <= set(range(quantizer.codes))
    np.testing.assert_array_equal(z_q[0, :, 0], book[np.asarray(ids)[0, :, 0, 0]])


@levels_of
def test_every_code_can_be_reached(levels):
    """z with bound(z) on the grid gives that code.

    The ends of an even number of levels are approached from inside.
    """
    quantizer = Quantizer(levels)
    book = np.asarray(codebook(quantizer))
    whole, half = book * (np.array(levels) // 2), (np.array(levels) - 1) * (1 - 1e-3) / 2
    offset = np.where(np.array(levels) % 2, 0.0, 0.5)
    z = np.arctanh(np.clip((whole + offset) / half, -0.999, 0.999)) - np.tan(offset / half)
    _, ids, aux = quantize(quantizer, jnp.float32(z)[None, :, None])
    np.testing.assert_array_equal(ids[0, :, 0, 0], np.arange(quantizer.codes))
    assert aux["usage"] == 1 and aux["quantizer_loss"] == 0
    np.testing.assert_allclose(aux["perplexity"], quantizer.codes, rtol=1e-4)


@levels_of
def test_embed_equals_quantized_bit_for_bit(levels):
    quantizer = Quantizer(levels)
    z_q, ids, aux = quantize(quantizer, 2 * normal((2, 5, 6, len(levels))))
    again = embed(quantizer, ids)
    assert np.asarray(again).tobytes() == np.asarray(z_q).tobytes()
    assert ids.dtype == jnp.int32 and z_q.dtype == jnp.float32
    counts = np.bincount(np.asarray(ids).ravel(), minlength=quantizer.codes)
    np.testing.assert_allclose(
        [aux["usage"], aux["perplexity"]], codebook_statistics(counts[None]), rtol=1e-5
    )


def test_the_gradient_passes_the_rounding_straight_through():
    quantizer, z, weight = Quantizer((8, 5, 4)), normal((1, 2, 3, 3)), normal((1, 2, 3, 3), 1)
    levels = np.array([8, 5, 4])
    grad = jax.jit(jax.grad(lambda z: jnp.sum(weight * quantizer.apply({}, z)[0])))(z)
    half, offset = (levels - 1) * (1 - 1e-3) / 2, np.where(levels % 2, 0.0, 0.5)
    expected = (
        np.asarray(weight)
        * half
        / (levels // 2)
        * (1 - np.tanh(np.float64(z) + np.tan(offset / half)) ** 2)
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"levels": (8, 1)}, {"levels": ()}, {"levels": 8}, {"levels": (8, 2.5)}, {"levls": (8, 5)}],
    ids=str,
)
def test_wrong_levels_are_refused_in_one_line(wrong):
    with pytest.raises(InputError, match="levels") as error:
        build.build(
            "tokenizers.quantizers",
            "Quantizer",
            {"name": "fsq", **wrong},
            "config.tokenizer.quantizer",
        )
    assert "\n" not in str(error.value) and "config.tokenizer.quantizer" in str(error.value)
