"""InceptionV3 for FID against recordings of torch-fidelity and pytorch-fid; its two resizings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close, files, load

from evqgan.convert import frozen
from evqgan.convert.mapping import to_ours
from evqgan.core.errors import InputError
from evqgan.nn import inception

PREPARE = {"tf": inception.prepare_tf1, "pytorch_fid": inception.prepare_torch}


def run(variables, image):
    """-> the features, and the outputs of the blocks by their names."""
    capture = {
        "capture_intermediates": lambda module, _: module.name in inception.BLOCKS,
        "mutable": "intermediates",
    }
    network = inception.Network(len(variables["params"]["fc_bias"]))
    features, seen = network.apply(variables, image, **capture)
    return features, {name: x["__call__"][0] for name, x in seen["intermediates"].items()}


@pytest.mark.parametrize("path", files("inception_fid*.npz"), ids=lambda path: path.stem)
def test_features_equal_the_originals(path):
    _, weights, inputs, outputs = load(path)
    source = frozen.NETWORKS["inception"]
    like = frozen.shapes(inception.Network(len(weights["fc.bias"])), 75)
    variables = to_ours(source.table, weights, like, source.ignored)
    image = inputs["img_uint8"].transpose(0, 2, 3, 1)
    ours, jitted = {}, jax.jit(run)
    for name, prepare in PREPARE.items():
        features, blocks = jitted(variables, prepare(image))
        ours |= {f"{name}/{key}": x for key, x in features.items()}
        if name == "tf":
            ours |= {f"stage/{key}_chmean": x.mean((1, 2)) for key, x in blocks.items()}
            spatial = features["spatial"].reshape(len(image), 17, 17, 7)
            means = outputs["stage/Mixed_6d_chmean"][:, :7]
            close(spatial.mean((1, 2)), means, 1e-4)
    resized = np.asarray(inception.resize_tf1(image)).transpose(0, 3, 1, 2)
    ours["tf_resize_row7"] = resized[:, :, 7]
    if "tf_resize_sub" in outputs:
        step = -(-inception.SIZE // outputs["tf_resize_sub"].shape[2])
        ours["tf_resize_sub"] = resized[:, :, ::step, ::step]
    for name, theirs in outputs.items():
        assert name in ours, f"nothing here computes {name}: build what it records"
        close(ours[name], theirs, 1e-6 if "resize" in name else 1e-4)


def test_parameters():
    variables = frozen.shapes(inception.Network(), 75)
    sizes = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in variables.items()}
    assert sizes == {"params": 23_850_960, "batch_stats": 34_432}


def test_shapes_of_the_features():
    network = inception.Network()
    images = jnp.zeros((2, 299, 299, 3))
    features = jax.eval_shape(network.apply, frozen.shapes(network, 75), images)
    assert {name: x.shape for name, x in features.items()} == {
        **{str(c): (2, c) for c in (64, 192, 768, 2048)},
        "spatial": (2, 17 * 17 * 7),
        "logits": (2, 1008),
        "logits_unbiased": (2, 1008),
    }
    assert {x.dtype.name for x in features.values()} == {"float32"}


@pytest.mark.parametrize("size", [(5, 7), (64, 48), (400, 310)])
def test_resizing_is_its_definition(size):
    """Pixel by pixel, in float64."""
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 2)).astype(np.uint8)

    def literal(position):
        out = np.zeros((1, 31, 31, 2))
        for i in range(31):
            for j in range(31):
                parts = []
                for n, p in ((size[0], i), (size[1], j)):
                    p = position(p, n / 31)
                    low = int(p)
                    parts.append(((low, 1 - (p - low)), (min(low + 1, n - 1), p - low)))
                for y, v in parts[0]:
                    for x, w in parts[1]:
                        out[:, i, j] += v * w * image[:, y, x]
        return out

    close(inception.resize_tf1(image, 31), literal(lambda p, scale: p * scale), 5e-5)
    close(
        inception.resize_torch(image, 31),
        literal(lambda p, scale: max((p + 0.5) * scale - 0.5, 0)),
        5e-5,
    )


def test_the_conventions_agree_where_nothing_is_resized():
    image = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3)).astype(np.uint8)
    first, second = (np.asarray(prepare(image)) for prepare in PREPARE.values())
    np.testing.assert_array_equal(first, np.float32(image) / 128 - 1)
    np.testing.assert_allclose(second, np.float32(image) / 127.5 - 1, atol=1e-6)
    assert first.min() == -1 and first.max() == 1 - 1 / 128 and second.max() == 1


@pytest.mark.parametrize("prepare", PREPARE.values())
def test_only_bytes_are_prepared(prepare):
    with pytest.raises(InputError, match=r"\[B,H,W,3\] uint8, got \[2, 8, 8, 3\] float32"):
        prepare(np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(InputError, match=r"got \[2, 3, 8, 8\] uint8"):
        prepare(np.zeros((2, 3, 8, 8), np.uint8))


def test_means_count_no_padding():
    mean = inception.average(jnp.ones((1, 4, 5, 2)))
    np.testing.assert_allclose(mean, 1, rtol=1e-6)
    assert inception.maximum(-jnp.ones((1, 4, 5, 2))).max() == -1


def test_an_image_that_is_too_small():
    with pytest.raises(InputError, match="at least 75x75 pixels"):
        frozen.shapes(inception.Network(), 74)
    last = jax.eval_shape(
        inception.Network().apply, frozen.shapes(inception.Network(), 75), jnp.zeros((1, 75, 75, 3))
    )
    assert last["2048"].shape == (1, 2048)
