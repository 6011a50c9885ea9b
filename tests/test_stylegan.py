"""The StyleGAN critics of ViT-VQGAN and MaskGIT, tested in two ways.

They are compared with recordings of the originals, and their properties are checked.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discriminator_tables import MASKGIT, STYLEGAN, STYLEGAN_IGNORED
from golden_files import files, load

from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.core.errors import InputError
from evqgan.losses import gan, maskgit, stylegan
from evqgan.losses.stylegan import blur, minibatch_deviation


def close(ours, theirs, tolerance=1e-4):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(
        ours.reshape(theirs.shape), theirs, rtol=0, atol=tolerance * np.abs(theirs).max()
    )


def converted(critic, table, weights, side, ignored=()):
    like = jax.eval_shape(critic.init, jax.random.key(0), jnp.zeros((4, side, side, 3)))
    return to_ours(table, weights, like, ignored)


def judged(critic, variables, real, fake):
    """Logits of both, and R1."""

    def run(variables, real, fake):
        def judge(image):
            return critic.apply(variables, image, train=True)

        return judge(real), judge(fake), gan.r1(judge, real)

    return jax.jit(run)(variables, real, fake)


def compare(recorded, ours):
    """R1 to 1e-3, as it is of gradients.

    One leaky ReLU at its kink moves it by 1.4e-4, measured at nudged images.
    """
    assert set(recorded) <= set(ours), "outputs that no test here compares: build what they record"
    for name, array in recorded.items():
        close(ours[name], array, 1e-3 if name.startswith("r1") else 1e-4)


def every_weight_goes_back(table, weights, variables, ignored=()):
    back = to_theirs(table, variables)
    assert set(back) == {name for name in weights if not name.endswith(ignored)}
    for name, array in back.items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize("path", files("vitvqgan_stylegan_disc*.npz"), ids=lambda path: path.stem)
def test_logits_and_losses_equal_those_of_enhancing_transformers(path):
    config, weights, inputs, outputs = load(path)
    critic = stylegan.Critic(config["channel_multiplier"])
    variables = converted(critic, STYLEGAN, weights, config["size"], STYLEGAN_IGNORED)
    for name in weights:
        if name.endswith(".kernel"):
            np.testing.assert_allclose(
                weights[name], np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64, atol=1e-7
            )
    real, fake, r1 = judged(
        critic, variables, *(inputs[key].transpose(0, 2, 3, 1) for key in ("real", "fake"))
    )
    ours = {"logits_real": real, "logits_fake": fake, "r1_gradnorm": r1}
    for theirs, name in (
        ("vanilla", "non_saturating"),
        ("hinge", "hinge"),
        ("least_square", "least_square"),
    ):
        ours |= {
            f"d_{theirs}": gan.critic_loss(name, real, fake),
            f"g_{theirs}": gan.generator_loss(name, fake),
        }
    compare(outputs, ours)
    every_weight_goes_back(STYLEGAN, weights, variables, ".kernel")


@pytest.mark.parametrize("path", files("maskgit_disc*.npz"), ids=lambda path: path.stem)
def test_logits_and_losses_equal_those_of_maskgit(path):
    config, weights, inputs, outputs = load(path)
    keys = config["disc"]
    critic = maskgit.Critic(channel_multiplier=keys["cm"], blur=keys["blur"])
    variables = converted(critic, MASKGIT, weights, keys["image_size"])
    real, fake, r1 = judged(critic, variables, inputs["real"], inputs["fake"])
    ours = {"logits_real": real, "logits_fake": fake, "r1": 10 * r1}  # 10: the recording's weight
    for theirs, name in (("non-saturating", "non_saturating"), ("hinge", "hinge")):
        ours[f"d_loss/{theirs}"] = gan.critic_loss(name, real, fake, factor=1)
        ours[f"g_loss/{theirs}"] = gan.generator_loss(name, fake)
    x = inputs["blur"]
    ours |= {f"blurpool{size}": blur(x, size, stride=2) for size in (3, 4, 5, 6, 7)}
    ours["dsample"] = maskgit.downsample(x, blurred=False)
    ours["upsample"] = x.repeat(2, 1).repeat(2, 2)  # the tokenizer's, recorded here
    compare(outputs, ours)
    every_weight_goes_back(MASKGIT, weights, variables, ())


# Counted on the originals (enhancing-transformers' config, MaskGIT's vqgan_config)
@pytest.mark.parametrize(("module", "count"), [(stylegan, 28_864_129), (maskgit, 23_998_017)])
def test_parameter_counts(module, count):
    variables = jax.eval_shape(module.Critic().init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
    assert set(variables) == {"params"}
    assert sum(p.size for p in jax.tree.leaves(variables)) == count


@pytest.mark.parametrize("module", [stylegan, maskgit])
def test_widths_by_side(module):
    """StyleGAN2's table of channels, with its multiplier."""
    critic = module.Critic(channel_multiplier=2)
    params = jax.eval_shape(critic.init, jax.random.key(0), jnp.zeros((1, 1024, 1024, 3)))["params"]
    blocks = sorted(name for name in params if name.startswith("block"))
    widths = [
        params["conv_in"]["bias"].size,
        *(params[name]["conv2"]["bias"].size for name in blocks),
    ]
    assert widths == [32, 64, 128, 256, 512, 512, 512, 512, 512]


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 1), (4, 2)])
def test_blur_is_a_depthwise_convolution(size, stride):
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    taps = {3: [1, 2, 1], 4: [1, 3, 3, 1]}[size]
    kernel = np.outer(taps, taps) / np.sum(taps) ** 2
    kernel = np.float32(np.broadcast_to(kernel[:, :, None, None], (size, size, 1, 3)))
    for padding in ("SAME", 2):
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding if padding == "SAME" else ((2, 2), (2, 2)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )
        close(blur(x, size, stride, padding), y, 1e-6)


@pytest.mark.parametrize(
    ("batch", "groups"), [(1, 1), (2, 1), (3, 1), (4, 1), (6, 1), (7, 1), (8, 2), (10, 2), (12, 3)]
)
def test_minibatch_deviation_by_group(batch, groups):
    """Image i belongs to group i modulo the number of groups.

    Odd batches make larger groups, as in the original.
    """
    x = np.asarray(jax.random.normal(jax.random.key(0), (batch, 4, 4, 5)))
    y = minibatch_deviation(x)
    np.testing.assert_array_equal(y[..., :5], x)
    for group in range(groups):
        one = np.sqrt(x[group::groups].var(0) + 1e-8).mean()
        np.testing.assert_allclose(
            y[group::groups, ..., 5], np.full((batch // groups, 4, 4), one), rtol=1e-5
        )


def test_minibatch_deviation_sees_a_collapse_and_has_a_finite_gradient_there():
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 4, 4, 5)), (4, 4, 4, 5))
    assert float(minibatch_deviation(x)[..., -1].max()) < 2e-4
    assert np.isfinite(jax.grad(lambda x: jnp.sum(minibatch_deviation(x)))(x)).all()


def test_a_batch_that_the_original_cannot_group():
    with pytest.raises(InputError, match="a batch that is a multiple of 4, got 9"):
        minibatch_deviation(jnp.zeros((9, 4, 4, 5)))


@pytest.mark.parametrize("module", [stylegan, maskgit])
@pytest.mark.parametrize("shape", [(1, 24, 24, 3), (1, 16, 8, 3)])
def test_sides_that_do_not_halve_down_to_4(module, shape):
    with pytest.raises(InputError, match="square images of side 4, 8, 16"):
        jax.eval_shape(module.Critic().init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize("module", [stylegan, maskgit])
def test_computation_in_bfloat16_keeps_float32_parameters_and_logits(module):
    image = jnp.zeros((2, 8, 8, 3))
    logits, variables = jax.eval_shape(
        module.Critic(dtype="bfloat16").init_with_output, jax.random.key(0), image
    )
    assert logits.shape == (2,)
    assert {x.dtype.name for x in jax.tree.leaves((logits, variables))} == {"float32"}


@pytest.mark.parametrize("width", [4, 64])
def test_equalized_weights_keep_the_scale_and_are_all_of_size_one(width):
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, width))
    y, variables = stylegan.Conv(128, 3).init_with_output(jax.random.key(1), x)
    assert abs(float(variables["params"]["kernel"].std()) - 1) < 0.05
    assert abs(float(jnp.mean(y**2)) - 1) < 0.15
