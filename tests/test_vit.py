"""ViT-VQGAN's tokenizer: parity with the recorded original, weights there and back.

The rest is what encoder and decoder keep.
"""

import functools
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import files, load

from evqgan.convert import vitvqgan
from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer, vit


def recordings():
    """The recordings of whole tokenizers among those of ViT-VQGAN's parts.

    What they hold says which they are.
    """

    def whole(path):
        with np.load(path, allow_pickle=False) as stored:
            return {"encoder", "decoder", "quantizer"} <= json.loads(str(stored["config"])).keys()

    here = pathlib.Path(__file__).parent / "golden"
    folders = (files("vitvqgan*.npz"), sorted(here.glob("vitvqgan*.npz")))
    found = next(filter(None, (list(filter(whole, paths)) for paths in folders)), None)
    assert found, "no recording of a whole ViT-VQGAN tokenizer"
    return found


def side(value):
    return tuple(value) if isinstance(value, list) else value


def config_of(path, recorded):
    """config.tokenizer of a recording's own config, of which nothing is left over."""
    config = {"pixels": "unit"}
    for name in ("encoder", "decoder"):
        theirs = dict(recorded[name])
        assert theirs.pop("channels", 3) == 3, f"{path}: images of ours have three channels"
        config[name] = {
            "name": "vit",
            "size": side(recorded["image_size"]),
            "patch": side(recorded["patch_size"]),
            "width": theirs.pop("dim"),
            "layers": theirs.pop("depth"),
            "heads": theirs.pop("heads"),
            "head_dim": theirs.pop("dim_head", 64),
            "mlp_width": theirs.pop("mlp_dim"),
        }
        assert not theirs, f"{path}: nothing of ours stands for {sorted(theirs)} of the {name}"
    theirs = dict(recorded["quantizer"])
    theirs.pop("straight_through", None)  # the original takes it and passes nothing on
    number, residual = theirs.pop("num_quantizers", None), theirs.pop("use_residual", False)
    config["quantizer"] = {
        "name": "vitvqgan",
        "codes": theirs.pop("n_embed"),
        "width": theirs.pop("embed_dim"),
        "commitment": theirs.pop("beta", 0.25),
        "l2_normalize": theirs.pop("use_norm", True),
        "depth": number if residual else 1,
        "detached_residual": residual,
    }
    assert not theirs, f"{path}: nothing of ours stands for {sorted(theirs)} of the quantizer"
    return config


class Recording:
    """A recording: its model, parameters, images [B,H,W,3] in [0,1].

    It has what ours computes of them, and gradients.
    """

    def __init__(self, path):
        recorded, self.weights, inputs, self.outputs = load(path)
        self.quantizer = recorded["quantizer"]
        self.config = config_of(path, recorded)
        self.model, self.image = tokenizer.make(self.config), inputs["x"].transpose(0, 2, 3, 1)
        self.params = vitvqgan.to_ours(self.weights, shapes(self.model, self.image))["params"]
        (_, self.ours), grads = jax.jit(jax.value_and_grad(self.run, has_aux=True))(self.params)
        self.grads = vitvqgan.to_theirs({"params": grads})

    def run(self, params):
        """The original's loss in [0,1], and {name of a recorded output: array}.

        In pieces, because a `Tokenizer` takes no patches that are not square, which pieces do.
        """
        model = self.model

        def apply(module, name, *x, **keys):
            return module.apply({"params": params[name]}, *x, **keys)

        enc = apply(model.encoder, "encoder", self.image)
        z = apply(nn.Dense(model.quantizer.width), "to_codes", enc)
        quant, ids, aux = apply(model.quantizer, "quantizer", z, train=True)
        rec = apply(model.decoder, "decoder", quant)
        again = apply(
            model.decoder, "decoder", apply(model.quantizer, "quantizer", ids, method="embed")
        )
        loss = jnp.mean(jnp.square(rec - self.image)) + aux["quantizer_loss"]
        return loss, {
            "enc": enc,
            "prequant": z,
            "indices": ids,
            "quant": quant,
            "qloss": aux["quantizer_loss"],
            "rec": rec.transpose(0, 3, 1, 2),
            "dec_from_codes": again.transpose(0, 3, 1, 2),
            "mse_plus_qloss": loss,
            "pos_embedding": params["encoder"]["positions"],
        }


def shapes(model, image):
    """{"params"} of the pieces of a tokenizer, as shapes."""

    def init(rng):
        enc, encoder = model.encoder.init_with_output(rng, image)
        z, to_codes = nn.Dense(model.quantizer.width).init_with_output(rng, enc)
        (z_q, _, _), quantizer = model.quantizer.init_with_output(rng, z)
        parts = {"encoder": encoder, "to_codes": to_codes, "quantizer": quantizer}
        parts["decoder"] = model.decoder.init(rng, z_q)
        return {"params": {name: part["params"] for name, part in parts.items()}}

    return jax.eval_shape(init, jax.random.key(0))


@pytest.fixture(scope="module", params=recordings(), ids=lambda path: path.stem)
def recording(request):
    return Recording(request.param)


def close(ours, theirs, tolerance, name=""):
    scale = np.abs(theirs).max()
    ours = np.asarray(ours).reshape(theirs.shape)
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=tolerance, err_msg=name)


def test_every_recorded_output_is_the_originals(recording):
    left = {name for name in recording.outputs if not name.startswith("grad/")} - {
        "vq_margin_min_median"
    }
    assert left <= recording.ours.keys(), (
        f"nothing here computes {sorted(left - recording.ours.keys())}"
    )
    for name in left:
        theirs = recording.outputs[name]
        if theirs.dtype == np.int32:
            np.testing.assert_array_equal(
                np.asarray(recording.ours[name]).reshape(theirs.shape), theirs
            )
        else:
            close(recording.ours[name], theirs, 1e-5, name)


def test_gradients_are_the_originals(recording):
    recorded = [name for name in recording.outputs if name.startswith("grad/")]
    assert recorded
    for name in recorded:
        close(recording.grads[name.removeprefix("grad/")], recording.outputs[name], 1e-4, name)


def test_margins_between_codes_are_the_recorded_ones(recording):
    """The gap of the squared distances of the two nearest codes, smallest and median.

    So far are ids from changing.
    """
    recorded = recording.outputs["vq_margin_min_median"]
    z, codes = np.float64(recording.ours["prequant"]), recording.params["quantizer"]["codebook"][0]
    if recording.config["quantizer"]["l2_normalize"]:
        z, codes = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (z, codes))
    first, second = np.sort(
        np.square(z.reshape(-1, 1, codes.shape[-1]) - codes[None]).sum(-1), axis=1
    )[:, :2].T
    if recording.config["quantizer"]["depth"] == 1:
        gaps = second - first
        np.testing.assert_allclose(recorded, [gaps.min(), np.median(gaps)], rtol=1e-3, atol=2e-6)
    else:  # of which depths is not recorded
        assert 0 < recorded[0] <= recorded[1]


def test_fixed_positions_are_the_originals(recording):
    for name, theirs in (("encoder", "en"), ("decoder", "de")):
        coder = getattr(recording.model, name)
        table = vit.sincos(*coder.grid, coder.width)
        np.testing.assert_array_equal(table, recording.weights[f"{name}.{theirs}_pos_embedding"][0])


def test_the_way_back_to_their_names_is_exact(recording):
    theirs = vitvqgan.to_theirs({"params": recording.params})
    assert theirs.keys() == recording.weights.keys()
    for name, array in recording.weights.items():
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)


def test_config_of_the_weights_is_the_recorded_one(recording):
    coders = [recording.config[name] for name in ("encoder", "decoder")]
    told = {"size": coders[0]["size"], "head_dim": [coder["head_dim"] for coder in coders]}
    config = vitvqgan.tokenizer_config(recording.weights, **told)
    assert config["pixels"] == "unit" and [config["encoder"], config["decoder"]] == coders
    if set(recording.quantizer) == {"n_embed", "embed_dim"}:  # shapes do not tell more
        assert tokenizer.make(config).quantizer == recording.model.quantizer
    if len(set(recording.model.encoder.grid)) == 1:
        assert vitvqgan.tokenizer_config(recording.weights, head_dim=told["head_dim"]) == config


def test_a_tokenizer_is_its_pieces_in_the_originals_pixels(recording):
    if isinstance(recording.config["encoder"]["patch"], tuple):
        with pytest.raises(InputError, match="patches as high as wide"):
            recording.model.apply({"params": recording.params}, recording.image)
        return
    run = jax.jit(lambda params: recording.model.apply({"params": params}, 2 * recording.image - 1))
    image, ids, _ = run(recording.params)
    np.testing.assert_array_equal(ids, recording.ours["indices"])
    close((image.transpose(0, 3, 1, 2) + 1) / 2, recording.outputs["rec"], 1e-5)


@pytest.mark.parametrize(
    ("encoder", "decoder", "total"),
    [
        ("small", "small", 51_956_771),
        ("base", "base", 172_237_347),
        ("small", "large", 615_322_915),
    ],
)
def test_full_size_has_exactly_the_originals_parameters(encoder, decoder, total):
    """The configurations of enhancing-transformers, whose large one has the small encoder."""
    sizes = {
        "small": {"width": 512, "layers": 8, "heads": 8, "mlp_width": 2048},
        "base": {},
        "large": {"width": 1280, "layers": 32, "heads": 16, "mlp_width": 5120},
    }
    model = tokenizer.make(
        {
            "encoder": {"name": "vit", **sizes[encoder]},
            "decoder": {"name": "vit", **sizes[decoder]},
            "quantizer": {"name": "vq", "codes": 8192, "width": 32, "l2_normalize": True},
            "pixels": "unit",
        }
    )
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))["params"]
    assert model.factor == 8
    assert sum(x.size for x in jax.tree.leaves(params)) == total


SMALL = {
    "name": "vit",
    "size": (8, 12),
    "patch": 4,
    "width": 8,
    "layers": 2,
    "heads": 2,
    "head_dim": 3,
    "mlp_width": 12,
}


def config(**changes):
    coder = {**SMALL, **changes}
    quantizer = {"name": "vq", "codes": 16, "width": 4, "l2_normalize": True}
    return {"encoder": coder, "decoder": coder, "quantizer": quantizer}


@functools.cache
def made(**changes):
    """A small tokenizer, and variables that are all different from 0 and 1."""
    model, rng = tokenizer.make({**config(**changes), "pixels": "unit"}), np.random.default_rng(0)
    like = jax.eval_shape(model.init, jax.random.key(0), images())
    return model, jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), like)


def images(height=8, width=12, batch=2):
    return jax.random.uniform(jax.random.key(0), (batch, height, width, 3), minval=-1)


def test_decode_of_embedded_ids_equals_the_reconstruction():
    model, variables = made()

    def both(v, x):
        y, ids, _ = model.apply(v, x)
        return y, model.apply(v, model.apply(v, ids, method="embed"), method="decode"), ids

    y, decoded, ids = jax.jit(both)(variables, images())
    assert y.shape == (2, 8, 12, 3) and y.dtype == jnp.float32
    assert ids.shape == (2, 2, 3, 1) and ids.dtype == jnp.int32
    np.testing.assert_allclose(y, decoded, atol=1e-6)


@pytest.mark.parametrize("learned", [False, True])
def test_every_parameter_learns_but_fixed_positions(learned):
    model, variables = made(learned_positions=learned)

    def loss(params):
        y, _, aux = model.apply({"params": params}, images())
        return jnp.mean((y - images()) ** 2) + aux["quantizer_loss"]

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        fixed = path[-1].key == "positions" and not learned
        assert np.isfinite(grad).all() and np.any(np.abs(grad) > 1e-12) != fixed, (
            jax.tree_util.keystr(path)
        )


def test_positions_start_as_the_table_and_reach_every_token():
    model, _ = made()
    start = jax.jit(model.init)(jax.random.key(0), images())["params"]
    for name in ("encoder", "decoder"):
        np.testing.assert_array_equal(start[name]["positions"], vit.sincos(2, 3, 8))
    table = vit.sincos(2, 3, 8)
    np.testing.assert_allclose(table[0], [0, 0, 1, 1] * 2)  # column 0, row 0
    # Column 2, row 1: width / 4 = 2 frequencies, 1 and 10000^(-1/2).
    angles = np.array([2, 2 / 100, 1, 1 / 100])
    waves = np.concatenate(
        [np.sin(angles[:2]), np.cos(angles[:2]), np.sin(angles[2:]), np.cos(angles[2:])]
    )
    np.testing.assert_allclose(table[5], waves, rtol=1e-6)
    flat = jnp.zeros((1, 8, 12, 3))  # patches alike, so that positions alone tell tokens apart
    tokens = jax.jit(model.encoder.apply)({"params": start["encoder"]}, flat).reshape(6, 8)
    assert len(np.unique(np.round(tokens, 4), axis=0)) == 6


def test_every_token_reaches_every_pixel():
    model, variables = made()
    decode = jax.jit(lambda z: model.apply(variables, z, method="decode"))
    z = jax.random.normal(jax.random.key(1), (1, 2, 3, 4))
    for place in range(6):
        changed = np.abs(decode(z.at[:, place // 3, place % 3].add(1.0)) - decode(z))
        assert (changed.max(axis=-1) > 0).all()


def test_patches_that_are_not_square_are_the_originals_convolutions():
    """A convolution and a transposed convolution with the patch as size and stride."""
    keys = {**SMALL, "size": (6, 20), "patch": (3, 5)}
    keys.pop("name")
    encoder, image, rng = vit.Encoder(**keys), images(6, 20), np.random.default_rng(0)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), image)
    variables = jax.tree.map(lambda a: np.float32(rng.standard_normal(a.shape)), shapes)
    _, kept = encoder.apply(
        variables, image, capture_intermediates=lambda module, _: module.name == "embed"
    )
    kernel, bias = (variables["params"]["embed"][name] for name in ("kernel", "bias"))
    # The layer calls that of linen, which comes first.
    ours = kept["intermediates"]["embed"]["__call__"][-1]
    dimensions = ("NHWC", "HWIO", "NHWC")
    literal = jax.lax.conv_general_dilated(
        image, kernel, (3, 5), "VALID", dimension_numbers=dimensions
    )
    close(ours, literal + bias[None, None, None], 1e-5)

    layer, x = vit.ToPatches((3, 5)), np.float32(rng.standard_normal((2, 2, 4, 8)))
    kernel, bias = np.float32(rng.standard_normal((3, 5, 3, 8))), np.float32(rng.standard_normal(3))
    ours = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    literal = np.zeros((2, 6, 20, 3), np.float32)
    for i, j in np.ndindex(2, 4):
        literal[:, 3 * i : 3 * i + 3, 5 * j : 5 * j + 5] = (
            np.einsum("bc,ijkc->bijk", x[:, i, j], kernel) + bias
        )
    close(ours, literal, 1e-5)


def test_last_layer_has_its_place():
    _, variables = made()
    assert variables["params"]["decoder"]["to_rgb"]["kernel"].shape == (4, 4, 3, 8)


def test_computation_in_bfloat16_keeps_float32_parameters_and_images():
    keys = {key: value for key, value in SMALL.items() if key != "name"} | {"dtype": "bfloat16"}
    z, variables = jax.eval_shape(vit.Encoder(**keys).init_with_output, jax.random.key(0), images())
    assert z.dtype == jnp.bfloat16 and z.shape == (2, 2, 3, 8)
    assert {x.dtype.name for x in jax.tree.leaves(variables)} == {"float32"}
    assert (
        jax.eval_shape(vit.Decoder(**keys).init_with_output, jax.random.key(0), z)[0].dtype
        == jnp.float32
    )


def test_remat_changes_nothing():
    model, variables = made()

    def grads(remat):
        encoder = model.encoder.clone(remat=remat)
        loss = jax.grad(lambda p: jnp.sum(jnp.sin(encoder.apply({"params": p}, images()))))
        return jax.jit(loss)(variables["params"]["encoder"])

    for kept, recomputed in zip(*map(jax.tree.leaves, (grads(False), grads(True))), strict=True):
        np.testing.assert_allclose(kept, recomputed, rtol=1e-5, atol=1e-6)


def test_program_does_not_grow_with_depth():
    def length(layers):
        encoder = made(layers=2)[0].encoder.clone(layers=layers)
        like = jax.eval_shape(encoder.init, jax.random.key(0), images())
        return len(jax.jit(encoder.apply).lower(like, images()).as_text())

    assert length(20) < 1.02 * length(2)


def test_one_head_as_wide_as_the_tokens_has_no_layer_behind_it():
    for keys, there in (
        ({"heads": 1, "head_dim": 8}, False),
        ({"heads": 1, "head_dim": 4}, True),
        ({}, True),
    ):
        _, variables = made(**keys)
        assert ("out" in variables["params"]["encoder"]["blocks"]["attention"]) == there


@pytest.mark.parametrize(
    "changes",
    [{}, {"heads": 1, "head_dim": 8}, {"heads": 1, "head_dim": 4, "layers": 1, "patch": 2}],
    ids=["heads", "head", "narrow_head"],
)
def test_weights_of_ours_go_there_and_back(changes):
    """Through their names, by which the config is told again, as a whole training's file has."""
    _, variables = made(**changes)
    theirs = vitvqgan.to_theirs(variables)
    coder = {**SMALL, **changes}
    assert theirs["encoder.transformer.layers.0.0.fn.to_qkv.weight"].shape == (
        3 * coder["heads"] * coder["head_dim"],
        8,
    )
    assert theirs["decoder.to_pixel.1.weight"].shape == (8, 3, coder["patch"], coder["patch"])
    found = vitvqgan.tokenizer_config(theirs, size=(8, 12), head_dim=coder["head_dim"])
    assert (found["encoder"], found["decoder"]) == (coder, coder)
    whole = {
        **theirs,
        "loss.perceptual_loss.lin0.model.1.weight": np.ones(1),
        "loss.discriminator.x": np.ones(1),
    }
    back = vitvqgan.to_ours(
        whole, jax.eval_shape(tokenizer.make(found).init, jax.random.key(0), images())
    )
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_no_weight_is_left_over_or_missing():
    _, variables = made()
    theirs, like = vitvqgan.to_theirs(variables), jax.eval_shape(lambda: variables)
    with pytest.raises(InputError, match="encoder.extra.weight is no name of a weight of it"):
        vitvqgan.to_ours({**theirs, "encoder.extra.weight": np.ones(1)}, like)
    for name in theirs:
        with pytest.raises(InputError, match=r"params/\S+ (is missing|has the parts)"):
            vitvqgan.to_ours({key: array for key, array in theirs.items() if key != name}, like)


def test_configs_that_weights_do_not_tell():
    theirs = vitvqgan.to_theirs(made()[1])
    with pytest.raises(
        InputError, match="6 tokens of 4x4 pixels are no image of 8x8: give its size"
    ):
        vitvqgan.tokenizer_config(theirs, head_dim=3)
    with pytest.raises(
        InputError, match="queries of 6 channels are not heads of 64: its config tells"
    ):
        vitvqgan.tokenizer_config(theirs, (8, 12))
    with pytest.raises(
        InputError, match="not the weights of a ViT-VQGAN: quantizer.embedding.weight is missing"
    ):
        vitvqgan.tokenizer_config({"quantize.embedding.weight": np.zeros((2, 2))})


def test_errors_say_what_was_expected():
    model, variables = made()
    with pytest.raises(InputError, match=r"expected images of 8x12 \(height x width\), got 8x16"):
        model.apply(variables, images(8, 16))
    with pytest.raises(InputError, match=r"expected 2x3 tokens \(height x width\), got 3x2"):
        model.apply(variables, jnp.zeros((1, 3, 2, 4)), method="decode")
    with pytest.raises(InputError, match="multiple of the patch 4x4, got 10x12"):
        tokenizer.make(config(size=(10, 12)))
    with pytest.raises(InputError, match="multiple of 4, got 6"):
        tokenizer.make(config(width=6))
    with pytest.raises(InputError, match="patches as high as wide in a tokenizer, got 4x2"):
        tokenizer.make(config(patch=(4, 2))).init(jax.random.key(0), images())
