"""ResNet against recordings of torchvision's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close, close_but_for_kinks, files, load, nudged

from evqgan.convert import frozen
from evqgan.convert.mapping import to_ours
from evqgan.nn import resnet


def draw(like):
    """Random weights that keep the size of what flows through; statistics other than 0 and 1."""
    rng = np.random.default_rng(0)

    def one(path, x):
        noise = rng.standard_normal(x.shape).astype(np.float32)
        if x.ndim > 1:
            return noise * float(np.prod(x.shape[:-1])) ** -0.5
        return 0.1 * noise + (path[-1].key in ("scale", "var"))

    return jax.tree_util.tree_map_with_path(one, like)


@pytest.mark.parametrize("path", files("torchvision_resnet*.npz"), ids=lambda path: path.stem)
def test_features_equal_torchvision(path):
    config, weights, inputs, outputs = load(path)
    assert config["block"] == "Bottleneck", "of torchvision's blocks only Bottleneck is built"
    assert config["groups"] == 1, "grouped convolutions (ResNeXt) are not built"
    network = resnet.Network(
        tuple(config["layers"]), config["width_per_group"], config["num_classes"]
    )
    variables = to_ours(
        frozen.RESNET, weights, frozen.shapes(network, 32), frozen.NETWORKS["resnet50"].ignored
    )
    capture = {
        "capture_intermediates": lambda m, _: str(m.name).startswith("stage"),
        "mutable": "intermediates",
    }

    def loss(x, variables):
        features, seen = network.apply(variables, x, **capture)
        stages = {name: x["__call__"][0] for name, x in seen["intermediates"].items()}
        return jnp.sum(jnp.square(features["logits"])), (features, stages)

    x = inputs["x"].transpose(0, 2, 3, 1)
    judge = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def gradient(x):
        return {"grad_x_of_sumsq": judge(x, variables)[1].transpose(0, 3, 1, 2)}

    _, (features, stages) = judge(x, variables)[0]
    ours = {
        "pooled": features["pooled"],
        "logits": features["logits"],
        "layer4": features["map"].transpose(0, 3, 1, 2),
    }
    ours |= {
        f"layer{name.removeprefix('stage')}_mean": x.mean((1, 2)) for name, x in stages.items()
    }
    if "prepared_sub7" in outputs:
        prepared = jax.jit(resnet.prepare)(inputs["image"].transpose(0, 2, 3, 1))
        ours["prepared_sub7"] = prepared[:, ::7, ::7].transpose(0, 3, 1, 2)
    of_image = {"grad_x_of_sumsq": outputs.pop("grad_x_of_sumsq")}
    close_but_for_kinks(gradient(x), of_image, lambda number: gradient(nudged(x, number)))
    for name, theirs in outputs.items():
        assert name in ours, f"nothing here computes {name}: build what it records"
        close(ours[name], theirs, 1e-4)


@pytest.mark.parametrize("name, count", [("resnet50", 25_557_032), ("resnet101", 44_549_160)])
def test_parameters(name, count):
    variables = frozen.shapes(resnet.Network(resnet.DEPTHS[name]), 32)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count


def test_shapes_and_types():
    network = resnet.Network((1, 1, 1, 1), 16, 7, "bfloat16")
    x = jnp.zeros((2, 64, 96, 3))
    variables = frozen.shapes(network, 32)
    features = jax.eval_shape(network.apply, variables, x)
    assert {name: (y.shape, y.dtype.name) for name, y in features.items()} == {
        "map": ((2, 2, 3, 2048), "bfloat16"),
        "pooled": ((2, 2048), "float32"),
        "logits": ((2, 7), "float32"),
    }
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}


def test_bfloat16_is_near_float32():
    x = np.random.default_rng(1).standard_normal((1, 64, 64, 3)).astype(np.float32)
    variables = draw(frozen.shapes(resnet.Network((1, 1, 1, 1), 16), 32))
    exact, rounded = (
        jax.jit(resnet.Network((1, 1, 1, 1), 16, dtype=dtype).apply)(variables, x)["pooled"]
        for dtype in ("float32", "bfloat16")
    )
    error = jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact)
    assert 0 < error < 0.02


def test_preparing_keeps_flat_images_flat():
    for size in (64, 224, 500):
        x = resnet.prepare(jnp.full((1, size, size, 3), -0.2))
        assert x.shape == (1, 224, 224, 3) and x.dtype == jnp.float32
        np.testing.assert_allclose(
            x[0, ::50, ::50],
            np.broadcast_to((0.4 - np.array(resnet.MEAN)) / resnet.STD, (5, 5, 3)),
            rtol=1e-4,
        )
