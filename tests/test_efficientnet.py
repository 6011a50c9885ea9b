"""EfficientNet-lite0: its maps against recordings of the original, its names, its size.

With trained weights it knows what photographs show.
"""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close_but_for_kinks, files, load, nudged
from PIL import Image

from evqgan.convert import efficientnet as convert
from evqgan.convert import frozen
from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.core import weights as stored
from evqgan.core.errors import InputError
from evqgan.data.builders import photographs
from evqgan.nn import efficientnet
from evqgan.nn.depthwise import depthwise
from evqgan.nn.efficientnet import Head, Network

# Compiles in half the time.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
PREFIX = "feature_network.pretrained."
STARTS = {  # as Projected GAN packs timm's modules
    "layer0.0": "conv_stem",
    "layer0.1": "bn1",
    "layer0.3": "blocks.0",
    "layer0.4": "blocks.1",
    "layer1.0": "blocks.2",
    "layer2.0": "blocks.3",
    "layer2.1": "blocks.4",
    "layer3.0": "blocks.5",
    "layer3.1": "blocks.6",
}


@functools.cache
def shapes(dtype="float32"):
    return jax.eval_shape(Network(dtype).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def timm_names(weights):
    """The recorded backbone's weights under timm's own names."""
    named = {}
    for name, array in weights.items():
        if name.startswith(PREFIX):
            layer, number, rest = name.removeprefix(PREFIX).split(".", 2)
            named[f"{STARTS[f'{layer}.{number}']}.{rest}"] = array
    return named


@pytest.fixture(scope="module", params=files("projected_gan_D*.npz"), ids=lambda path: path.stem)
def recording(request):
    return load(request.param)


def test_maps_equal_the_original(recording):
    config, weights, inputs, outputs = recording
    variables = to_ours(convert.TABLE, timm_names(weights), shapes(), convert.IGNORED)
    image = inputs["real"].transpose(0, 2, 3, 1)
    if config["interp224"]:
        image = jax.image.resize(image, (len(image), 224, 224, 3), "bilinear", antialias=False)
    for i, x in enumerate(jax.jit(Network().apply)(variables, image)):
        x, prefix = np.asarray(x).transpose(0, 3, 1, 2), f"backbone_layer{i}_"
        statistics = {
            "mean": x.mean((2, 3)),
            "std": x.std((2, 3), ddof=1),
            "full": x[:1],
            "s8": x[:, :, ::8, ::8],
        }
        recorded = {
            name.removeprefix(prefix): y for name, y in outputs.items() if name.startswith(prefix)
        }
        assert {"mean", "std"} <= recorded.keys() <= statistics.keys()
        for name, y in recorded.items():
            np.testing.assert_allclose(
                statistics[name], y, rtol=0, atol=1e-4 * np.abs(y).max(), err_msg=prefix + name
            )


def test_weights_go_to_timm_and_back(recording):
    theirs = timm_names(recording[1])
    ours = to_ours(convert.TABLE, theirs, shapes(), convert.IGNORED)
    back = to_theirs(convert.TABLE, ours)
    assert back.keys() == {name for name in theirs if not name.endswith("num_batches_tracked")}
    for name, array in back.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_timm_has_what_is_ignored_too(recording):
    theirs = timm_names(recording[1])
    rest = {
        "conv_head.weight": (1280, 320, 1, 1),
        "classifier.weight": (1000, 1280),
        "classifier.bias": (1000,),
    }
    rest |= {f"bn2.{name}": (1280,) for name in ("weight", "bias", "running_mean", "running_var")}
    whole = theirs | {name: np.zeros(shape, np.float32) for name, shape in rest.items()}
    to_ours(convert.TABLE, whole, shapes(), convert.IGNORED)
    learned = sum(
        x.size
        for name, x in whole.items()
        if not name.split(".")[-1].startswith(("running", "num"))
    )
    assert learned == 4_652_008  # timm's tf_efficientnet_lite0
    with pytest.raises(InputError, match="blocks.7.0.conv_pw.weight is no name of a weight of it"):
        to_ours(
            convert.TABLE,
            whole | {"blocks.7.0.conv_pw.weight": np.zeros(1)},
            shapes(),
            convert.IGNORED,
        )
    whole.pop("blocks.6.0.conv_dw.weight")
    with pytest.raises(InputError, match="group6_block0/depthwise/conv/kernel is missing"):
        to_ours(convert.TABLE, whole, shapes(), convert.IGNORED)


def test_exact_number_of_parameters():
    """2,958,848 without the means and variances of its batch norms, 39,456 numbers more."""
    count = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in shapes().items()}
    assert count == {"params": 2_958_848, "batch_stats": 39_456}


@pytest.mark.parametrize("height, width", [(64, 64), (65, 97), (224, 320), (1024, 1024)])
def test_shapes(height, width):
    maps = jax.eval_shape(Network().apply, shapes(), jnp.zeros((2, height, width, 3)))
    for x, channels, factor in zip(maps, efficientnet.CHANNELS, (4, 8, 16, 32), strict=True):
        assert x.shape == (2, -(-height // factor), -(-width // factor), channels)


@pytest.mark.parametrize(
    "size, stride, side", [(3, 1, 7), (3, 2, 8), (3, 2, 7), (5, 1, 6), (5, 2, 8), (5, 2, 3)]
)
@pytest.mark.parametrize("padding", ["SAME", ((1, 2), (0, 3))])
def test_depthwise_convolution_equals_the_general_one(size, stride, side, padding):
    rng = np.random.default_rng(0)
    x = np.float32(rng.standard_normal((2, side, side + 1, 4)))
    kernel = np.float32(rng.standard_normal((size, size - 1, 1, 4)))
    keys = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 4}
    outputs = []
    for form in (depthwise, jax.lax.conv_general_dilated):

        def call(x, kernel, form=form):
            y = form(x, kernel, (stride, stride), padding, **keys)
            return jnp.sum(jnp.sin(y)), y

        outputs.append(jax.jit(jax.value_and_grad(call, (0, 1), has_aux=True))(x, kernel))
    for ours, theirs in zip(*map(jax.tree.leaves, outputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_statistics_never_change_and_images_get_gradients(monkeypatch):
    # XLA's own form of these convolutions compiles in a fraction of the time.
    monkeypatch.setattr(efficientnet, "depthwise", jax.lax.conv_general_dilated)
    variables = jax.jit(Network().init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    image = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))

    def loss(image, variables, network):
        maps, changed = network.apply(variables, image, mutable=["batch_stats"])
        return sum(jnp.mean(jnp.square(x)) for x in maps), (maps, changed)

    def judge(network):
        return jax.jit(
            jax.value_and_grad(lambda *x: loss(*x, network), has_aux=True), compiler_options=QUICK
        )

    (value, (maps, changed)), grad = judge(Network())(image, variables)
    jax.tree.map(
        np.testing.assert_array_equal,
        changed["batch_stats"],
        flax.core.unfreeze(variables["batch_stats"]),
    )
    assert np.all(np.isfinite(grad)) and np.abs(grad).max() > 0
    assert all(0.1 < np.std(x) < 10 for x in maps), (
        "random weights should keep the size of the maps"
    )
    call = judge(Network(remat=True))
    (again, _), grad_again = call(image, variables)
    np.testing.assert_allclose(again, value, rtol=1e-5)
    close_but_for_kinks(
        {"image": grad_again},
        {"image": grad},
        lambda number: {"image": call(nudged(image, number), variables)[1]},
    )


def test_computation_in_bfloat16_keeps_float32_weights():
    low = Network("bfloat16")
    variables = shapes("bfloat16")
    assert {x.dtype.name for x in jax.tree.leaves(variables)} == {"float32"}
    maps = jax.eval_shape(low.apply, variables, jnp.zeros((1, 64, 64, 3)))
    assert {x.dtype.name for x in maps} == {"bfloat16"}


@pytest.mark.parametrize("shape", [(1, 64, 64, 1), (64, 64, 3)])
def test_only_colour_images(shape):
    with pytest.raises(InputError, match="EfficientNet wants images"):
        Network().init(jax.random.key(0), jnp.zeros(shape))


def test_the_head_is_a_convolution_a_mean_and_a_dense_layer():
    rng = np.random.default_rng(0)
    like = jax.eval_shape(Head().init, jax.random.key(0), jnp.zeros((1, 1, 1, 320)))
    count = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in like.items()}
    assert count == {"params": 1_693_160, "batch_stats": 2_560}
    variables = jax.tree.map(lambda x: np.float32(rng.random(x.shape)) / 10, like)
    x = np.float32(rng.standard_normal((2, 3, 2, 320)))
    found = Head().apply(variables, x)
    params, state = variables["params"], variables["batch_stats"]["last"]["norm"]
    y = x @ params["last"]["conv"]["kernel"][0, 0]
    y = (y - state["mean"]) / np.sqrt(state["var"] + 1e-3) * params["last"]["norm"]["scale"]
    y = np.clip(y + params["last"]["norm"]["bias"], 0, 6).mean((1, 2))
    np.testing.assert_allclose(found["1280"], y, rtol=1e-4, atol=1e-4)
    logits = y @ params["dense"]["kernel"] + params["dense"]["bias"]
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-3)
    low = jax.eval_shape(Head("bfloat16").apply, variables, jnp.zeros((2, 7, 7, 320)))
    assert {name: (x.shape, x.dtype.name) for name, x in low.items()} == {
        "1280": ((2, 1280), "float32"),
        "logits": ((2, 1000), "float32"),
    }


def as_timm_prepares(image):
    """[H,W,3] uint8 -> the central square of 7/8 of the shorter side, [224,224,3] in [-1, 1]."""
    height, width = image.shape[:2]
    side = min(height, width) * 7 / 8
    box = (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2
    resized = Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC, box)
    return np.asarray(resized, np.float32) / 127.5 - 1


def test_with_trained_weights_it_knows_what_photographs_show(trained):
    """ImageNet's classes: espresso, missile, daisy; the cat is a tabby, tiger or Egyptian one."""
    wanted = {"coffee": {967}, "rocket": {657}, "flower": {985}, "chelsea": {281, 282, 285}}
    images = np.stack([as_timm_prepares(photographs.read(name)) for name in wanted])

    @jax.jit
    def chances(trunk, head, image):
        return jax.nn.softmax(Head().apply(head, Network().apply(trunk, image)[-1])["logits"])

    names = ("efficientnet_lite0", "efficientnet_lite0_head")
    networks = [stored.load(trained, name, frozen.NETWORKS[name].like()) for name in names]
    found = np.asarray(chances(*networks, images))
    for (name, classes), row in zip(wanted.items(), found, strict=True):
        first = {int(i) for i in np.argsort(row)[-len(classes) :]}
        assert first == classes, f"{name} is {first}"
        assert sum(row[i] for i in classes) > 0.25, name
    assert found[0, 967] > 0.9 and found[3, sorted(wanted["chelsea"])].sum() > 0.85
