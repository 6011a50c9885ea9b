"""Durations, schedules, weight decay, accumulation and averaged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import Duration
from evqgan.training import optim
from evqgan.training.accumulation import accumulated
from evqgan.training.run_length import RunLength, to_steps
from evqgan.training.skipping import all_finite


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
        ("1_234_000 steps", 1234000),
        ("0.5 epochs", 5),
    ],
)
def test_durations(duration, steps):
    assert to_steps(duration, examples=100, batch_size=10, total=200) == steps
    assert RunLength(examples=100, batch_size=10, total=200).steps(duration) == steps


@pytest.mark.parametrize(
    "duration",
    [
        "soon",
        "10 parsecs",
        "",
        "-5",
        "1.5.2",
        None,
        "0,5 epochs",
        "1,5",
        "10,20",
        "1,,000",
        "5.",
        "1_0",
    ],
)
def test_a_wrong_duration_is_named(duration):
    with pytest.raises(InputError, match="a duration is a number of steps"):
        to_steps(duration, 100, 10, 200)


@pytest.mark.parametrize("duration", ["9" * 400, "3,000,000,000 steps"])
def test_no_duration_has_more_steps_than_are_counted(duration):
    assert not Duration().holds(duration) and Duration().holds("2,000,000,000 steps")
    config = ConfigDict({"duration": "2,000,000,000 epochs", "batch_size": 1})
    with pytest.raises(InputError, match="is 20,000,000,000 steps, of 2,147,483,647 at most"):
        RunLength.of(config, 10)


def test_a_share_of_nothing_is_named_as_that():
    config = ConfigDict({"duration": "5%", "batch_size": 10})
    with pytest.raises(InputError, match="config.duration: '5%' would be a share of the whole run"):
        RunLength.of(config, 100)


@pytest.mark.parametrize(
    "kind, middle, end", [("constant", 1.0, 1.0), ("cosine", 0.55, 0.1), ("linear", 0.55, 0.1)]
)
def test_schedules(kind, middle, end):
    rate = optim.schedule(kind, 1.0, 10, 110, 0.1)
    np.testing.assert_allclose(
        [rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 0.5, 1, middle, end], rtol=1e-5
    )


def test_exponential_decay_begins_after_the_peak_was_held():
    rate = optim.schedule("exponential", 1.0, 10, 120, 0.01, hold=10)
    np.testing.assert_allclose([rate(n) for n in (5, 10, 15, 20)], [0.5, 1, 1, 1], rtol=1e-5)
    np.testing.assert_allclose([rate(70), rate(120), rate(500)], [0.1, 0.01, 0.01], rtol=1e-4)
    with pytest.raises(InputError, match="final above 0"):
        optim.schedule("exponential", 1.0, 0, 10)
    run = RunLength(1, 1, 100)
    made = optim.optimizer(1.0, warmup="10%", hold="20 steps", decay="linear", run=run).adamw
    assert [float(made.rate(n)) for n in (10, 29)] == [1, 1] and 0 < float(made.rate(80)) < 1


RUN = RunLength(examples=100, batch_size=10, total=100)


def make(**keys):
    return optim.updater({"learning_rate": 0.1, **keys}, "config.optimizer", RUN, ema=0.9)


def test_a_warm_up_as_long_as_the_run_or_its_extension_is_noted():
    assert make(warmup="99 steps").note == make(warmup="5%").note == ""
    assert "warms up for 100 steps, and these are 100: it does not" in make(warmup="10 epochs").note
    longer = RunLength(examples=100, batch_size=10, total=150, began=100)
    made = optim.updater({"learning_rate": 0.1, "warmup": 60}, "config.optimizer", longer)
    assert "warms up for 60 steps, and these are 50: it does not come to its peak, 0.1" in made.note


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return {"blocks": {"out": {"kernel": draw(3, 2, 2), "bias": draw(3, 2)}}, "codes": draw(4, 2)}


def test_decay_touches_matrices_by_name_and_not_stacked_biases():
    params, updater = tree(0), make(weight_decay=0.5)
    new, _ = updater.step(
        updater.init(params), jax.tree.map(jnp.zeros_like, params), jnp.int32(0), jnp.bool_(True)
    )
    moved = jax.tree.map(lambda a, b: a - b, new["params"], params)
    np.testing.assert_allclose(
        moved["blocks"]["out"]["kernel"], -0.05 * params["blocks"]["out"]["kernel"], rtol=1e-5
    )
    assert not moved["blocks"]["out"]["bias"].any() and not moved["codes"].any()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_steps_are_those_of_optax(clip):
    keys = {
        "b1": 0.8,
        "b2": 0.95,
        "weight_decay": 0.1,
        "clip": clip,
        "warmup": "3 steps",
        "decay": "cosine",
    }
    updater, params = make(**keys), tree(0)
    part, step = updater.init(params), jax.jit(updater.step)
    rate = optim.schedule("cosine", 0.1, 3, 100)
    chain = [optax.clip_by_global_norm(clip)] if clip else []
    theirs = optax.chain(
        *chain, optax.adamw(rate, b1=0.8, b2=0.95, weight_decay=0.1, mask=optim.is_decayed)
    )
    state, ema = theirs.init(params), params
    for i in range(8):
        grads = tree(i + 1, scale=3.0 if i % 2 else 0.01)  # clipped, and not
        updates, state = theirs.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        ema = optax.incremental_update(params, ema, 1 - min(0.9, (1 + i) / (10 + i)))
        part, metrics = step(part, grads, jnp.int32(i), jnp.bool_(True))
        np.testing.assert_allclose(metrics["learning_rate"], rate(i), rtol=1e-6)
        np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(grads), rtol=1e-6)
    for ours, other in (
        (part["params"], params),
        (part["ema"], ema),
        (part["opt"]["nu"], optax.tree.get(state, "nu")),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, other
        )
    assert int(part["opt"]["count"]) == 8


def test_a_step_that_must_not_go_changes_no_bit_whatever_the_gradients():
    updater = make(weight_decay=0.1, clip=1.0)
    part, _ = updater.step(updater.init(tree(0)), tree(1), jnp.int32(0), jnp.bool_(True))
    grads = jax.tree.map(lambda x: x.at[..., 0].set(jnp.nan), tree(2))
    assert not all_finite({"loss": jnp.ones(())}, grads) and not all_finite(
        {"loss": jnp.array(jnp.inf)}, tree(1)
    )
    assert all_finite({"loss": jnp.ones(())}, tree(1))
    same, _ = jax.jit(updater.step)(part, grads, jnp.int32(1), jnp.bool_(False))
    jax.tree.map(np.testing.assert_array_equal, same, part)
    moved, _ = jax.jit(updater.step)(part, tree(2), jnp.int32(1), jnp.bool_(True))
    assert not np.array_equal(moved["params"]["codes"], part["params"]["codes"])


def test_a_first_moment_in_bfloat16_changes_little():
    whole, half = make(), make(moment_dtype="bfloat16")
    a, b = whole.init(tree(0)), half.init(tree(0))
    for i in range(5):
        a, b = (
            u.step(part, tree(i), jnp.int32(i), jnp.bool_(True))[0]
            for u, part in ((whole, a), (half, b))
        )
    assert {x.dtype.name for x in jax.tree.leaves(b["opt"]["mu"])} == {"bfloat16"}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=0.01), a["params"], b["params"])
    with pytest.raises(InputError, match="one of float32, bfloat16, got 'float16'"):
        make(moment_dtype="float16")


def test_a_first_moment_in_bfloat16_has_the_mean_of_the_gradients():
    """It is computed in float32: in bfloat16 a decay of 0.99 is 0.9883, and the mean 0.85."""
    updater = make(moment_dtype="bfloat16", b1=0.99)
    params = {"kernel": jnp.zeros(8192)}
    step = jax.jit(updater.step)
    part, key = updater.init(params), jax.random.key(0)
    for i in range(600):
        grads = {"kernel": 1.0 + jax.random.normal(jax.random.fold_in(key, i), (8192,))}
        part, _ = step(part, grads, jnp.int32(i), jnp.bool_(True))
    mean = part["opt"]["mu"]["kernel"].astype(jnp.float32).mean()
    np.testing.assert_allclose(mean, 1 - 0.99**600, atol=0.02)


def test_a_misspelt_key_is_named():
    with pytest.raises(
        InputError,
        match=r"config\.optimizer has no key 'learnin_rate': did you mean 'learning_rate'",
    ):
        build.call(optim.optimizer, {"learnin_rate": 1}, "config.optimizer", run=RUN)


def test_accumulation_equals_the_whole_batch():
    data = {
        "x": jax.random.normal(jax.random.key(0), (12, 3)),
        "y": jax.random.normal(jax.random.key(1), (12,)),
    }
    params = {"kernel": jnp.ones(3)}

    def loss(params, variables, batch, rng):
        error = batch["x"] @ params["kernel"] - batch["y"]
        return jnp.mean(error**2), (
            {"seen": variables["seen"] + error.size},
            {"mean": jnp.mean(error)},
        )

    grad = jax.value_and_grad(loss, has_aux=True)
    variables = {"seen": jnp.zeros((), jnp.int32)}
    whole = grad(params, variables, data, jax.random.key(0))
    parts = jax.jit(accumulated(grad, 4))(params, variables, data, jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), parts, whole)
    assert parts[0][1][0]["seen"] == 12


def test_accumulated_parts_have_their_own_randomness():
    def loss(params, variables, batch, rng):
        return params * jax.random.normal(rng), (variables, {"noise": jax.random.normal(rng)})

    run = accumulated(jax.value_and_grad(loss, has_aux=True), 2)
    (_, (_, metrics)), _ = run(jnp.ones(()), {}, {"x": jnp.zeros((2, 1))}, jax.random.key(3))
    expected = [jax.random.normal(key) for key in jax.random.split(jax.random.key(3))]
    np.testing.assert_allclose(metrics["noise"], np.mean(expected), rtol=1e-6)
    assert expected[0] != expected[1]


def test_averaged_weights_warm_up():
    np.testing.assert_allclose(optim.average_decay(jnp.int32(0), 0.99), 0.1, rtol=1e-6)
    np.testing.assert_allclose(optim.average_decay(jnp.int32(10**6), 0.99), 0.99, rtol=1e-4)
