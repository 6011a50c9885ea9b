"""VGG16: features of the original, as recorded with LPIPS, and properties."""

import jax
import jax.numpy as jnp
import lpips_table
import numpy as np
import pytest
from golden_files import close_but_for_kinks, files, load, nudged

from evqgan.convert import frozen
from evqgan.convert.mapping import to_ours
from evqgan.core.errors import InputError
from evqgan.losses import lpips
from evqgan.nn import vgg

MAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


@pytest.fixture(scope="module")
def variables():
    # Quick to compile.
    return jax.jit(vgg.Network().init)(jax.random.key(0, impl="rbg"), jnp.zeros((1, 16, 16, 3)))


@pytest.fixture(scope="module")
def image():
    return jax.random.normal(jax.random.key(1), (1, 32, 48, 3))


@pytest.mark.parametrize("path", files("*lpips*.npz"), ids=lambda path: path.stem)
def test_maps_equal_the_originals(path):
    config, weights, inputs, outputs = load(path)
    assert config.get("net", "vgg") == "vgg", "of the networks of LPIPS only VGG16 is built"
    image = inputs["a"].transpose(0, 2, 3, 1)
    like = {"trunk": frozen.NETWORKS["vgg16"].like()}
    table = [row for row in lpips_table.LPIPS_PACKAGE if row.ours.startswith("trunk/")]
    network = to_ours(
        table, weights, like, ignored=(*lpips_table.LPIPS_PACKAGE_IGNORED, r"^lin\d\.")
    )["trunk"]
    scaled = (image - np.float32(lpips.SHIFT).reshape(1, 1, 1, 3)) / np.float32(
        lpips.SCALE
    ).reshape(1, 1, 1, 3)
    maps = jax.jit(vgg.Network().apply)(network, scaled)
    compared = 0
    for i, x in enumerate(maps):
        for name, value in (
            (f"feat{i}_mean", x.mean((1, 2))),
            (f"feat{i}_absmean", jnp.abs(x).mean()),
        ):
            if name in outputs:
                compared += 1
                scale = np.abs(outputs[name]).max()
                np.testing.assert_allclose(
                    value, outputs[name].reshape(value.shape), rtol=0, atol=1e-5 * scale
                )
    assert compared == len([name for name in outputs if name.startswith("feat")])


def test_parameters_and_shapes(variables, image):
    assert sum(x.size for x in jax.tree.leaves(variables)) == 14_714_688
    maps = jax.eval_shape(vgg.Network().apply, variables, image)
    assert [x.shape[1:] for x in maps] == [
        (32, 48, 64),
        (16, 24, 128),
        (8, 12, 256),
        (4, 6, 512),
        (2, 3, 512),
    ]
    odd = jax.eval_shape(vgg.Network().apply, variables, jnp.zeros((1, 37, 31, 3)))
    # A pooling leaves out what does not fill a window, as in PyTorch.
    assert odd[-1].shape == (1, 2, 1, 512)


def test_bfloat16_is_near_float32(variables, image):
    exact = jax.jit(vgg.Network().apply)(variables, image)
    # A fusion of XLA for CPUs gives NaN in bfloat16 with jax 0.12: docs/accelerators.md, Versions.
    without = {"xla_cpu_experimental_ynn_fusion_type": ""} if jax.default_backend() == "cpu" else {}
    rounded = jax.jit(vgg.Network("bfloat16").apply, compiler_options=without)(variables, image)
    for name, x, y in zip(MAPS, exact, rounded, strict=True):
        assert x.dtype == jnp.float32 and y.dtype == jnp.bfloat16
        error = jnp.linalg.norm(y.astype(jnp.float32) - x) / jnp.linalg.norm(x)
        assert 0 < error < 0.02, name


def test_random_maps_keep_their_size(variables, image):
    sizes = [
        float(jnp.sqrt(jnp.mean(x**2))) for x in jax.jit(vgg.Network().apply)(variables, image)
    ]
    assert max(sizes) < 5 * min(sizes)


def test_remat_changes_nothing_and_keeps_less(variables, image):
    def loss(image, variables, remat, dtype="float32"):
        return sum(
            jnp.sum(jnp.square(x)) for x in vgg.Network(dtype, remat).apply(variables, image)
        )

    slope = jax.jit(jax.grad(loss), static_argnums=2)

    def gradient(image, remat):
        return {"image": np.asarray(slope(image, variables, remat))}

    plain, again = (gradient(image, remat) for remat in (False, True))
    close_but_for_kinks(again, plain, lambda number: gradient(nudged(image, number), True))

    def kept(remat):
        back = jax.eval_shape(
            lambda v, x: jax.vjp(lambda x: loss(x, v, remat, "bfloat16"), x)[1], variables, image
        )
        return sum(
            x.size * x.dtype.itemsize
            for x in jax.tree.leaves(back)
            if x.shape[:1] == image.shape[:1]
        )

    assert kept(True) < 0.6 * kept(False)


def test_an_image_that_leaves_an_empty_map(variables):
    with pytest.raises(InputError, match=r"at least 16x16 pixels, got \[1, 32, 15, 3\]"):
        vgg.Network().apply(variables, jnp.zeros((1, 32, 15, 3)))
