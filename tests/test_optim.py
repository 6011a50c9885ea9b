"""Durations, schedules, weight decay, accumulation and averaged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evqgan.core import build, optim
from evqgan.core.errors import InputError


@pytest.mark.parametrize(
    "duration, steps",
    [
        (7, 7),
        ("1000 steps", 1000),
        ("1,000 steps", 1000),
        ("1 step", 1),
        ("2 epochs", 20),
        ("0.5 epoch", 5),
        ("5%", 10),
    ],
)
def test_durations(duration, steps):
    assert optim.to_steps(duration, examples=100, batch_size=10, total=200) == steps


@pytest.mark.parametrize("duration", ["soon", "10 parsecs", "", "-5", "1.5.2", None])
def test_a_wrong_duration_is_named(duration):
    with pytest.raises(InputError, match="a duration is a number of steps"):
        optim.to_steps(duration, 100, 10, 200)


@pytest.mark.parametrize("kind, middle, end", [("constant", 1.0, 1.0), ("cosine", 0.55, 0.1), ("linear", 0.55, 0.1)])
def test_schedules(kind, middle, end):
    rate = optim.schedule(kind, 1.0, 10, 110, 0.1)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 0.5, 1, middle, end], rtol=1e-5)


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        optim.schedule("cosin", 1.0, 0, 10)


def make(**keys):
    run = {"examples": 100, "batch_size": 10, "total": 100}
    return build.call(optim.optimizer, {"learning_rate": 0.1, **keys}, "config.optimizer", **run)


def test_decay_touches_matrices_by_name_and_not_stacked_biases():
    params = {"blocks": {"out": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((3, 2))}}, "codes": jnp.ones((4, 2))}
    optimizer, _ = make(weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["blocks"]["out"]["kernel"], -0.05, rtol=1e-5)
    assert not updates["blocks"]["out"]["bias"].any() and not updates["codes"].any()


def test_clip_bounds_the_gradient_before_adam():
    params = {"kernel": jnp.zeros((2, 2))}
    grads = {"kernel": jnp.full((2, 2), 100.0)}
    optimizer, _ = make(clip=1.0)
    _, state = optimizer.update(grads, optimizer.init(params), params)
    moment = optax.tree.get(state, "mu")["kernel"]
    np.testing.assert_allclose(moment, 0.1 * 0.5, rtol=1e-5)  # norm 200 becomes 1: 0.5 each; times 1 - b1


def test_a_misspelt_key_is_named():
    with pytest.raises(InputError, match=r"config\.optimizer has no key 'learnin_rate': did you mean 'learning_rate'"):
        build.call(optim.optimizer, {"learnin_rate": 1}, "config.optimizer", examples=1, batch_size=1, total=1)


def test_accumulation_equals_the_whole_batch():
    data = {"x": jax.random.normal(jax.random.key(0), (12, 3)), "y": jax.random.normal(jax.random.key(1), (12,))}
    params = {"kernel": jnp.ones(3)}

    def loss(params, variables, batch, rng):
        error = batch["x"] @ params["kernel"] - batch["y"]
        return jnp.mean(error**2), ({"seen": variables["seen"] + error.size}, {"mean": jnp.mean(error)})

    grad = jax.value_and_grad(loss, has_aux=True)
    variables = {"seen": jnp.zeros((), jnp.int32)}
    whole = grad(params, variables, data, jax.random.key(0))
    parts = jax.jit(optim.accumulated(grad, 4))(params, variables, data, jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), parts, whole)
    assert parts[0][1][0]["seen"] == 12


def test_accumulated_parts_have_their_own_randomness():
    def loss(params, variables, batch, rng):
        return params * jax.random.normal(rng), (variables, {"noise": jax.random.normal(rng)})

    run = optim.accumulated(jax.value_and_grad(loss, has_aux=True), 2)
    (_, (_, metrics)), _ = run(jnp.ones(()), {}, {"x": jnp.zeros((2, 1))}, jax.random.key(3))
    expected = [jax.random.normal(key) for key in jax.random.split(jax.random.key(3))]
    np.testing.assert_allclose(metrics["noise"], np.mean(expected), rtol=1e-6)
    assert expected[0] != expected[1]


def test_averaged_weights_warm_up():
    params, ema = {"x": jnp.ones(())}, {"x": jnp.zeros(())}
    np.testing.assert_allclose(optim.average(ema, params, jnp.int32(0), 0.99)["x"], 0.9, rtol=1e-6)
    np.testing.assert_allclose(optim.average(ema, params, jnp.int32(10**6), 0.99)["x"], 0.01, rtol=1e-4)
