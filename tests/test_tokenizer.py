"""The whole tokenizer: contract, sizes, exact parameter counts, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer


def config(depths=(1, 1), quantizer=None):
    swin = {"name": "swin", "width": 16, "head_dim": 8, "depths": list(depths), "window": 4}
    return {
        "encoder": swin,
        "decoder": swin,
        "quantizer": {"name": "vq", "codes": 32, "width": 8, **(quantizer or {})},
    }


def images(height, width, batch=2):
    return jax.random.uniform(jax.random.key(0), (batch, height, width, 3), minval=-1)


@functools.cache
def made(dtype="float32", depths=(1, 1), **quantizer):
    """A tokenizer, with variables that are all different from 0 and 1."""
    model, rng = tokenizer.make(config(depths, quantizer), dtype), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(32, 32))
    return model, jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), shapes)


@pytest.mark.parametrize(
    ("height", "width", "dtype"), [(16, 16, "float32"), (48, 32, "bfloat16"), (40, 24, "float32")]
)
def test_one_model_takes_images_of_any_size(height, width, dtype):
    model, variables = made(dtype)
    assert model.factor == 8
    y, ids, aux = jax.jit(model.apply)(variables, images(height, width))
    assert y.shape == (2, height, width, 3) and y.dtype == jnp.float32
    assert ids.shape == (2, height // 8, width // 8, 1) and ids.dtype == jnp.int32
    assert all(np.isfinite(x) for x in aux.values())


@pytest.mark.parametrize(
    "quantizer", [{}, {"name": "residual", "depth": 3, "revive": 0.1}, {"name": "gumbel"}]
)
def test_decode_of_embedded_ids_equals_the_reconstruction(quantizer):
    model, variables = made(depths=(1,), **quantizer)

    def both(v, x):
        y, ids, _ = model.apply(v, x)
        z_q, again, _ = model.apply(v, x, method="encode")
        embedded = model.apply(v, ids, method="embed")
        return y, model.apply(v, embedded, method="decode"), z_q, embedded, ids, again

    y, decoded, z_q, embedded, ids, again = jax.jit(both)(variables, images(32, 16))
    np.testing.assert_array_equal(ids, again)
    np.testing.assert_array_equal(z_q, embedded)
    np.testing.assert_allclose(y, decoded, atol=1e-6)


def precisions(jaxpr):
    """Of each product and convolution of float32 numbers."""
    for equation in jaxpr.eqns:
        of = equation.primitive.name, equation.invars and equation.invars[0].aval.dtype
        if of in (("dot_general", jnp.float32), ("conv_general_dilated", jnp.float32)):
            yield equation.params["precision"]
        for inner in jaxprs_in_params(equation.params):
            yield from precisions(inner)


CODERS = {
    "swin": {"width": 16, "head_dim": 8, "depths": (1,), "window": 4},
    "cnn": {"width": 32, "multipliers": (1, 1), "attention": (), "z_width": 8},
    "vit": {
        "size": 16,
        "patch": 4,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "head_dim": 8,
        "mlp_width": 16,
    },
}


@pytest.mark.parametrize(
    "quantizer", [{}, {"l2_normalize": True}, {"name": "residual"}, {"name": "gumbel"}]
)
@pytest.mark.parametrize("name", CODERS)
def test_what_decides_ids_and_colours_is_float32_on_every_device(name, quantizer):
    """The other products are in bfloat16 here.

    Accelerators cut those of float32 short, unless told not to.
    """
    keys = {"encoder": {"name": name, **CODERS[name]}, "decoder": {"name": name, **CODERS[name]}}
    model = tokenizer.make(
        {**keys, "quantizer": {"name": "vq", "codes": 32, "width": 8, **quantizer}}, "bfloat16"
    )
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images(16, 16)))
    for method, least in (("encode", 2), ("__call__", 3)):
        found = list(
            precisions(
                jax.make_jaxpr(lambda v, m=method: model.apply(v, images(16, 16), method=m))(
                    variables
                )
            )
        )
        assert len(found) >= least
        assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_every_parameter_learns():
    model, variables = made()

    def loss(params):
        x = images(40, 40)
        y, _, aux = model.apply(
            {"params": params}, x, train=True, rngs={"codebook": jax.random.key(0)}
        )
        return jnp.mean((y - x) ** 2) + aux["quantizer_loss"]

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.any(np.abs(grad) > 1e-12), jax.tree_util.keystr(path)


def test_last_layer_has_its_place():
    _, variables = made()
    assert variables["params"]["decoder"]["to_rgb"]["kernel"].shape == (3, 3, 8, 3)


def test_influence_of_a_token_is_local():
    """Paper, Fig. 1: a changed code changes its surroundings only."""
    model, variables = made()
    decode = jax.jit(lambda z: model.apply(variables, z, method="decode"))
    z = jax.random.normal(jax.random.key(1), (1, 12, 12, 8))
    changed = np.abs(decode(z.at[:, 5, 5].add(1.0)) - decode(z)).max(axis=-1)[0] > 0
    rows, columns = np.nonzero(changed)
    # The windows of 4x4 tokens (32 pixels) that hold token (5, 5), and one pixel more by the last
    # convolution.
    assert min(rows.min(), columns.min()) >= 31 and max(rows.max(), columns.max()) <= 64
    assert changed[40:48, 40:48].all()


@pytest.mark.parametrize(
    ("depths", "factor", "encoder", "decoder", "total"),
    [
        ((2, 2, 18), 16, 59_455_160, 59_611_515, 119_460_147),
        ((2, 2, 6), 16, 21_583_352, 21_739_707, 43_716_531),
        ((2, 18), 8, 14_785_560, 14_878_171, 29_991_667),
    ],
)
def test_full_size_has_exactly_these_parameters(depths, factor, encoder, decoder, total):
    swin = {"name": "swin", "depths": depths}
    model = tokenizer.make(
        {"encoder": swin, "decoder": swin, "quantizer": {"name": "vq"}}, "bfloat16"
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))["params"]
    count = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in shapes.items()}
    assert model.factor == factor
    assert count == {
        "encoder": encoder,
        "decoder": decoder,
        "quantizer": 1024 * 256,
        "to_codes": (shapes["encoder"]["norm"]["scale"].size + 1) * 256,
    }
    assert sum(count.values()) == total


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"name": "swin", "widht": 8}}, "no key 'widht': did you mean 'width'"),
        ({"encoder": {"name": "swim"}}, "'swim'"),
        ({"quantizer": {"name": "vq", "codez": 8}}, "did you mean 'codes'"),
        ({"quantizer": {"name": "gumble"}}, "did you mean 'gumbel'"),
        ({"quantizer": {"name": "gumbel", "depth": 2}}, "no key 'depth'"),
        ({"extra": 1}, "no key 'extra'"),
        ({"dtype": "float32"}, "no key 'dtype'"),
    ],
)
def test_wrong_configs_end_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        tokenizer.make({**config(), **change})
    assert "\n" not in str(error.value)


def test_missing_part_of_a_config():
    with pytest.raises(InputError, match="needs the key 'decoder'"):
        tokenizer.make({k: v for k, v in config().items() if k != "decoder"})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (jnp.zeros((1, 16, 20, 3)), "multiples of 8, got 20x16"),
        (jnp.zeros((1, 16, 16, 1)), r"got float32 \[1,16,16,1\]"),
        (jnp.zeros((16, 16, 3)), r"got float32 \[16,16,3\]"),
        (jnp.zeros((1, 16, 16, 3), jnp.uint8), r"got uint8 \[1,16,16,3\]"),
    ],
)
def test_wrong_images_end_in_one_line(image, message):
    model, variables = made()
    with pytest.raises(InputError, match=message):
        model.apply(variables, image)


def test_encoder_and_decoder_of_different_factors():
    parts = config()
    model = tokenizer.make({**parts, "decoder": {**parts["decoder"], "depths": (1,)}})
    with pytest.raises(InputError, match="one factor, got 8 and 4"):
        model.init(jax.random.key(0), images(16, 16))


def test_patches_are_quantized_as_one_vector_and_come_back_in_place():
    """RQ-VAE's code shape: 2 x 2 latents a token."""
    model = tokenizer.make({**config((1, 1)), "patch": 2})
    rng, x = np.random.default_rng(0), images(32, 48)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), shapes)
    assert model.factor == 16 and variables["params"]["to_codes"]["kernel"].shape[1] == 8 // 4
    plain = tokenizer.make({**config((1, 1)), "quantizer": {"name": "vq", "codes": 32, "width": 2}})
    seen = jax.jit(lambda v: plain.apply(v, x, method="latents"))(
        {
            "params": {
                **variables["params"],
                "quantizer": {"codebook": np.zeros((1, 32, 2), np.float32)},
            }
        }
    )
    z = jax.jit(lambda v: model.apply(v, x, method="latents"))(variables)
    assert z.shape == (2, 2, 3, 8)
    np.testing.assert_allclose(z[:, 1, 2].reshape(2, 2, 2, 2), seen[:, 2:4, 4:6], atol=1e-5)
    _, ids, _ = jax.jit(lambda v: model.apply(v, x, method="encode"))(variables)
    assert ids.shape == (2, 2, 3, 1)
    with pytest.raises(InputError, match=r"width = 8 is no multiple of patch\^2 = 9"):
        jax.eval_shape(tokenizer.make({**config((1, 1)), "patch": 3}).init, jax.random.key(0), x)


def test_networks_may_see_pixels_from_0_to_1():
    """The same weights, and what they see and make scaled.

    Outside nothing but the range of pixels is another one.
    """
    signed, variables = made()
    unit, x = tokenizer.make({**config(), "pixels": "unit"}), images(32, 32)
    run = jax.jit(lambda v, x: unit.apply(v, x)[0])
    np.testing.assert_allclose(
        run(variables, 2 * x - 1), 2 * jax.jit(signed.apply)(variables, x)[0] - 1, atol=1e-4
    )
    with pytest.raises(
        InputError, match="config.tokenizer.pixels expects one of signed, unit, got 'units'"
    ):
        jax.eval_shape(tokenizer.make({**config(), "pixels": "units"}).init, jax.random.key(0), x)


def test_soft_codes_are_chances_of_the_codes_and_draw_the_nearest_most_often():
    model, variables = made(name="residual", depth=2, decay=0.0)
    x = images(16, 16)
    draw = jax.jit(lambda v, t, k: model.apply(v, x, t, k, method="soft_codes"))
    _, nearest, _ = jax.jit(lambda v: model.apply(v, x, method="encode"))(variables)
    ids, chances = draw(variables, 1e-4, jax.random.key(0))
    np.testing.assert_array_equal(ids, nearest)  # cold: the nearest alone
    ids, chances = draw(variables, 0.5, jax.random.key(1))
    assert chances.shape == (*ids.shape, 32) and ids.dtype == np.int32
    np.testing.assert_allclose(chances.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(chances[..., 0, :].argmax(-1), nearest[..., 0])
    gumbel, its = made(name="gumbel")
    with pytest.raises(InputError, match="config.tokenizer.soft needs a quantizer such as 'vq'"):
        gumbel.apply(its, x, 0.5, jax.random.key(0), method="soft_codes")


@pytest.mark.parametrize(
    ("quantizer", "books"),
    [
        ({}, 1),
        ({"name": "residual", "depth": 3, "shared": False}, 3),
        ({"name": "gumbel"}, 1),
    ],
)
def test_the_codebook_is_what_embed_reads(quantizer, books):
    model, variables = made(**quantizer)
    codebook = model.apply(variables, method="codebook")
    ids = (
        np.random.default_rng(0).integers(0, 32, (1, 2, 2, model.quantizer.depth)).astype(np.int32)
    )
    assert codebook.shape == (books, 32, 8)
    summed = sum(codebook[d % len(codebook)][ids[..., d]] for d in range(ids.shape[-1]))
    np.testing.assert_allclose(model.apply(variables, ids, method="embed"), summed, atol=1e-6)
