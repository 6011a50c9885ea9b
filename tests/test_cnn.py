"""The CNN tokenizer: sizes, exact parameter counts, properties; and what its parity tests share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close, close_but_for_kinks

from evqgan import models
from evqgan.core.errors import InputError
from evqgan.tokenizers import cnn, tokenizer

ABOUT = (  # what a recording's config says of the recording itself
    {"repo", "commit", "torch", "jax", "flax", "variant", "seed", "gain", "overrides", "note"}
    | {"extra_rule", "key_separator", "jax_threefry_partitionable"}
    | {"weights_stored", "n_float_weights", "shapes", "checksum"}
)


def nhwc(x):
    return np.asarray(x).transpose(0, 2, 3, 1)


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def norm(tree):
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def settings(config):
    """A recording's config without what it says of the recording."""
    return {key: value for key, value in config.items() if key not in ABOUT}


def coders(ddconfig):
    """Encoder and decoder of config.tokenizer for a `ddconfig` of taming-transformers or RQ-VAE."""
    theirs = dict(ddconfig)
    assert theirs.pop("in_channels") == theirs.pop("out_ch") == 3, (
        "ours are of images with 3 channels"
    )
    assert not theirs.pop("double_z", False), (
        "a double_z encoder (of a KL autoencoder) is not built"
    )
    assert not theirs.pop("dropout", 0.0), "there is no dropout in our tokenizers"
    assert not theirs.pop("give_pre_end", False), "a decoder without its end is not built"
    multipliers, blocks = tuple(theirs.pop("ch_mult")), theirs.pop("num_res_blocks")
    resolution, sides = theirs.pop("resolution"), theirs.pop("attn_resolutions")
    # With one multiplier nothing is resampled.
    with_conv = theirs.pop("resamp_with_conv", True) or len(multipliers) == 1
    both = {
        "name": "cnn",
        "width": theirs.pop("ch"),
        "multipliers": multipliers,
        "z_width": theirs.pop("z_channels"),
        "attention": tuple(2**i for i in range(len(multipliers)) if resolution // 2**i in sides),
    }
    assert not theirs, f"nothing of ours stands for {sorted(theirs)}"
    return {
        "encoder": {**both, "blocks": blocks, "down": "conv" if with_conv else "pool"},
        "decoder": {**both, "blocks": blocks + 1, "up": "conv" if with_conv else "nearest"},
    }


def without(config, *keys):
    """config.tokenizer without these keys of its quantizer, which no weights can tell."""
    quantizer = {key: value for key, value in config["quantizer"].items() if key not in keys}
    return {**config, "quantizer": quantizer}


def shapes(model, side):
    """Its {"params", "codebook"} for images of this side, as shapes."""
    return jax.eval_shape(
        lambda: models.ImageTokenizer(model, (side, side)).init(jax.random.key(0))
    )


def distances(z, codebook):
    """z [...,c], codebook [V,c] -> squared distances [...,V], float64."""
    z, codebook = np.float64(z), np.float64(codebook)
    own = (codebook**2).sum(-1).reshape(*[1] * (z.ndim - 1), -1)
    return (z**2).sum(-1, keepdims=True) - 2 * z @ codebook.T + own


def margins(scores):
    """scores [...,V], small is good -> smallest and median gap between the best and the second."""
    best = np.sort(scores, axis=-1)
    gap = best[..., 1] - best[..., 0]
    return np.array([gap.min(), np.median(gap)])


def compare(computed, theirs):
    """Compare all that is recorded (theirs) with ours of the same names.

    Ids are compared exactly, values to 1e-4 of their scale, gradients to 1e-3.

    computed(number=None): ours by name, with a number for an image `nudged` by it. Gradients, and
    the adaptive weight that is a ratio of gradients, jump where some ReLU's input in VGG16 or the
    critic is within rounding of zero. Those that have to be zero are below 1e-8. Ids do not hang on
    rounding where the recorded margins do not: the nearest code is nearer by 1e-3 than the second,
    of distances of 1 to 30.
    """
    ours = computed()
    missing = sorted(set(theirs) - set(ours))
    assert theirs and not missing, f"nothing here computes {missing}: build what they record"
    of_gradients = {
        name: array for name, array in theirs.items() if "grad" in name or name.endswith("d_weight")
    }

    def gradients(ours):
        return {
            name: np.asarray(ours[name]).reshape(array.shape)
            for name, array in of_gradients.items()
        }

    for name, array in theirs.items():
        if array.dtype.kind == "i":
            np.testing.assert_array_equal(ours[name], array, err_msg=name)
        elif name not in of_gradients:
            close(np.asarray(ours[name]).reshape(array.shape), array, 1e-4, name, least=1e-4)
    if of_gradients:
        close_but_for_kinks(
            gradients(ours),
            of_gradients,
            lambda number: gradients(computed(number)),
            1e-3,  # through attention, by other orders of summation: 3.3e-4
            least=1e-4,
        )


MASKGIT = {
    "attention": (),
    "middle_attention": False,
    "z_width": 0,
    "bias": False,
    "shortcut_of_output": True,
}


def published(quantizer, decoder=None, encoder=None, **both):
    """config.tokenizer of a published tokenizer."""
    both = {"name": "cnn", **both}
    return {
        "encoder": {**both, **(encoder or {})},
        "decoder": {**both, **(decoder or {})},
        "quantizer": quantizer,
    }


# Counted on the originals: state_dict() for RQ-VAE without its buffers, but with a padding row of
# its codebook, which ours has not; its codes are no parameters here, but in the collection
# "codebook" with their counts and sums.
RQ = {"name": "residual", "depth": 4}
VQ = {"name": "vq"}
COUNTS = {
    "VQGAN f16, 16384 codes": (published({**VQ, "codes": 16384}), 76_073_859),
    "VQGAN f16, 1024 codes": (published({**VQ, "codes": 1024}), 72_141_699),
    "Gumbel VQGAN f8, 8192 codes": (
        published({"name": "gumbel", "codes": 8192}, multipliers=(1, 1, 2, 4), attention=(8,)),
        68_995_971,
    ),
    "MaskGIT": (
        published({**VQ, "codes": 1024}, {"blocks": 2}, {"down": "pool"}, **MASKGIT),
        54_515_587,
    ),
    "RQ-VAE 8x8x4, ImageNet": (
        published({"codes": 16384, **RQ}, multipliers=(1, 1, 2, 2, 4, 4), attention=(32,)),
        104_402_051,
    ),
    "RQ-VAE 8x8x4, FFHQ": (
        published({"codes": 2048, **RQ}, multipliers=(1, 1, 2, 2, 4, 4), attention=(16,)),
        100_732_035,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_counted_as_in_the_original(name):
    config, count = COUNTS[name]
    tree = shapes(tokenizer.make(config), 64)
    numbers = sum(x.size for x in jax.tree.leaves(tree["params"]))
    if tree["codebook"]:
        codes = tree["codebook"]["quantizer"]["codes"]
        assert codes.shape == (1, config["quantizer"]["codes"], 256)
        numbers += codes.size + codes.shape[2]  # their padding
    assert numbers == count


SMALL = {
    "width": 32,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (2,),
    "middle": 1,
    "z_width": 8,
}
VARIANTS = {
    "VQGAN": ({}, {}),
    "pooled": ({"down": "pool"}, {"up": "nearest"}),
    "MaskGIT": ({**MASKGIT, "down": "conv4", "norm": "layer"}, {**MASKGIT, "activation": "relu"}),
}


def small(variant, **changes):
    encoder, decoder = VARIANTS[variant]
    return cnn.Encoder(**{**SMALL, **encoder, **changes}), cnn.Decoder(
        **{**SMALL, **decoder, **changes}
    )


def variables_of(coders):
    """Variables of an encoder and a decoder, all different from 0 and 1."""
    rng = np.random.default_rng(0)
    z, of_encoder = jax.eval_shape(
        coders[0].init_with_output, jax.random.key(0), jnp.zeros((1, 8, 8, 3))
    )
    _, of_decoder = jax.eval_shape(coders[1].init_with_output, jax.random.key(0), z)
    return jax.tree.map(
        lambda x: np.float32(0.2 * rng.standard_normal(x.shape)), [of_encoder, of_decoder]
    )


def test_remat_changes_no_number_and_every_kernel_learns():
    variables = variables_of(small("VQGAN"))
    image = jax.random.uniform(jax.random.key(1), (2, 8, 12, 3), minval=-1)

    def differentiate(coders):
        def loss(variables):
            z = coders[0].apply(variables[0], image)
            y = coders[1].apply(variables[1], z)
            return jnp.mean(jnp.square(y - image)), (z, y)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)

    (_, (z, y)), grads = plain = differentiate(small("VQGAN"))
    assert z.shape == (2, 4, 6, 8) and y.shape == image.shape
    again = differentiate(small("VQGAN", remat=True))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=max(1e-5 * np.abs(b).max(), 1e-7))
    for path, x in jax.tree.leaves_with_path(grads):
        assert path[-1].key != "kernel" or np.abs(x).max() > 1e-6, path


@pytest.mark.parametrize("variant", VARIANTS)
def test_remat_keeps_less_for_the_backward_pass(variant):
    variables, image = variables_of(small(variant)), jnp.zeros((2, 32, 32, 3))

    def kept(coder):
        back = jax.eval_shape(
            lambda v, x: jax.vjp(lambda v: coder.apply(v, x), v)[1], variables[0], image
        )
        return sum(x.size for x in jax.tree.leaves(back) if x.shape[:1] == (2,))

    assert kept(small(variant, remat=True)[0]) < 0.7 * kept(small(variant)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_computation_in_bfloat16_keeps_float32_parameters_and_images(variant):
    encoder, decoder = small(variant, dtype="bfloat16")
    z, of_encoder = jax.eval_shape(
        encoder.init_with_output, jax.random.key(0), jnp.zeros((2, 8, 8, 3))
    )
    y, of_decoder = jax.eval_shape(decoder.init_with_output, jax.random.key(0), z)
    assert z.dtype == jnp.bfloat16 and y.dtype == jnp.float32
    assert {x.dtype.name for x in jax.tree.leaves((of_encoder, of_decoder))} == {"float32"}


def modules(coder, size=16):
    """The names of the modules of an encoder or decoder."""
    x = jnp.zeros((1, size, size, 3))
    return set(jax.eval_shape(coder.init, jax.random.key(0), x)["params"])


def test_attention_follows_the_blocks_of_its_levels():
    keys = {"width": 32, "multipliers": (1, 1, 1), "attention": (1, 4)}
    attended = {
        f"{way}{i}_attention{j}"
        for way, count in (("down", 2), ("up", 3))
        for i in (0, 2)
        for j in range(count)
    }
    attended.add("middle_attention0")
    found = modules(cnn.Encoder(**keys)) | modules(cnn.Decoder(**keys))
    assert {name for name in found if "attention" in name} == attended
    found = modules(cnn.Encoder(**keys, middle_attention=False, blocks=3))
    expected = {f"down{i}_attention{j}" for i in (0, 2) for j in range(3)}
    assert {name for name in found if "attention" in name} == expected


def test_the_published_maskgit_has_no_attention_and_ends_where_the_codes_begin():
    keys = {**MASKGIT, "width": 32, "multipliers": (1, 2)}
    encoder, decoder = cnn.Encoder(**keys, down="pool"), cnn.Decoder(**keys, blocks=2)
    z, variables = jax.eval_shape(
        encoder.init_with_output, jax.random.key(0), jnp.zeros((1, 8, 8, 3))
    )
    assert z.shape == (1, 4, 4, 64)
    blocks = {f"{level}_block{j}" for level in ("down0", "down1", "middle") for j in (0, 1)}
    assert set(variables["params"]) == {"conv_in", "norm_out"} | blocks
    blocks = {f"{level}_block{j}" for level in ("up0", "up1", "middle") for j in (0, 1)}
    assert modules(decoder) == {"conv_in", "norm_out", "to_rgb", "up1_conv"} | blocks


@pytest.mark.parametrize("coder", [cnn.Encoder, cnn.Decoder])
def test_what_is_wrong_is_named(coder):
    for keys, message in (
        ({"attention": (32,)}, "powers of 2 up to 16, got 32"),
        ({"width": 48}, "multiples of 32, the groups of the norm, got 48"),
    ):
        with pytest.raises(InputError, match=message):
            modules(coder(**keys), 16)
