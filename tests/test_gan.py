"""Adversarial losses, penalties and factors: their definitions.

The loss of a recorded training step of VQGAN is compared, too.
"""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from discriminator_tables import PATCHGAN_IGNORED, patchgan
from golden_files import files, load
from lpips_table import LPIPS_PACKAGE, LPIPS_PACKAGE_IGNORED

from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.losses import gan, lpips
from evqgan.losses.patchgan import Critic, initialize

REAL, FAKE = np.float32([[2.0, -0.5], [0.25, 1.5]]), np.float32([[-2.0, 0.5], [0.75, -1.5]])


def softplus(x):
    return np.log1p(np.exp(x))


@pytest.mark.parametrize(
    ("name", "of_real", "of_fake", "of_generator"),
    [
        ("hinge", np.maximum(1 - REAL, 0), np.maximum(1 + FAKE, 0), -FAKE),
        ("vanilla", softplus(-REAL), softplus(FAKE), -FAKE),
        ("non_saturating", softplus(-REAL), softplus(FAKE), softplus(-FAKE)),
        ("least_square", (1 - REAL) ** 2, (1 + FAKE) ** 2, FAKE**2),
    ],
)
def test_losses_by_name(name, of_real, of_fake, of_generator):
    for factor in (0.5, 1.0):
        value = gan.critic_loss(name, REAL, FAKE, factor=factor)
        np.testing.assert_allclose(value, factor * (of_real.mean() + of_fake.mean()), rtol=1e-5)
    assert gan.critic_loss(name, REAL, FAKE) == gan.critic_loss(name, REAL, FAKE, factor=0.5)
    np.testing.assert_allclose(gan.generator_loss(name, FAKE), of_generator.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(gan.LOSSES))
def test_what_the_losses_push_where(name):
    """The critic raises D(real) and lowers D(fake).

    The generator raises D(fake) where it is told to be fake.
    """
    fake = jnp.linspace(-0.9, -0.1, 5)
    of_real, of_fake = jax.grad(gan.critic_loss, (1, 2))(name, -fake, fake)
    assert (of_real < 0).all() and (of_fake > 0).all()
    assert (jax.grad(gan.generator_loss, 1)(name, fake) < 0).all()


@pytest.mark.parametrize("name", sorted(gan.LOSSES))
def test_losses_are_float32_and_finite_for_large_logits(name):
    # These numbers are exact in it.
    real, fake = jnp.asarray(REAL, jnp.bfloat16), jnp.asarray(FAKE, jnp.bfloat16)
    assert gan.critic_loss(name, real, fake) == gan.critic_loss(name, REAL, FAKE)
    assert gan.generator_loss(name, fake) == gan.generator_loss(name, FAKE)
    assert (
        gan.critic_loss(name, real, fake).dtype
        == gan.generator_loss(name, fake).dtype
        == jnp.float32
    )
    value, grads = jax.value_and_grad(gan.critic_loss, (1, 2))(
        name, -1e4 * jnp.ones(3), 1e4 * jnp.ones(3)
    )
    assert np.isfinite([value, *np.ravel(grads)]).all()


def test_the_losses_are_those_that_a_config_may_name():
    assert set(gan.LOSSES) == set(get_args(gan.Loss))


def test_r1_of_a_linear_critic_is_its_squared_weights():
    weights = jax.random.normal(jax.random.key(0), (4, 4, 3))
    image = jax.random.normal(jax.random.key(1), (5, 4, 4, 3))
    value = gan.r1(lambda x: jnp.einsum("bhwc,hwc->b", x, weights) + 7, image)
    np.testing.assert_allclose(value, jnp.sum(weights**2), rtol=1e-5)
    # Several logits of an image count as their sum.
    value = gan.r1(
        lambda x: jnp.einsum("bhwc,hwc->b", x, weights)[:, None] * jnp.ones((1, 3)), image
    )
    np.testing.assert_allclose(value, 9 * jnp.sum(weights**2), rtol=1e-5)


def test_r1_of_images_around_0_is_a_quarter_of_that_from_0_to_1():
    """A critic that was given [0, 1] needs four times the weight on images in [-1, 1]."""
    image = jax.random.uniform(jax.random.key(0), (3, 4, 4, 3))
    critic = lambda x: jnp.sum(jnp.sin(3 * x) * x, (1, 2, 3))  # noqa: E731
    ours = gan.r1(lambda x: critic((x + 1) / 2), 2 * image - 1)
    np.testing.assert_allclose(4 * ours, gan.r1(critic, image), rtol=1e-5)


def test_r1_is_a_mean_over_images_and_trains_the_critic():
    image = jax.random.normal(jax.random.key(1), (5, 4, 4, 3))

    def penalty(weight):
        return gan.r1(lambda x: weight * jnp.sum(x**2, (1, 2, 3)), image)

    length = jnp.mean(jnp.sum((2 * image) ** 2, (1, 2, 3)))
    value, grad = jax.value_and_grad(penalty)(3.0)
    np.testing.assert_allclose([value, grad], [9 * length, 6 * length], rtol=1e-5)
    low = gan.r1(lambda x: jnp.sum(x**2, (1, 2, 3)), image.astype(jnp.bfloat16))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, length, rtol=0.02)


def test_lecam_counts_what_lies_beyond_the_other_sides_average():
    averages = {"real": jnp.float32(0.5), "fake": jnp.float32(-0.5)}
    value = gan.lecam(REAL, FAKE, averages)
    expected = (np.maximum(REAL + 0.5, 0) ** 2).mean() + (np.maximum(0.5 - FAKE, 0) ** 2).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    of_real, of_fake, of_averages = jax.grad(gan.lecam, (0, 1, 2))(REAL, FAKE, averages)
    assert (of_real >= 0).all() and (of_fake <= 0).all()  # both scores are drawn together
    assert not any(jax.tree.leaves(of_averages))
    assert gan.lecam(-5 * jnp.ones(2), 5 * jnp.ones(2), averages) == 0


def test_averages_follow_the_scores():
    averages = gan.averages()
    assert averages == {"real": 0, "fake": 0}
    averages = gan.update_ema(averages, REAL, FAKE, decay=0.75)
    averages = gan.update_ema(averages, 2 * REAL, jnp.asarray(2 * FAKE, jnp.bfloat16), decay=0.75)
    for key, logits in (("real", REAL), ("fake", FAKE)):
        np.testing.assert_allclose(
            averages[key], (0.75 * 0.25 + 0.25 * 2) * logits.mean(), rtol=1e-5
        )
        assert averages[key].dtype == jnp.float32
    for _ in range(60):
        averages = gan.update_ema(averages, REAL, FAKE, decay=0.75)
    np.testing.assert_allclose(averages["real"], REAL.mean(), rtol=1e-5)
    moved = jax.grad(lambda real: gan.update_ema(averages, real, FAKE)["real"])(REAL)
    assert not moved.any()


def test_adaptive_weight_is_the_ratio_within_limits():
    np.testing.assert_allclose(gan.adaptive_weight(3.0, 2.0), 3 / 2.0001, rtol=1e-6)
    np.testing.assert_allclose(gan.adaptive_weight(3.0, 2.0, epsilon=1.0), 1, rtol=1e-6)
    assert gan.adaptive_weight(3.0, 2.0, limit=0.5) == 0.5
    assert gan.adaptive_weight(0.0, 0.0) == gan.adaptive_weight(0.0, 1.0) == 0
    np.testing.assert_allclose(gan.adaptive_weight(0.5, 0.0), 0.5e4)
    # The ratio overflows: no harm.
    assert gan.adaptive_weight(3e38, 1e-30) == gan.adaptive_weight(5.0, 0.0) == 1e4


def test_adaptive_weight_is_a_float32_constant_of_any_norms():
    low = gan.adaptive_weight(jnp.bfloat16(3), jnp.bfloat16(0.0))
    assert low.dtype == jnp.float32 and low == gan.adaptive_weight(3.0, 0.0)
    # In bfloat16 the epsilon would be lost beside 1.
    assert gan.adaptive_weight(jnp.bfloat16(1), jnp.bfloat16(1)) == np.float32(1) / np.float32(
        1.0001
    )
    assert jax.grad(gan.adaptive_weight, (0, 1))(3.0, 2.0) == (0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_norms_that_are_not_finite_show_in_the_weight(bad):
    for norms in ((bad, 1.0), (1.0, bad), (bad, bad), (bad, 0.0)):
        assert not np.isfinite(gan.adaptive_weight(*norms))
        assert not np.isfinite(
            gan.adaptive_weight(*(jnp.asarray(norm, jnp.bfloat16) for norm in norms))
        )


def test_ramp():
    assert [float(gan.ramp(step, start=3)) for step in range(6)] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(
        [gan.ramp(step, start=3, length=4) for step in range(10)],
        [0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1],
        rtol=1e-6,
    )
    assert gan.ramp(0, start=0) == 1
    # Beyond float32's whole numbers.
    late = jax.jit(lambda step: gan.ramp(step, 16_777_216, 2))(jnp.int32(16_777_217))
    np.testing.assert_allclose(late, 2 / 3, rtol=1e-6)


# What a whole training step of VQGAN records beside the losses below: the tokenizer's part, and
# lambda, which needs the decoder's gradients.
OF_THE_TOKENIZER = (
    {"enc", "prequant", "indices", "quant", "qloss", "rec", "dec_from_codes"}
    | {"vq_margin_min_median"}
    | {"log_ae/quant_loss", "log_ae/d_weight", "grad_norm_all_ae"}
)
KEYS = {  # the original's defaults
    "disc_start": 0,
    "codebook_weight": 1.0,
    "pixelloss_weight": 1.0,
    "disc_num_layers": 3,
    "disc_in_channels": 3,
    "disc_factor": 1.0,
    "disc_weight": 1.0,
    "perceptual_weight": 1.0,
    "use_actnorm": False,
    "disc_conditional": False,
    "disc_ndf": 64,
    "disc_loss": "hinge",
}


def part(weights, prefix):
    return {
        name.removeprefix(prefix): array
        for name, array in weights.items()
        if name.startswith(prefix)
    }


def losses_of_a_step(critic, distance, keys, factor, given):
    """Losses and logits of the original's step, in its order.

    First the generator's pass, then the critic's on real and on fake.
    """
    image, reconstruction = given["image"], given["reconstruction"]

    def train(params, stats, x):
        logits, changed = critic.apply(
            {"params": params, **stats}, x, train=True, mutable=["batch_stats"]
        )
        return logits, {**stats, **changed}

    params = given["critic"]["params"]
    stats = {k: v for k, v in given["critic"].items() if k != "params"}
    logits, stats = train(params, stats, reconstruction)
    found = {"log_ae/g_loss": gan.generator_loss("hinge", logits), "log_ae/disc_factor": factor}
    weight = keys["perceptual_weight"]
    found["log_ae/p_loss"] = jnp.mean(distance.apply(given["distance"], image, reconstruction)) * (
        weight > 0
    )
    nll = found["log_ae/nll_loss"] = (
        jnp.mean(jnp.abs(image - reconstruction)) + weight * found["log_ae/p_loss"]
    )
    found["log_ae/rec_loss"] = nll  # the original's name for the same
    # The recorded lambda holds disc_weight already.
    adversarial = given["lambda"] * factor * found["log_ae/g_loss"]
    found["aeloss"] = found["log_ae/total_loss"] = (
        nll + adversarial + keys["codebook_weight"] * given["qloss"]
    )

    def loss(params, stats):
        real, stats = train(params, stats, image)
        fake, stats = train(params, stats, reconstruction)
        return factor * gan.critic_loss(keys["disc_loss"], real, fake), (real, fake, stats)

    (value, (real, fake, stats)), grads = jax.value_and_grad(loss, has_aux=True)(params, stats)
    found |= {
        "discloss": value,
        "log_disc/disc_loss": value,
        "grad_norm_disc": optax.tree.norm(grads),
    }
    found |= {"log_disc/logits_real": jnp.mean(real), "log_disc/logits_fake": jnp.mean(fake)}
    logits = critic.apply({"params": params, **stats}, reconstruction)
    return found | {"disc_logits_fake_eval": logits.transpose(0, 3, 1, 2)}, {"params": grads}, stats


@pytest.mark.parametrize("path", files("taming_vqgan*.npz"), ids=lambda path: path.stem)
def test_losses_of_a_recorded_training_step_of_vqgan(path):
    config, weights, inputs, outputs = load(path)
    stated = config["loss"] | {
        key: config[key] for key in ("perceptual_weight", "pixelloss_weight") if key in config
    }
    assert set(stated) <= set(KEYS), (
        f"keys of the loss that are not built: {set(stated) - set(KEYS)}"
    )
    keys = KEYS | stated
    assert keys["disc_in_channels"] == 3 and not keys["disc_conditional"], (
        "conditional critics are not built"
    )
    norm = "act" if keys["use_actnorm"] else "batch"
    critic, distance = Critic(keys["disc_num_layers"], keys["disc_ndf"], norm), lpips.Distance()
    table, image = patchgan(critic.layers, norm), jnp.zeros((1, 96, 96, 3))
    theirs = part(weights, "loss.discriminator.")
    like = jax.eval_shape(critic.init, jax.random.key(0), image)
    given = {"critic": to_ours(table, theirs, like, PATCHGAN_IGNORED)}
    like = jax.eval_shape(distance.init, jax.random.key(0), image, image)["frozen"]
    theirs_perceptual = part(weights, "loss.perceptual_loss.")
    given["distance"] = {
        "frozen": to_ours(LPIPS_PACKAGE, theirs_perceptual, like, LPIPS_PACKAGE_IGNORED)
    }
    given["image"], given["reconstruction"] = (
        x.transpose(0, 2, 3, 1) for x in (inputs["x"], outputs["rec"])
    )
    given["lambda"], given["qloss"] = outputs["log_ae/d_weight"].mean(), outputs["qloss"].mean()
    if any(name.endswith(".initialized") and not flag.any() for name, flag in theirs.items()):
        given["critic"] = initialize(critic, given["critic"], given["reconstruction"])
    factor = keys["disc_factor"] * gan.ramp(config["global_step"], keys["disc_start"])

    ours, grads, stats = jax.jit(
        lambda given: losses_of_a_step(critic, distance, keys, factor, given)
    )(given)
    ours |= {f"grad_disc/{name}": array for name, array in to_theirs(table, grads).items()}
    ours |= {f"disc_after/{name}": array for name, array in to_theirs(table, stats).items()}
    for name, recorded in outputs.items():
        counter = name.endswith((".num_batches_tracked", ".initialized"))
        if not counter and name not in OF_THE_TOKENIZER and not name.startswith("grad/"):
            assert name in ours, f"nothing here computes {name}: build what it records"
            scale = np.abs(recorded).max()
            np.testing.assert_allclose(
                np.reshape(ours[name], recorded.shape),
                recorded,
                rtol=0,
                atol=1e-4 * scale,
                err_msg=name,
            )
