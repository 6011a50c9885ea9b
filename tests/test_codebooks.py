"""What quantizers share: nearest codes, statistics, MaskGIT's entropy loss as it was recorded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import files, load

from evqgan.tokenizers.quantizers import maskgit, vq
from evqgan.tokenizers.quantizers.codebooks import (
    codebook_statistics,
    entropy_loss,
    nearest,
    squared_distances,
)


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def with_entropy(path):
    with np.load(path) as stored:
        return json.loads(str(stored["config"]))["vqvae"]["quantizer"] == "vq"


def test_nearest_is_nearest_and_the_first_of_equals():
    x, codes = normal((200, 5)), normal((33, 5), 1)
    codes = jnp.concatenate([codes, codes])
    distances = np.sum((np.float64(x)[:, None] - np.float64(codes)[None]) ** 2, axis=-1)
    ids = nearest(x, codes)
    assert ids.max() < 33
    np.testing.assert_allclose(distances[np.arange(200), ids], distances.min(axis=-1), atol=1e-5)


def test_statistics_of_counts():
    usage, perplexity = codebook_statistics(np.array([[5, 5, 0, 0], [1, 1, 1, 1]]))
    assert usage == 0.75 and np.isclose(perplexity, (2 + 4) / 2)
    usage, perplexity = codebook_statistics(np.zeros((1, 4), int))
    assert usage == 0 and np.isfinite(perplexity)


def test_squared_distances_are_those():
    x, codes = normal((20, 5)), normal((7, 5), 1)
    expected = np.sum((np.float64(x)[:, None] - np.float64(codes)[None]) ** 2, axis=-1)
    np.testing.assert_allclose(squared_distances(x, codes), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "path", list(filter(with_entropy, files("maskgit_tokenizer*.npz"))), ids=lambda path: path.stem
)
def test_entropy_and_losses_equal_the_recorded_maskgit(path):
    config, weights, _, outputs = load(path)
    theirs, codes, z = config["vqvae"], weights["quantizer/codebook"], outputs["enc"]
    affinity = -squared_distances(z.reshape(-1, codes.shape[1]), codes)
    names = [name for name in outputs if name.startswith("entropy_")]
    assert names
    for name in names:
        _, target, temperature = name.split("_")
        ours = entropy_loss(affinity, float(temperature[1:]), target)
        np.testing.assert_allclose(ours, outputs[name][0], rtol=1e-4, err_msg=name)
    quantizer = maskgit.Quantizer(
        *codes.shape,
        commitment=theirs["commitment_cost"],
        entropy=theirs["entropy_loss_ratio"],
        entropy_temperature=theirs["entropy_temperature"],
        entropy_target=theirs["entropy_loss_type"],
    )
    z_q, ids, aux = quantizer.apply({"params": {"codebook": codes[None]}}, z)
    np.testing.assert_array_equal(ids[..., 0], outputs["indices"])
    np.testing.assert_allclose(z_q, outputs["quant"], rtol=1e-5, atol=1e-6)
    ours = {
        "quantizer_loss": aux["quantizer_loss"],
        "e_latent_loss": theirs["commitment_cost"] * aux["commitment_loss"],
        "q_latent_loss": aux["codebook_loss"],
        "entropy_loss": theirs["entropy_loss_ratio"] * aux.get("entropy_loss", 0.0),
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value, outputs[f"train/{name}"][0], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("target", ["softmax", "argmax"])
def test_entropy_is_least_for_sure_choices_of_all_codes(target):
    def loss(chosen, certainty):
        return entropy_loss(certainty * jax.nn.one_hot(jnp.array(chosen), 4), 0.5, target)

    np.testing.assert_allclose(loss([0, 1, 2, 3], 50.0), -np.log(4), atol=1e-3)
    assert loss([0, 1, 2, 3], 50.0) < loss([0, 1, 2, 2], 50.0) < loss([0, 0, 0, 0], 50.0) + 1e-3
    assert loss([0, 1, 2, 3], 50.0) < loss([0, 1, 2, 3], 0.5)


def test_entropy_of_the_likeliest_code_has_a_gradient():
    affinity = normal((8, 4))
    grads = jax.grad(entropy_loss)(affinity, 0.5, "argmax")
    assert np.any(grads != 0)
    # A softmax does not feel a common shift.
    np.testing.assert_allclose(grads.sum(axis=-1), 0, atol=1e-6)


def test_entropy_moves_codes_and_encoder_and_is_added_with_its_weight():
    plain, z = vq.Quantizer(codes=16, width=4), normal((2, 3, 3, 4))
    params = {"codebook": normal((1, 16, 4), 1)}
    quantizer = maskgit.Quantizer(codes=16, width=4, entropy=0.1, entropy_temperature=0.5)

    def losses(quantizer, params, z):
        aux = quantizer.apply({"params": params}, z)[2]
        return aux["quantizer_loss"], aux.get("entropy_loss", 0.0)

    total, entropy = losses(quantizer, params, z)
    np.testing.assert_allclose(total, losses(plain, params, z)[0] + 0.1 * entropy, rtol=1e-6)
    grads = jax.jit(jax.grad(lambda params, z: losses(quantizer, params, z)[1], (0, 1)))(params, z)
    assert all(np.any(g != 0) for g in jax.tree.leaves(grads))
