"""The Gumbel-softmax quantizer against recordings of the originals.

The rest is what is chosen, which way gradients go, and temperatures.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close, files, load

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.tokenizers.quantizers import gumbel, maskgit_gumbel
from evqgan.tokenizers.quantizers.gumbel import Quantizer as Gumbel

ABOUT = (  # what a recording's config says of itself
    {"repo", "commit", "torch", "variant", "seed", "gain", "overrides", "note"}
    | {"weights_stored", "n_float_weights", "shapes", "checksum"}
)


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def init(quantizer, z):
    return jax.jit(quantizer.init)(jax.random.key(0), z)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(quantizer, variables, z, noise=None):
    return quantizer.apply(variables, z, noise=noise)


@functools.partial(jax.jit, static_argnums=0)
def train(quantizer, variables, z, seed=0):
    """-> z_q, ids, aux, variables after the step."""
    rngs = {"codebook": jax.random.key(seed)}
    out, changed = quantizer.apply(variables, z, train=True, rngs=rngs, mutable=["codebook"])
    return *out, {**variables, **changed}


@pytest.mark.parametrize("path", files("vitvqgan_gumbel*.npz"), ids=lambda path: path.stem)
def test_equals_the_recorded_vit_vqgan(path):
    config, weights, inputs, outputs = load(path)
    theirs = {key: value for key, value in config.items() if key not in ABOUT}
    theirs.update(theirs.pop("quantizer", {}))
    (name, codes), *others = weights.items()
    assert name == "gumbel.embedding.weight" and not others
    norm, tau = theirs.pop("use_norm", True), theirs.pop("temp_init", None)
    tau = theirs.pop("tau", tau)
    assert not theirs.pop("use_residual", False), f"{path}: a Gumbel quantizer of ours has depth 1"
    shape = theirs.pop("n_embed", len(codes)), theirs.pop("embed_dim", codes.shape[1])
    assert not theirs, f"{path}: nothing of ours stands for {sorted(theirs)}"
    assert shape == codes.shape
    z, noise = inputs["z"][:, None], inputs["gumbel_noise"][:, None]
    keys = {"temperature": tau, "kl_weight": 1.0, "logits": "distance", "l2_normalize": norm}
    soft, hard = (Gumbel(*codes.shape, hard=hard, **keys) for hard in (False, True))
    variables = {"params": {"codebook": codes}}
    ours = {"logits": soft.apply(variables, z, method="scores")}
    ours["soft_zq"], ours["soft_idx"], aux = soft.apply(variables, z, train=True, noise=noise)
    ours["hard_zq"], ours["hard_idx"], _ = hard.apply(variables, z, noise=noise)
    ours["soft_kl"] = aux["quantizer_loss"]
    assert outputs.keys() == ours.keys(), (
        f"{path}: of these, one is not compared {sorted(outputs.keys() ^ ours.keys())}"
    )
    for name, recorded in outputs.items():
        if name.endswith("_idx"):
            np.testing.assert_array_equal(ours[name][:, 0, :, 0], recorded, err_msg=name)
        else:
            close(ours[name][:, 0] if np.ndim(ours[name]) else ours[name][None], recorded)


def test_gumbel_takes_the_most_likely_code_in_evaluation_and_draws_by_probability_in_training():
    quantizer, z = Gumbel(codes=4, width=3), jnp.ones((1, 40, 50, 2))
    variables = init(quantizer, z)
    logits = np.log([0.1, 0.2, 0.3, 0.4])
    variables["params"]["logits"] = {
        "kernel": np.zeros((2, 4), np.float32),
        "bias": np.float32(logits),
    }
    _, ids, aux = evaluate(quantizer, variables, z)
    assert np.all(ids == 3)
    p = np.exp(logits)
    np.testing.assert_allclose(aux["kl"], np.sum(p * np.log(p * 4)), rtol=1e-4)
    np.testing.assert_allclose(aux["quantizer_loss"], 5e-4 * aux["kl"], rtol=1e-6)
    _, ids, *_ = train(quantizer, variables, z)
    np.testing.assert_allclose(np.bincount(ids.reshape(-1), minlength=4) / 2000, p, atol=0.04)


def test_gumbel_gradient_is_that_of_the_soft_choice():
    quantizer = Gumbel(codes=5, width=3, temperature=0.7)
    z = normal((1, 2, 2, 2))
    weight = normal((1, 2, 2, 3), 7)
    variables, rngs = init(quantizer, z), {"codebook": jax.random.key(4)}
    _, ids, *_ = train(quantizer, variables, z, 4)

    def loss(params):
        return jnp.sum(weight * quantizer.apply({"params": params}, z, train=True, rngs=rngs)[0])

    grads = jax.jit(jax.grad(loss))(variables["params"])
    expected = np.zeros((5, 3))
    np.add.at(expected, np.asarray(ids).reshape(-1), np.asarray(weight).reshape(-1, 3))
    np.testing.assert_allclose(grads["codebook"], expected, atol=1e-5)
    assert np.any(grads["logits"]["kernel"] != 0)
    # A softmax does not feel a common shift.
    np.testing.assert_allclose(grads["logits"]["bias"].sum(), 0, atol=1e-5)


def test_gumbel_temperature_falls_geometrically_with_training_steps():
    quantizer = Gumbel(codes=4, width=2, temperature=1.0, final_temperature=1 / 16, anneal=4)
    z = normal((1, 2, 2, 2))
    variables, seen = init(quantizer, z), []
    for _ in range(6):
        _, _, aux, variables = train(quantizer, variables, z)
        seen.append(float(aux["temperature"]))
    np.testing.assert_allclose(seen, [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16], rtol=1e-5)


def test_temperature_falls_by_a_cosine():
    """t = final + (first - final) (1 + cos(pi step / anneal)) / 2, of VQGAN's code."""
    quantizer = Gumbel(
        codes=4, width=2, temperature=0.9, final_temperature=1e-6, anneal=4, annealing="cosine"
    )
    z = normal((1, 2, 2, 2))
    variables, seen = init(quantizer, z), []
    for _ in range(6):
        _, _, aux, variables = train(quantizer, variables, z)
        seen.append(float(aux["temperature"]))
    expected = [0.9 * (1 + np.cos(np.pi * part)) / 2 for part in (0, 0.25, 0.5, 0.75, 1, 1)]
    np.testing.assert_allclose(seen, expected, atol=2e-6)


@pytest.mark.parametrize("l2_normalize", [False, True])
def test_by_distance_the_nearest_code_is_the_likeliest(l2_normalize):
    quantizer = Gumbel(codes=16, width=3, logits="distance", l2_normalize=l2_normalize)
    z = normal((2, 3, 4, 3), 2)
    variables = init(quantizer, z)
    assert variables["params"].keys() == {"codebook"}
    z_q, ids, _ = evaluate(quantizer, variables, z)
    book = np.asarray(quantizer.apply(variables, method="codebook"))
    assert book.shape == (1, 16, 3)
    x = np.asarray(z)
    if l2_normalize:
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(book, axis=-1), 1, rtol=1e-5)
    distances = np.sum((x[..., None, :] - book[0]) ** 2, axis=-1)
    np.testing.assert_array_equal(ids[..., 0], np.argmin(distances, axis=-1))
    embed = jax.jit(functools.partial(quantizer.apply, method="embed"))
    np.testing.assert_array_equal(z_q, embed(variables, ids))
    np.testing.assert_allclose(z_q, book[0][ids[..., 0]], rtol=1e-6)
    scores = quantizer.apply(variables, z, method="scores")
    np.testing.assert_allclose(scores, -distances, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("logits", ["dense", "distance"])
def test_the_soft_mixture_has_gradients_to_chances_and_codes(logits):
    quantizer = Gumbel(codes=5, width=3, temperature=0.7, logits=logits, hard=False)
    z = normal((1, 2, 2, 3))
    weight = normal((1, 2, 2, 3), 7)
    noise = jax.random.gumbel(jax.random.key(3), (1, 2, 2, 5))
    variables = init(quantizer, z)
    (z_q, ids, _), seen = quantizer.apply(
        variables, z, train=True, noise=noise, mutable=["intermediates"]
    )
    (chances,) = seen["intermediates"]["probabilities"]
    scores = np.asarray(quantizer.apply(variables, z, method="scores") + noise) / 0.7
    np.testing.assert_allclose(
        chances, np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True), rtol=1e-4
    )
    np.testing.assert_allclose(z_q, chances @ variables["params"]["codebook"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ids[..., 0], np.argmax(scores, axis=-1))

    def loss(params, z):
        return jnp.sum(weight * quantizer.apply({"params": params}, z, train=True, noise=noise)[0])

    by_params, by_z = jax.jit(jax.grad(loss, (0, 1)))(variables["params"], z)
    assert np.any(by_z != 0)
    if logits == "dense":  # the codes do not choose themselves, so the formula is short
        expected = np.einsum("bhwv,bhwc->vc", chances, weight)
        np.testing.assert_allclose(by_params["codebook"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hard", [True, False])
def test_evaluation_is_hard_and_without_noise(hard):
    quantizer, z = Gumbel(codes=16, width=3, hard=hard), normal((1, 4, 4, 3))
    variables = init(quantizer, z)
    z_q, ids, _ = evaluate(quantizer, variables, z)
    np.testing.assert_array_equal(z_q, quantizer.apply(variables, ids, method="embed"))
    scores = quantizer.apply(variables, z, method="scores")
    np.testing.assert_array_equal(ids[..., 0], np.argmax(scores, axis=-1))
    _, other, _ = evaluate(quantizer, variables, z, 100 * normal(scores.shape, 5))
    assert np.any(other != ids)  # noise that is given counts


def test_noiseless_ids_are_those_of_evaluation_beside_the_mean_with_noise():
    z, noise = normal((1, 4, 4, 3)), 10 * normal((1, 4, 4, 16), 5)
    quantizer, plain = (
        module.Quantizer(codes=16, width=3, logits="distance", hard=False)
        for module in (maskgit_gumbel, gumbel)
    )
    variables = init(quantizer, z)
    z_q, ids, _ = quantizer.apply(variables, z, train=True, noise=noise)
    usual, drawn, _ = plain.apply(variables, z, train=True, noise=noise)
    np.testing.assert_array_equal(z_q, usual)
    np.testing.assert_array_equal(ids, quantizer.apply(variables, z)[1])
    assert np.any(ids != drawn)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": "maskgit_gumbel", "hard": True}, "needs hard = False"),
        ({"logits": "distances"}, "logits expects one of dense, distance, got 'distances'"),
        ({"annealing": "cosin"}, "annealing expects one of geometric, cosine, got 'cosin'"),
        ({"l2_normalize": True}, "needs logits = 'distance'"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        keys = {"name": "gumbel", "codes": 4, "width": 2, **wrong}
        quantizer = build.build(
            "tokenizers.quantizers", "Quantizer", keys, "config.tokenizer.quantizer"
        )
        quantizer.init(jax.random.key(0), jnp.zeros((1, 1, 1, 2)))
