"""The patch critic against recordings of taming-transformers, and by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discriminator_tables import PATCHGAN_IGNORED, patchgan
from golden_files import files, load

from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.core.errors import InputError
from evqgan.losses import gan
from evqgan.losses.patchgan import Critic, initialize


def nhwc(x):
    return jnp.asarray(x).transpose(0, 2, 3, 1)


def close(ours, theirs, tolerance=2e-5):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(
        ours.reshape(theirs.shape), theirs, rtol=0, atol=tolerance * np.abs(theirs).max()
    )


class Recording:
    """A recording, our critic for its config, and its weights under our names."""

    def __init__(self, path):
        config, self.weights, self.inputs, self.outputs = load(path)
        keys = dict(config["disc"])
        assert keys.pop("input_nc") == 3, "our critic judges colour images"
        norm = "act" if keys.pop("use_actnorm") else "batch"
        self.critic = Critic(layers=keys.pop("n_layers"), width=keys.pop("ndf"), norm=norm)
        assert not keys, f"branches of the original that are not built: {keys}"
        self.table = patchgan(self.critic.layers, norm)
        like = jax.eval_shape(self.critic.init, jax.random.key(0), jnp.zeros((1, 96, 96, 3)))
        self.variables = to_ours(self.table, self.weights, like, PATCHGAN_IGNORED)
        self.fresh = any(
            name.endswith(".initialized") and not w.any() for name, w in self.weights.items()
        )
        self.real, self.fake = nhwc(self.inputs["real"]), nhwc(self.inputs["fake"])

    def train(self, variables, image):
        """Logits, and the variables after them."""
        apply = jax.jit(lambda v, x: self.critic.apply(v, x, train=True, mutable=["batch_stats"]))
        logits, changed = apply(variables, image)
        return logits, {**variables, **changed}


@pytest.fixture(scope="module", params=files("taming_disc*.npz"), ids=lambda path: path.stem)
def recording(request):
    return Recording(request.param)


def test_logits_losses_and_statistics_equal_the_originals(recording):
    r, compared = recording, {}
    compared["logits_eval_real"] = nchw(r.critic.apply(r.variables, r.real))
    variables = initialize(r.critic, r.variables, r.real) if r.fresh else r.variables
    real, variables = r.train(variables, r.real)
    fake, variables = r.train(variables, r.fake)
    compared |= {"logits_train_real": nchw(real), "logits_train_fake": nchw(fake)}
    compared |= {name: gan.critic_loss(name, real, fake) for name in ("hinge", "vanilla")}
    compared["g_loss"] = gan.generator_loss("hinge", fake)
    compared |= {f"after/{name}": array for name, array in to_theirs(r.table, variables).items()}
    assert set(r.outputs) <= {*compared, *flags(r.outputs)}, (
        "outputs that no test here compares: build what they record"
    )
    for name in set(r.outputs) - flags(r.outputs):
        close(compared[name], r.outputs[name])


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def flags(names):
    """The original's counters, which we do not keep."""
    return {name for name in names if name.endswith((".num_batches_tracked", ".initialized"))}


def test_weights_go_back_to_the_originals(recording):
    back = to_theirs(recording.table, recording.variables)
    assert set(back) == set(recording.weights) - flags(recording.weights)
    for name, array in back.items():
        np.testing.assert_array_equal(array, recording.weights[name])


# Counted on the originals, taming-transformers and rq-vae-transformer.
@pytest.mark.parametrize(("layers", "count"), [(3, 2_765_633), (2, 663_361)])
def test_parameter_counts(layers, count):
    variables = jax.eval_shape(Critic(layers).init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == count


def test_initial_weights_are_those_of_the_original():
    variables = jax.jit(Critic(2, 64).init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    kernel, scale = variables["params"]["conv2"]["kernel"], variables["params"]["norm2"]["scale"]
    assert abs(float(kernel.std()) - 0.02) < 1e-3 and abs(float(kernel.mean())) < 1e-3
    assert abs(float(scale.std()) - 0.02) < 4e-3 and abs(float(scale.mean()) - 1) < 4e-3
    assert not np.any(variables["params"]["norm2"]["bias"])


def test_a_logit_sees_its_patch_alone():
    """70 pixels with three layers (Isola et al., 2017)."""
    critic = Critic(3, 4)

    def seen(image):
        variables = critic.init(jax.random.key(0), image)
        return jax.grad(lambda x: critic.apply(variables, x)[0, 5, 5, 0])(image)

    rows = np.flatnonzero(np.abs(jax.jit(seen)(jnp.ones((1, 96, 96, 3)))).sum((0, 2, 3)))
    assert rows[-1] - rows[0] + 1 == 70


def test_actnorm_normalizes_the_first_batch_and_stays_from_then_on():
    critic = Critic(1, 4, norm="act")
    image = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = critic.init(jax.random.key(1), image, train=True)
    first = initialize(critic, variables, image)
    before = critic.apply(first, image, mutable=["batch_stats"], capture_intermediates=True)[1][
        "intermediates"
    ]
    (y,) = before["norm1"]["__call__"]
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2), ddof=1), 1, atol=1e-3)
    np.testing.assert_array_equal(
        first["params"]["conv1"]["kernel"], variables["params"]["conv1"]["kernel"]
    )
    _, changed = critic.apply(first, 2 * image, train=True, mutable=["batch_stats"])
    assert not changed.get("batch_stats")


def test_computation_in_bfloat16_keeps_float32_parameters_and_logits():
    image = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = jax.jit(Critic(2, 8).init)(jax.random.key(0), image)

    def train(dtype):
        critic = Critic(2, 8, dtype=dtype)
        return jax.jit(lambda v, x: critic.apply(v, x, train=True, mutable=["batch_stats"]))(
            variables, image
        )

    logits, changed = train("bfloat16")
    assert {x.dtype.name for x in jax.tree.leaves((logits, changed))} == {"float32"}
    expected, _ = train("float32")
    close(logits, expected, 0.1)
    assert np.any(logits != expected)


def test_bad_input_is_named():
    image = jnp.zeros((1, 16, 16, 3))
    with pytest.raises(InputError, match="sees 24 pixels or more, got 16x16"):
        Critic(3).init(jax.random.key(0), image)
