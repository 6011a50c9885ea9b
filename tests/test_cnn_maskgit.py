"""The CNN tokenizer against recordings of MaskGIT's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import files, load, nudged
from test_cnn import compare, distances, margins, norm, settings, shapes, without

from evqgan.convert import maskgit
from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer
from evqgan.tokenizers.quantizers.codebooks import entropy_loss

UNTOLD = (
    "commitment",
    "entropy",
    "entropy_temperature",
    "entropy_target",
    "temperature",
    "final_temperature",
)
NORMS = {"GN": "group", "LN": "layer"}


class VQVAE:
    """A recording of MaskGIT's VQVAE: tokenizer and weights."""

    def __init__(self, path):
        config, self.weights, inputs, self.outputs = load(path)
        config = settings(config)
        theirs, tau, side = dict(config.pop("vqvae")), config.pop("tau"), config.pop("image_size")
        self.kind, norm_type = theirs.pop("quantizer"), theirs.pop("norm_type")
        assert norm_type in NORMS, f"a tokenizer with norm_type {norm_type} is not built"
        self.quantizer = {
            "commitment": theirs.pop("commitment_cost"),
            "entropy": theirs.pop("entropy_loss_ratio"),
            "entropy_temperature": theirs.pop("entropy_temperature"),
            "entropy_target": theirs.pop("entropy_loss_type"),
        }
        if self.kind == "gumbel":  # reads none of these
            self.quantizer = {
                "logits": "distance",
                "hard": False,
                "temperature": tau,
                "kl_weight": 0.0,
            }
        self.quantizer |= {
            "name": {"vq": "maskgit"}.get(self.kind, self.kind),
            "codes": theirs.pop("codebook_size"),
            "width": theirs.pop("embedding_dim"),
        }
        blocks, self.activation = theirs.pop("num_res_blocks"), theirs.pop("activation_fn")
        decoder = {
            "name": "cnn",
            "width": theirs.pop("filters"),
            "multipliers": tuple(theirs.pop("channel_multipliers")),
            "blocks": blocks,
            "attention": (),
            "middle": blocks,
            "middle_attention": False,
            "z_width": 0,
            "norm": NORMS[norm_type],
            "activation": self.activation,
            "bias": False,
            "shortcut_of_output": True,
        }
        conv = theirs.pop("conv_downsample") and len(decoder["multipliers"]) > 1
        encoder = {**decoder, "down": "conv4" if conv else "pool"}
        self.config = {
            "encoder": encoder,
            "decoder": decoder,
            "quantizer": self.quantizer,
            "pixels": "unit",
        }
        assert not {**theirs, **config}, (
            f"nothing of ours stands for {sorted({**theirs, **config})}"
        )
        self.model = tokenizer.make(self.config)
        self.inputs, self.image = inputs, 2 * inputs["x"] - 1
        self.variables = maskgit.tokenizer_to_ours(
            self.weights, shapes(self.model, side), self.config
        )

    def evaluated(self, variables):
        run = functools.partial(self.model.apply, variables)
        z_q, ids, _ = run(self.image, method="encode")
        r = {"enc": run(self.image, method="latents"), "indices": ids[..., 0], "quant": z_q}
        both = {"rec": z_q, "rec_from_indices": run(ids, method="embed")}
        return {**r, **{name: (run(z_q, method="decode") + 1) / 2 for name, z_q in both.items()}}

    @functools.cached_property
    def training(self):
        return jax.jit(self.trained)

    def trained(self, variables, image):
        """A training pass with a loss, its gradients."""

        def loss(params):
            again, _, aux = self.model.apply({"params": params}, image, train=True)
            # Of images in [0, 1].
            value = jnp.mean(jnp.square((again - image) / 2)) + aux["quantizer_loss"]
            return value, aux

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return {
            "train/l2_plus_quantizer_loss": value,
            "train/quantizer_loss": aux["quantizer_loss"],
            "train/e_latent_loss": self.quantizer["commitment"] * aux["commitment_loss"],
            "train/q_latent_loss": aux["codebook_loss"],
            "train/entropy_loss": self.quantizer["entropy"] * aux.get("entropy_loss", 0.0),
            "grad_norm_all": norm(grads),
        }, grads

    def chosen(self, variables, z):
        """A training pass of the Gumbel quantizer with the recorded noise.

        The indices there are without noise.
        """
        noise = self.inputs["gumbel_noise"]

        def run(model, z):
            return model.quantizer(z, train=True, noise=noise)

        (z_q, _, _), seen = self.model.apply(variables, z, method=run, mutable=["intermediates"])
        return {
            "train/quantized": z_q,
            "train/encodings": seen["intermediates"]["quantizer"]["probabilities"][0],
        }

    def gradients(self, image):
        """Losses and gradients of a training pass, by their names there."""
        losses, grads = self.training(self.variables, image)
        grads = maskgit.tokenizer_to_theirs({"params": grads}, self.config)
        return {**losses, **{f"grad/{name}": x for name, x in grads.items()}}

    def computed(self, number=None):
        """All that is recorded, by its name there.

        With a number, it is the losses and gradients of an image nudged by it.
        """
        if number is not None:
            return self.gradients(nudged(self.image, number))
        r = jax.jit(self.evaluated)(self.variables)
        codebook = np.asarray(self.model.apply(self.variables, method="codebook"))[0]
        scores = distances(r["enc"], codebook)
        r["vq_margin_min_median"] = margins(scores)
        for name in self.outputs:
            if name.startswith("entropy_"):
                _, target, temperature = name.split("_")
                r[name] = entropy_loss(
                    jnp.float32(-scores), float(temperature.removeprefix("T")), target
                )
        if self.kind == "gumbel":
            return {**r, **self.chosen(self.variables, r["enc"]), "train/indices": r["indices"]}
        return {**r, **self.gradients(self.image)}


@pytest.fixture(scope="module", params=files("maskgit_tokenizer*.npz"), ids=lambda path: path.stem)
def recording(request):
    return VQVAE(request.param)


def test_the_tokenizer_and_its_losses_are_the_recorded_ones(recording):
    compare(recording.computed, recording.outputs)


def test_weights_go_back_to_the_originals(recording):
    back = maskgit.tokenizer_to_theirs(recording.variables, recording.config)
    assert set(back) == set(recording.weights)
    for name, array in back.items():
        np.testing.assert_array_equal(array, recording.weights[name], err_msg=name)


def test_the_config_is_told_by_the_weights(recording):
    told = maskgit.tokenizer_config(recording.weights, recording.kind, recording.activation)
    assert without(told, *UNTOLD) == without(recording.config, *UNTOLD)


def test_weights_of_other_models_are_refused(recording):
    weights = {name: x for name, x in recording.weights.items() if "ResBlock_0" not in name}
    with pytest.raises(InputError, match="as many residual blocks in the middle"):
        maskgit.tokenizer_config(weights)
    weights["encoder/BatchNorm_0/scale"] = np.ones(32)
    with pytest.raises(InputError, match="batch norm is not built"):
        maskgit.tokenizer_config(weights)
    del weights["quantizer/codebook"]
    with pytest.raises(InputError, match="quantizer/codebook is missing"):
        maskgit.tokenizer_config(weights)
