"""LPIPS against recordings of the originals; what makes it a distance; no division by zero."""

import jax
import jax.numpy as jnp
import lpips_table
import numpy as np
import pytest
from golden_files import close, close_but_for_kinks, files, load, nudged

from evqgan.convert.mapping import to_ours
from evqgan.core.errors import InputError
from evqgan.losses import lpips

pytestmark = pytest.mark.usefixtures("optimized")

DTYPES = ("float32", "bfloat16")


def init(distance=None):
    image = jnp.zeros((1, 16, 16, 3))
    # Quick to compile.
    return (distance or lpips.Distance()).init(jax.random.key(0, impl="rbg"), image, image)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(init)()


@pytest.fixture(scope="module")
def images():
    a, noise = jax.random.uniform(jax.random.key(1), (2, 2, 32, 24, 3), minval=-1.0)
    return a, jnp.clip(a + 0.5 * noise, -1, 1)


@pytest.fixture(scope="module", params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def judge(dtype, variables):
    """b, a -> sum of the distances, gradient by b. The weights may be changed."""
    distance = lpips.Distance(dtype)

    def total(b, a, variables):
        return jnp.sum(distance.apply(variables, a, b))

    both = jax.jit(jax.value_and_grad(total))
    return lambda b, a, v=variables: both(b, a, v)


@pytest.mark.parametrize("path", files("*lpips*.npz"), ids=lambda path: path.stem)
def test_distance_equals_the_originals(path):
    config, weights, inputs, outputs = load(path)
    assert config.get("net", "vgg") == "vgg", "of the networks of LPIPS only VGG16 is built"
    for name, constant in (("shift", lpips.SHIFT), ("scale", lpips.SCALE)):
        np.testing.assert_array_equal(
            weights[f"scaling_layer.{name}"].ravel(), np.float32(constant)
        )
    like = jax.eval_shape(init)["frozen"]
    variables = {
        "frozen": to_ours(
            lpips_table.LPIPS_PACKAGE, weights, like, lpips_table.LPIPS_PACKAGE_IGNORED
        )
    }
    a, b = (inputs[name].transpose(0, 2, 3, 1) for name in "ab")

    @jax.jit
    def judge(a, b, variables):
        maps = lpips.Distance().apply(variables, a, b, method="maps")
        distance, back = jax.vjp(lambda b: lpips.Distance().apply(variables, a, b), b)
        return distance, back(jnp.ones_like(distance))[0], maps

    def gradient(b):
        return {"grad_b": judge(a, b, variables)[1].transpose(0, 3, 1, 2)}

    distance, _, maps = judge(a, b, variables)
    ours = {"lpips": distance}
    ours |= {f"layer{i}": x.mean((1, 2)) for i, x in enumerate(maps)}
    if "lpips_normalize01" in outputs:  # the same images, handed over in [0,1]
        ours["lpips_normalize01"] = judge(
            *(2 * np.float32((x + 1) / 2) - 1 for x in (a, b)), variables
        )[0]
    # Every layer's map at the size of the image; not every pixel is recorded.
    if "spatial" in outputs:
        step = a.shape[1] // outputs["spatial"].shape[2]
        ours["spatial"] = sum(jax.image.resize(x, a.shape[:3], "bilinear") for x in maps)[
            :, None, ::step, ::step
        ]
    if "grad_b" in outputs:
        of_image = {"grad_b": outputs.pop("grad_b")}
        close_but_for_kinks(gradient(b), of_image, lambda number: gradient(nudged(b, number)))
    for name, theirs in outputs.items():
        if not name.startswith("feat"):  # those are compared in test_vgg
            assert name in ours, f"nothing here computes {name}: build what it records"
            close(ours[name].reshape(theirs.shape), theirs, 1e-5)


def test_everything_is_frozen(variables, images):
    assert set(variables) == {"frozen"} and set(variables["frozen"]) == set(lpips.PRETRAINED)
    sizes = {
        name: sum(x.size for x in jax.tree.leaves(tree))
        for name, tree in variables["frozen"].items()
    }
    assert sizes == {"trunk": 14_714_688, "heads": 1_472}
    grads = jax.jit(jax.grad(lambda v: lpips.Distance().apply(v, *images).sum()))(variables)
    assert not any(np.any(x) for x in jax.tree.leaves(grads))


def test_only_the_differentiated_image_costs_a_backward_pass(variables, images):
    a, b = images
    gradient = jax.jit(jax.grad(lambda b, a, v: lpips.Distance().apply(v, a, b).sum()))
    text = gradient.lower(b, a, variables).as_text()
    # One image, the other, and back to the other.
    assert text.count("stablehlo.convolution") == 13 + 13 + 13


def test_it_is_a_distance(variables, images, judge):
    a, b = images
    assert all(
        np.all(x >= 0) and np.any(x > 0) for x in jax.tree.leaves(variables["frozen"]["heads"])
    )
    there, _ = judge(b, a)
    back, _ = judge(a, b)
    nearer, _ = judge(0.9 * a + 0.1 * b, a)
    assert there.dtype == jnp.float32
    assert 0 < nearer < there
    np.testing.assert_allclose(there, back, rtol=1e-3)


def test_each_image_has_its_own_distance(variables, images):
    a, b = images
    distance = jax.jit(lpips.Distance().apply)
    both = distance(variables, a, b)
    assert both.shape == (2,) and abs(both[0] - both[1]) > 1e-4
    np.testing.assert_allclose(both[1:], distance(variables, a[1:], b[1:]), rtol=1e-5)


def test_equal_images_have_distance_and_gradient_zero(images, dtype, judge):
    """Up to rounding: the two passes through the trunk are compiled apart."""
    a, b = images
    apart, slope = judge(b, a)
    distance, gradient = judge(a, a)
    assert distance.dtype == gradient.dtype == jnp.float32
    rounding = {"float32": 1e-6, "bfloat16": 0.03}[dtype]
    assert 0 <= distance < rounding * apart
    assert np.abs(gradient).max() < 10 * rounding * np.abs(slope).max()


def test_maps_of_zeros_make_no_infinite_gradient(variables, images, judge):
    """A black hole: biases so negative that no ReLU passes anything, in all layers or the last."""
    a, b = images
    for stages in (("stage1",), ("stage5",)):
        dead = jax.tree.map(lambda x: x, variables)
        for stage in stages:
            for conv in dead["frozen"]["trunk"]["params"][stage].values():
                conv["bias"] = conv["bias"] - 1e6
        distance, gradient = judge(b, a, dead)
        assert np.isfinite(distance) and np.all(np.isfinite(gradient))
        assert ("stage1" in stages) == (not np.any(gradient))
        distance, gradient = judge(a, a, dead)
        assert distance < 1e-3 and np.all(np.isfinite(gradient))


def test_flat_images_have_finite_gradients(images, judge):
    for constant in (-1.0, 0.0, 1.0):
        flat = jnp.full_like(images[0], constant)
        assert np.all(np.isfinite(judge(flat, images[0])[1]))


def test_vectors_of_any_length(dtype):
    """A zero vector, and one whose square is 0 in float32, is at the distance of the other one."""
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [1e-12, 0.0], [1e18, 0.0]], dtype)
    x, other = x[None, None], jnp.array([0.0, 2.0], dtype).reshape(1, 1, 1, 2)
    weights = jnp.array([0.5, 0.25]).reshape(1, 1, 2, 1)
    found = lpips.compare(x, other, weights)
    assert found.dtype == jnp.float32 and found.shape == (1, 1, 5)
    part = 1e-12 / (1e-12 + lpips.EPSILON)
    expected = [0.5 * 0.6**2 + 0.25 * 0.2**2, 0.25, 0.25, 0.5 * part**2 + 0.25, 0.75]
    np.testing.assert_allclose(found[0, 0], expected, rtol=2e-2 if dtype == "bfloat16" else 1e-6)
    gradient = jax.grad(lambda x: jnp.sum(lpips.compare(x, other, weights)))(x)[0, 0]
    assert np.all(np.isfinite(gradient.astype(jnp.float32)))
    assert not np.any(gradient[1])
    np.testing.assert_allclose(lpips.compare(x, x, weights), 0, atol=1e-7)


def test_comparison_is_its_formula():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 2, 3, 4, 5))
    kernel = rng.random((1, 1, 5, 1))
    unit = [x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in (a, b)]
    expected = np.einsum("bhwc,c->bhw", (unit[0] - unit[1]) ** 2, kernel.ravel())
    close(lpips.compare(*np.float32([a, b]), np.float32(kernel)), expected)


def test_remat_reaches_the_trunk(variables, images):
    """That it changes no number is tested with the trunk."""

    def kept(remat):
        distance = lpips.Distance("bfloat16", remat)
        back = jax.eval_shape(
            lambda v, a, b: jax.vjp(lambda b: distance.apply(v, a, b), b)[1], variables, *images
        )
        return sum(
            x.size * x.dtype.itemsize
            for x in jax.tree.leaves(back)
            if x.shape[:1] == images[0].shape[:1]
        )

    assert kept(True) < 0.65 * kept(False)


def test_an_image_that_is_too_small(variables):
    with pytest.raises(InputError, match="at least 16x16"):
        lpips.Distance().apply(variables, jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 8, 8, 3)))
