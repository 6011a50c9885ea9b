"""Residual quantization: recordings of RQ-VAE, the order of depths, soft codes.

The residual mode of the ViT-VQGAN port is tested, too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close, files, load

from evqgan.tokenizers.quantizers import residual, rqvae, vitvqgan

OF_THE_NETWORK = (
    "z_e",
    "rec",
    "loss_total",
    "loss_recon",
    "loss_latent",
    "margins",
    "dec_",
    "grad/",
)


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def made(depth, module=residual, **keys):
    """A quantizer of 16 codes of width 4, by gradient unless `decay` is given.

    Its variables have codebooks that are spread like z.
    """
    keys = {"decay": 0.0, **keys} if module is residual else keys
    quantizer = module.Quantizer(codes=16, width=4, depth=depth, **keys)
    books = normal((1 if quantizer.shared else depth, 16, 4), 1)
    if module is not vitvqgan and quantizer.decay:
        return quantizer, {
            "codebook": {
                "codes": books,
                "total": 1.5 * books,
                "usage": jnp.full(books.shape[:2], 1.5),
            }
        }
    return quantizer, {"params": {"codebook": books}}


@pytest.fixture(scope="module", params=files("rqvae*.npz"), ids=lambda path: path.stem)
def recording(request):
    """-> quantizer, variables, what makes vectors for codes of their latents, outputs."""
    config, weights, _, outputs = load(request.param)
    theirs = dict(config["hparams"])
    latent = theirs.pop("latent_shape")
    shape = theirs.pop("code_shape")
    codes = theirs.pop("n_embed")
    decay, shared = theirs.pop("decay"), theirs.pop("shared_codebook")
    assert isinstance(codes, int) and isinstance(decay, float), (
        f"{request.param}: all depths of ours are alike"
    )
    quantizer = rqvae.Quantizer(
        codes=codes,
        width=latent[0] // shape[0] * (latent[1] // shape[1]) * latent[2],
        depth=shape[2],
        shared=shared,
        commitment=1.0,
        decay=decay,
        revive=float(theirs.pop("restart_unused_codes")),
    )
    assert theirs.pop("commitment_loss", "cumsum") == "cumsum", (
        f"{request.param}: of the losses 'cumsum' is built"
    )
    assert theirs.pop("bottleneck_type") == "rq", (
        f"{request.param}: of the bottlenecks 'rq' is built"
    )
    for key in ("embed_dim", "loss_type", "latent_loss_weight"):
        theirs.pop(key, None)  # of the network and its training
    assert not theirs, f"{request.param}: nothing of ours stands for {sorted(theirs)}"
    state = of_theirs(weights, "quantizer.codebooks", quantizer)

    def to_codes(z):
        rows, columns = latent[0] // shape[0], latent[1] // shape[1]
        z = z.reshape(len(z), shape[0], rows, shape[1], columns, latent[2]).swapaxes(2, 3)
        return z.reshape(len(z), *shape[:2], -1)

    return quantizer, {"codebook": state}, to_codes, outputs


def of_theirs(weights, prefix, quantizer):
    """Their codebooks and moving averages as ours; the last row, padding, is nobody's code."""
    depths = range(1 if quantizer.shared else quantizer.depth)
    names = {"codes": "weight", "total": "embed_ema", "usage": "cluster_size_ema"}
    stacked = {
        ours: np.stack([weights[f"{prefix}.{d}.{name}"] for d in depths])
        for ours, name in names.items()
    }
    return {**stacked, "codes": stacked["codes"][:, :-1]}


def test_codes_sums_and_losses_equal_the_recorded_rqvae(recording):
    quantizer, variables, to_codes, outputs = recording
    left = {
        name for name in outputs if not name.startswith((*OF_THE_NETWORK, "ema/", "ema_after/"))
    }
    z = to_codes(outputs["z_e"])
    np.testing.assert_array_equal(z, outputs["z_code_shape"])
    z_q, ids, aux = quantizer.apply(variables, z)
    np.testing.assert_array_equal(ids, outputs["code"])
    close(z_q, to_codes(outputs["z_q"]))
    close(aux["quantizer_loss"][None], outputs["quant_loss"])
    books = quantizer.apply(variables, method="codebook")
    vectors = np.stack(
        [books[d % len(books)][ids[..., d]] for d in range(quantizer.depth)], axis=-2
    )
    close(vectors, outputs["code_emb_with_depth"])
    partial = 0
    for d in range(quantizer.depth):
        partial = partial + vectors[..., d, :]
        close(partial, outputs[f"quant_partial_{d}"])
        left -= {f"quant_partial_{d}"}
    argmin, _ = quantizer.apply(variables, z, 1.0, None, method="soft_codes")
    np.testing.assert_array_equal(argmin, outputs["soft_code_argmin"])
    left -= {"z_code_shape", "code", "z_q", "quant_loss", "code_emb_with_depth", "soft_code_argmin"}
    for name in [name for name in left if name.startswith("soft_code_T")]:
        theirs = outputs[name]
        _, chances = quantizer.apply(
            variables, z, float(name.removeprefix("soft_code_T")), None, method="soft_codes"
        )
        close(chances[tuple(slice(0, size) for size in theirs.shape)], theirs)
        left -= {name}
    assert not left, f"nobody compares {sorted(left)}"


def test_moving_averages_equal_the_recorded_rqvae(recording):
    quantizer, variables, to_codes, outputs = recording
    rngs = {"codebook": jax.random.key(0)}
    z = to_codes(outputs["z_e"])
    (z_q, ids, aux), changed = quantizer.apply(
        variables, z, train=True, rngs=rngs, mutable=["codebook"]
    )
    assert aux["revived"] == 0  # theirs are random, and not recorded
    np.testing.assert_array_equal(ids, outputs["ema/code"])
    close(z_q, to_codes(outputs["ema/z_q"]))
    close(aux["quantizer_loss"][None], outputs["ema/quant_loss"])
    after = of_theirs(outputs, "ema_after/codebooks", quantizer)
    for name, theirs in after.items():
        close(changed["codebook"][name], theirs)
    assert sum(name.startswith("ema_after/") for name in outputs) == 3 * len(after["codes"])
    names = {name for name in outputs if name.startswith("ema/")}
    assert names == {"ema/z_q", "ema/code", "ema/quant_loss"}, (
        f"one of these is not compared: {names}"
    )


def test_depths_are_summed_in_their_order():
    """Each depth has the codebook of its place.

    The loss is of the partial sums of the first depths.
    """
    quantizer, variables = made(3, shared=False)
    z = normal((2, 3, 5, 4))
    z_q, ids, aux = quantizer.apply(variables, z)
    books = variables["params"]["codebook"]
    embed = functools.partial(quantizer.apply, variables, method="embed")
    np.testing.assert_allclose(embed(ids), sum(books[d][ids[..., d]] for d in range(3)), rtol=1e-6)
    for order in ([1, 0, 2], [2, 1, 0], [0, 2, 1]):
        assert np.any(np.abs(embed(ids[..., np.array(order)]) - z_q) > 0.1)
    partial = [sum(books[i][ids[..., i]] for i in range(d + 1)) for d in range(3)]
    np.testing.assert_allclose(
        aux["commitment_loss"], np.mean([(z - p) ** 2 for p in partial]), rtol=1e-5
    )
    backwards = [sum(books[i][ids[..., i]] for i in range(3 - d, 3)) for d in range(1, 4)]
    assert np.mean([(z - p) ** 2 for p in backwards]) > 1.05 * aux["commitment_loss"]


def test_soft_codes_are_drawn_by_their_chances_and_each_depth_goes_on_with_the_drawn_code():
    quantizer, variables = made(2, shared=False)
    z = jnp.broadcast_to(normal((1, 1, 1, 4)), (1, 60, 60, 4))
    ids, chances = quantizer.apply(variables, z, 2.0, jax.random.key(3), method="soft_codes")
    assert (
        ids.shape == (1, 60, 60, 2)
        and ids.dtype == jnp.int32
        and chances.shape == (1, 60, 60, 2, 16)
    )
    books = np.asarray(variables["params"]["codebook"])
    # [B,h,w,D,c]
    left = np.asarray(z)[..., None, :] - np.stack([0 * z, books[0][ids[..., 0]]], axis=-2)
    scores = np.exp(-np.sum((left[..., None, :] - books) ** 2, axis=-1) / 2.0)
    np.testing.assert_allclose(
        chances, scores / scores.sum(axis=-1, keepdims=True), rtol=1e-3, atol=1e-6
    )
    for d in range(2):
        share = np.bincount(ids[..., d].reshape(-1), minlength=16) / 3600
        np.testing.assert_allclose(share, chances[..., d, :].mean(axis=(0, 1, 2)), atol=0.03)
    other, _ = quantizer.apply(variables, z, 2.0, jax.random.key(4), method="soft_codes")
    assert np.any(other != ids)


@pytest.mark.parametrize("keys", [{}, {"module": vitvqgan}, {"shared": False}], ids=str)
def test_soft_codes_without_a_draw_are_the_nearest(keys):
    quantizer, variables = made(3, **keys)
    z = normal((2, 3, 5, 4))
    ids, chances = quantizer.apply(variables, z, 0.5, None, method="soft_codes")
    np.testing.assert_array_equal(ids, quantizer.apply(variables, z)[1])
    np.testing.assert_array_equal(ids, np.argmax(chances, axis=-1))


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def formula(books, z, ids, normalize, detached):
    """Return z_q, codebook loss, commitment loss by depths.

    Gradients are as the ViT-VQGAN port has them if detached.
    """
    norm, stop = unit if normalize else lambda x: x, jax.lax.stop_gradient
    left, total, of_codes, of_z = stop(z) if detached else z, 0, 0, 0
    for d in range(ids.shape[-1]):
        x, code = norm(left), norm(books[d % len(books)][ids[..., d]])
        of_codes += jnp.mean((code - stop(x)) ** 2) / ids.shape[-1]
        of_z += jnp.mean((stop(code) - x) ** 2) / ids.shape[-1]
        left, total = left - (code if detached else stop(code)), total + code
    return z + stop(total - z), of_codes, of_z


@pytest.mark.parametrize(
    ("normalize", "detached", "shared"),
    [
        (True, True, True),
        (True, True, False),
        (True, False, True),
        (False, True, True),
        (False, False, False),
    ],
)
def test_losses_by_depths_and_their_gradients_equal_the_formula(normalize, detached, shared):
    keys = {"module": vitvqgan, "l2_normalize": normalize, "detached_residual": detached}
    quantizer, variables = made(3, shared=shared, **keys)
    z, books = normal((2, 3, 4, 4)), variables["params"]["codebook"]
    ids = quantizer.apply(variables, z)[1]
    left, table = np.asarray(z), np.asarray(quantizer.apply(variables, method="codebook"))
    for d in range(3):  # each takes the code nearest to what is left
        x, codes = np.asarray(unit(left)) if normalize else left, table[d % len(table)]
        np.testing.assert_array_equal(
            ids[..., d], np.argmin(np.sum((x[..., None, :] - codes) ** 2, -1), axis=-1)
        )
        left = left - codes[ids[..., d]]

    def ours(books, z):
        z_q, _, aux = quantizer.apply({"params": {"codebook": books}}, z)
        return jnp.stack(
            [jnp.sum(z_q**3), aux["codebook_loss"], aux["commitment_loss"], aux["quantizer_loss"]]
        )

    def theirs(books, z):
        z_q, of_codes, of_z = formula(books, z, ids, normalize, detached)
        return jnp.stack([jnp.sum(z_q**3), of_codes, of_z, of_codes + 0.25 * of_z])

    np.testing.assert_allclose(ours(books, z), theirs(books, z), rtol=1e-5)
    (by_books, by_z), expected = (jax.jit(jax.jacrev(f, (0, 1)))(books, z) for f in (ours, theirs))
    for found, wanted in zip((by_books, by_z), expected, strict=True):
        for row, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(row, other, rtol=0, atol=1e-5 * np.abs(other).max())
    assert np.all(by_books[0] == 0) and np.any(by_books[1] != 0) and np.all(by_z[1] == 0)
    assert np.any(by_z[2] != 0) != detached and np.any(by_books[2] != 0) == detached


@pytest.mark.parametrize("module", [residual, rqvae])
def test_codebook_by_moving_average_sends_no_gradient_to_codes(module):
    quantizer, variables = made(3, module, decay=0.9)

    def loss(z):
        rngs = {"codebook": jax.random.key(0)}
        (_, _, aux), _ = quantizer.apply(variables, z, train=True, rngs=rngs, mutable=["codebook"])
        return jnp.stack(
            [aux["quantizer_loss"], aux["codebook_loss"], 0.25 * aux["commitment_loss"]]
        )

    total, of_codes, of_z = jax.jit(jax.jacrev(loss))(normal((2, 3, 4, 4)))
    np.testing.assert_array_equal(total, of_z)
    assert np.any(of_z != 0) and np.all(of_codes == 0)


def test_between_depths_a_shared_codebook_moves_and_the_next_depth_sees_it():
    z = normal((4, 5, 5, 4))
    states, found = [], []
    for module in (residual, rqvae):
        quantizer, variables = made(2, module, decay=0.5, revive=0.0)
        out, changed = quantizer.apply(variables, z, train=True, mutable=["codebook"])
        states.append(changed["codebook"]), found.append(out)
    one, variables = made(1, rqvae, decay=0.5, revive=0.0)
    first, changed = one.apply(variables, z, train=True, mutable=["codebook"])
    rest = z - first[0]
    # The table after the first depth.
    second, changed = one.apply(changed, rest, train=True, mutable=["codebook"])
    np.testing.assert_array_equal(found[1][1], jnp.concatenate([first[1], second[1]], axis=-1))
    np.testing.assert_allclose(found[1][0], first[0] + second[0], rtol=1e-5, atol=1e-6)
    for name, value in changed["codebook"].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.any(found[0][1] != found[1][1]) and np.any(
        np.abs(states[0]["codes"] - states[1]["codes"]) > 0.01
    )


def test_counts_start_at_zero_and_codes_below_one_count_are_restarted():
    """RQ-VAE's code: N = g N + (1 - g) n; below 1 a code is a vector of the batch, with N = 1."""
    quantizer = rqvae.Quantizer(codes=4, width=2, depth=1, decay=0.9)
    z = jnp.array([[[[-1.0, 0.0]] * 40 + [[1.0, 0.0]] * 5]])
    variables = quantizer.init(jax.random.key(0), z)
    assert np.all(variables["codebook"]["usage"] == 0)
    np.testing.assert_array_equal(variables["codebook"]["total"], variables["codebook"]["codes"])
    places = jnp.array([[[-1.0, 0.0], [1.0, 0.0], [50.0, 0.0], [60.0, 0.0]]])
    state = {"codes": places, "total": places, "usage": jnp.zeros((1, 4))}
    rngs = {"codebook": jax.random.key(1)}
    (_, _, aux), changed = quantizer.apply(
        {"codebook": state}, z, train=True, rngs=rngs, mutable=["codebook"]
    )
    new = changed["codebook"]
    np.testing.assert_allclose(new["usage"], [[0.1 * 40, 1, 1, 1]], rtol=1e-5)  # 0.1 * 5 < 1
    assert aux["revived"] == 3 and np.all(np.abs(new["codes"][0, 1:, 0]) < 1.01)
    np.testing.assert_allclose(new["total"][0, 0], [0.9 * -1 + 0.1 * -40, 0], rtol=1e-5)
    np.testing.assert_allclose(new["codes"][0, 0], new["total"][0, 0] / 4, rtol=1e-4)
