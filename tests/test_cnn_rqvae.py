"""The CNN tokenizer with residual quantization against recordings of RQ-VAE."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import files, load, nudged
from test_cnn import coders, compare, distances, margins, nchw, nhwc, settings, shapes, without

from evqgan.convert import rqvae
from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer

UNTOLD = ("commitment", "decay", "revive")  # by weights
LOSSES = {"mse": jnp.square, "l1": jnp.abs}


def one(values, name):
    """The only value of a list, or of itself."""
    values = set(values) if isinstance(values, list) else {values}
    assert len(values) == 1, f"codebooks with a {name} each are not built: {sorted(values)}"
    return values.pop()


class RQVAE:
    """A recording of RQVAE: tokenizer, weights, and which loss it has."""

    def __init__(self, path):
        config, self.weights, inputs, self.outputs = load(path)
        config = settings(config)
        theirs = dict(config.pop("hparams"))
        assert theirs.pop("bottleneck_type") == "rq", "of RQ-VAE's bottlenecks only rq is built"
        height, width, channels = theirs.pop("latent_shape")
        *grid, self.depth = theirs.pop("code_shape")
        assert theirs.pop("embed_dim") == channels
        self.patch = height // grid[0]
        assert [height, width] == [self.patch * side for side in grid], (
            "codes of other than square patches: not built"
        )
        shared = theirs.pop("shared_codebook") or self.depth == 1
        quantizer = {
            "name": "rqvae",
            "codes": one(theirs.pop("n_embed"), "n_embed"),
            "width": channels * self.patch**2,
            "depth": self.depth,
            "shared": shared,
            "decay": one(theirs.pop("decay"), "decay"),
            "revive": float(theirs.pop("restart_unused_codes")),
            "commitment": theirs.pop("latent_loss_weight"),
        }
        self.loss = LOSSES[theirs.pop("loss_type")]
        self.config = {
            **coders(config.pop("ddconfig")),
            "quantizer": quantizer,
            "patch": self.patch,
        }
        assert not {**theirs, **config}, (
            f"nothing of ours stands for {sorted({**theirs, **config})}"
        )
        self.model = tokenizer.make(self.config)
        self.image = nhwc(inputs["x"])
        self.like = shapes(self.model, self.image.shape[1])
        self.variables = rqvae.tokenizer_to_ours(self.weights, self.like, self.config)

    def latents(self, z):
        """Vectors in the shape of the codes -> in that of the latents."""
        b, h, w, c = z.shape
        p = self.patch
        return (
            np.asarray(z)
            .reshape(b, h, w, p, p, c // p**2)
            .swapaxes(2, 3)
            .reshape(b, h * p, w * p, c // p**2)
        )

    @functools.cached_property
    def training(self):
        return jax.jit(self.trained)

    def trained(self, variables, original):
        """The loss, its parts and gradients, of a pass that leaves the codebook as it is."""

        def loss(params):
            run = functools.partial(self.model.apply, {**variables, "params": params})
            z = run(original, method="latents")
            z_q, ids, aux = run(z, method=lambda m, z: m.quantizer(z))
            image = run(z_q, method="decode")
            error = jnp.mean(self.loss(image - original))
            r = {"z": z, "z_q": z_q, "code": ids, "rec": image, "loss_recon": error}
            r |= {"quant_loss": aux["commitment_loss"], "loss_latent": aux["commitment_loss"]}
            return error + aux["quantizer_loss"], r

        (value, r), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return {**r, "loss_total": value}, grads

    def updated(self, variables, z):
        """A training pass of the quantizer alone, which changes the codebook.

        Return its outputs, and the variables after it.
        """
        rngs = {"codebook": jax.random.key(0)}

        def run(model, z):
            return model.quantizer(z, train=True)

        (z_q, ids, aux), changed = self.model.apply(
            variables, z, method=run, mutable=["codebook"], rngs=rngs
        )
        r = {"ema/code": ids, "ema/quant_loss": aux["commitment_loss"], "ema/z_q": z_q}
        return r, aux["revived"], {**variables, **changed}

    def gradients(self, grads):
        """A tree of gradients by the names there."""
        grads = rqvae.tokenizer_to_theirs(
            {"params": grads, "codebook": self.variables["codebook"]}, self.config
        )
        return {f"grad/{name}": x for name, x in grads.items()}

    def computed(self, number=None):
        """All that is recorded, by its name there.

        With a number, it is only the gradients, of an image nudged by it.
        """
        if number is not None:
            return self.gradients(self.training(self.variables, nudged(self.image, number))[1])
        r, grads = self.training(self.variables, self.image)
        r |= self.gradients(grads)
        z, ids = r.pop("z"), np.asarray(r["code"])
        r |= {
            "z_code_shape": z,
            "z_e": self.latents(z),
            "z_q": self.latents(r["z_q"]),
            "rec": nchw(r["rec"]),
        }

        books = np.asarray(self.model.apply(self.variables, method="codebook"))
        # [B,h,w,D,c]
        vectors = np.stack([books[d % len(books)][ids[..., d]] for d in range(self.depth)], axis=-2)
        sums = np.cumsum(vectors, axis=-2)
        r |= {
            "code_emb_with_depth": vectors,
            **{f"quant_partial_{d}": sums[..., d, :] for d in range(self.depth)},
        }
        rests = np.asarray(z)[..., None, :] - sums + vectors
        scores = [distances(rests[..., d, :], books[d % len(books)]) for d in range(self.depth)]
        r["margins"] = np.stack([margins(score) for score in scores])

        decode = jax.jit(lambda v, z: self.model.apply(v, z, method="decode"))
        decoded = {"dec_from_code": self.model.apply(self.variables, ids, method="embed")}
        for d in range(self.depth):
            decoded |= {
                f"dec_partial_add_{d}": sums[..., d, :],
                f"dec_partial_select_{d}": vectors[..., d, :],
            }
        for name in set(decoded) & set(self.outputs):
            r[name] = nchw(decode(self.variables, decoded[name]))

        soft = [name for name in self.outputs if name.startswith("soft_code_T")]
        for name in soft:
            temperature = float(name.removeprefix("soft_code_T"))
            found = self.model.apply(
                self.variables,
                z,
                temperature,
                None,
                method=lambda m, *x: m.quantizer.soft_codes(*x),
            )
            r["soft_code_argmin"], chances = found
            # A corner is recorded.
            r[name] = chances[tuple(slice(side) for side in self.outputs[name].shape)]
        r2, revived, variables = jax.jit(self.updated)(self.variables, z)
        assert not revived, (
            "codes that the original restarted at random have nothing to be compared with"
        )
        r2["ema/z_q"] = self.latents(r2["ema/z_q"])
        after = rqvae.tokenizer_to_theirs(variables, self.config)
        return {
            **r,
            **r2,
            **{f"ema_after/{name.removeprefix('quantizer.')}": x for name, x in after.items()},
        }


@pytest.fixture(scope="module", params=files("rqvae*.npz"), ids=lambda path: path.stem)
def recording(request):
    return RQVAE(request.param)


def test_rqvae_its_losses_and_its_moving_averages_are_the_recorded_ones(recording):
    compare(recording.computed, recording.outputs)


def test_weights_go_back_to_the_originals(recording):
    back = rqvae.tokenizer_to_theirs(recording.variables, recording.config)
    assert set(back) == set(recording.weights)
    for name, array in back.items():
        np.testing.assert_array_equal(array, recording.weights[name], err_msg=name)


def test_the_config_is_told_by_the_weights(recording):
    told = rqvae.tokenizer_config(recording.weights)
    assert without(told, *UNTOLD) == without(recording.config, *UNTOLD)


def test_weights_of_other_models_are_refused(recording):
    first, last = (f"quantizer.codebooks.{d}.weight" for d in (0, recording.depth - 1))
    changed = recording.weights[last] + np.float32(1)
    with pytest.raises(InputError, match=f"last row of {last} to be zeros"):
        rqvae.tokenizer_to_ours(
            {**recording.weights, last: changed}, recording.like, recording.config
        )
    with pytest.raises(InputError, match=f"{first} is missing"):
        rqvae.tokenizer_config({name: x for name, x in recording.weights.items() if name != first})
    if recording.depth > 1:
        with pytest.raises(InputError, match="codebooks of one size"):
            rqvae.tokenizer_config({**recording.weights, last: changed[1:]})


def test_a_codebook_that_is_called_shared_has_to_be_one(recording):
    quantizer = {**recording.config["quantizer"], "shared": True, "depth": 2}
    config = {**recording.config, "quantizer": quantizer}
    weights = {
        name: x for name, x in recording.weights.items() if not name.startswith("quantizer.")
    }
    for part in ("weight", "cluster_size_ema", "embed_ema"):
        array = recording.weights[f"quantizer.codebooks.0.{part}"]
        weights |= {f"quantizer.codebooks.{d}.{part}": array for d in (0, 1)}
    like = shapes(tokenizer.make(config), recording.image.shape[1])
    assert (
        rqvae.tokenizer_to_ours(weights, like, config)["codebook"]["quantizer"]["codes"].shape[0]
        == 1
    )
    weights["quantizer.codebooks.1.embed_ema"] = array + np.float32(1)
    with pytest.raises(InputError, match="codebooks.1.embed_ema to equal .*codebooks.0.embed_ema"):
        rqvae.tokenizer_to_ours(weights, like, config)
