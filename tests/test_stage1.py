"""Training a tokenizer: what one step does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_configs import load

from evqgan.core import mesh
from evqgan.core.errors import InputError
from evqgan.data import generated
from evqgan.losses.pixels import logit_laplace_loss
from evqgan.training import stage1


def config_of(**quantizer):
    """A tokenizer of one narrow block a stage, without weight decay.

    Only gradients move weights.
    """
    config = load("quickstart", "tiny").tokenizer
    for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
        coder.depths = (1,)
    config.tokenizer.quantizer = {"name": "vq", "codes": 16, "width": 8, **quantizer}
    config.optimizer.update({"weight_decay": 0.0, "decay": "constant", "learning_rate": 1e-3})
    config.duration = "100 steps"
    return config


def batch_of(size=8):
    images = np.stack([generated.draw(i, i % 10, (32, 32)) for i in range(size)])
    return {"image": images, "label": np.arange(size, dtype=np.int32) % 10}


@pytest.fixture(scope="module")
def compiled():
    """config -> stage, init, update, compiled once for each config.

    Nothing is donated, so that states compare.
    """
    known = {}

    def get(config):
        key = config.to_json()
        if key not in known:
            stage = stage1.make(config)
            known[key] = stage, jax.jit(stage.init), jax.jit(stage.update)
        return known[key]

    return get


def different(a, b):
    """The paths of the arrays that differ."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True)
    return {mesh.path_name(path) for (path, x), y in pairs if not np.array_equal(x, y)}


def test_the_loss_falls_and_every_part_learns(compiled):
    config = config_of()
    _, init, update = compiled(config)
    start = state = init()
    losses = []
    for _ in range(20):
        state, metrics = update(state, batch_of())
        losses.append(float(metrics["l2"]))
        assert all(np.isfinite(float(value)) for value in metrics.values())
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    assert int(state["step"]) == 20
    assert different(start["params"], state["params"]) == {
        mesh.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(start["params"])
    }
    parts = {name.split("/")[0] for name in different(start["params"], state["params"])}
    assert parts == {"encoder", "decoder", "quantizer", "to_codes"}
    assert metrics["loss"] == pytest.approx(
        float(metrics["l2"] + metrics["quantizer_loss"]), rel=1e-5
    )


def test_a_step_is_a_function_of_state_and_batch(compiled):
    _, init, update = compiled(config_of())
    state = init()
    assert not different(init(), state)
    first, second = update(state, batch_of()), update(state, batch_of())
    assert not different(first, second)
    # Warm-up and averaging go on.
    assert different(first, update({**state, "step": state["step"] + 1}, batch_of()))


def test_averaged_weights_follow(compiled):
    _, init, update = compiled(config_of())
    state = init()
    for step in range(3):
        new, _ = update(state, batch_of())
        decay = min(0.99, (1 + step) / (10 + step))
        expected = jax.tree.map(
            lambda e, p, d=decay: d * e + (1 - d) * p, state["ema"], new["params"]
        )
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
            new["ema"],
            expected,
        )
        state = new


def test_averaged_weights_are_what_is_evaluated(compiled):
    stage, init, _ = compiled(config_of())
    state, batch = init(), batch_of()
    predict = jax.jit(stage.model.predict)
    out = predict(state, batch, jax.random.key(0))
    assert out["reconstruction"].shape == (8, 32, 32, 3) and out["reconstruction"].dtype == np.uint8
    assert out["ids"].shape == (8, 8, 8, 1) and out["ids"].dtype == np.int32
    zeros = jax.tree.map(np.zeros_like, state["params"])
    assert not different(predict({**state, "params": zeros}, batch, jax.random.key(0)), out)
    assert different(predict({**state, "ema": zeros}, batch, jax.random.key(0)), out)


def test_a_codebook_of_averages_moves_without_gradient(compiled):
    _, init, update = compiled(config_of(name="ema", decay=0.9, revive=0.1))
    state = init()
    new, _ = update(state, batch_of())
    assert not [name for name in different(state["params"], new["params"]) if "quantizer" in name]
    assert different(state["codebook"], new["codebook"]) == {
        "quantizer/codes",
        "quantizer/total",
        "quantizer/usage",
    }
    again, _ = update({**state, "step": state["step"] + 1}, batch_of())
    # Revived from others of the batch.
    assert "quantizer/codes" in different(new["codebook"], again["codebook"])


@pytest.mark.parametrize("parts", [1, 4])
def test_a_revived_code_starts_anew_in_weights_averages_and_moments(compiled, parts):
    config = config_of(name="revived", revive=0.1)
    config.optimizer.accumulate, config.batch_size = parts, 8
    _, init, update = compiled(config)
    state = init()
    for _ in range(2):
        state, metrics = update(state, batch_of())
    assert metrics["revived"] == 0  # the first step seeded all codes
    noted = state["codebook"]["quantizer"]
    state["codebook"] = {"quantizer": {**noted, "usage": noted["usage"].at[0, 3].set(-1.0)}}
    new, metrics = update(state, batch_of())
    noted = new["codebook"]["quantizer"]
    assert float(metrics["revived"]) * parts == 1 and not np.any(noted["dead"])

    def codes(state):
        trees = state["params"], state["ema"], state["opt"]["mu"], state["opt"]["nu"]
        return np.stack([tree["quantizer"]["codebook"][0] for tree in trees])

    before, after, seed = codes(state), codes(new), noted["seeds"][0, 3]
    np.testing.assert_array_equal(after[:, 3], [seed, seed, np.zeros(8), np.zeros(8)])
    assert not np.allclose(before[0, 3], seed, atol=1e-2)
    others = np.arange(16) != 3
    np.testing.assert_allclose(after[:2, others], before[:2, others], atol=2e-3)  # a step is 1e-3
    assert np.any(after[3, others] != 0)


def test_a_step_that_is_skipped_revives_nothing(compiled):
    _, init, update = compiled(config_of(name="revived", revive=0.1))
    state = init()
    state["params"]["decoder"] = jax.tree.map(lambda x: x * np.nan, state["params"]["decoder"])
    new, metrics = update(state, batch_of())
    assert metrics["skipped"] == 1
    for part in ("codebook", "opt"):
        assert not different(state[part], new[part])
    for part in ("params", "ema"):
        assert not different(state[part]["quantizer"], new[part]["quantizer"])


def test_parts_of_a_batch_add_up_to_it(compiled):
    config = config_of()
    _, init, update = compiled(config)
    config.optimizer.accumulate, config.batch_size = 4, 8
    _, _, in_parts = compiled(config)
    (whole, metrics), (parts, others) = update(init(), batch_of()), in_parts(init(), batch_of())
    for name in ("loss", "l2", "quantizer_loss", "gradient_norm"):
        assert float(others[name]) == pytest.approx(float(metrics[name]), rel=1e-4)
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), whole["ema"], parts["ema"])
    # A tenth of a step: Adam divides small gradients by themselves.
    assert max(jax.tree.leaves(moved)) < 1e-4


def test_pixel_losses_add_up_by_their_weights(compiled):
    config = config_of()
    config.loss = {"l2": 0.5, "l1": 0.25, "logit_laplace": 0.125}
    stage, init, update = compiled(config)
    assert "0.125 x logit_laplace" in stage.notes[0]
    _, m = update(init(), batch_of())
    total = 0.5 * m["l2"] + 0.25 * m["l1"] + 0.125 * m["logit_laplace"] + m["quantizer_loss"]
    assert m["logit_laplace"] > 0 and float(m["loss"]) == pytest.approx(float(total), rel=1e-5)
    assert stage1.pixel_losses(l2=0.0) == {} and stage1.pixel_losses() == {"l2": 1.0}


def test_logit_laplace_is_the_negative_log_density():
    """Of DALL-E's appendix A.3, with b = 1, less its value where reconstruction is image."""
    rng = np.random.default_rng(0)
    image, reconstruction = rng.uniform(-1, 1, (2, 3, 8, 8, 3))

    def phi(x):
        return 0.1 + 0.8 * (x + 1) / 2

    def logit(x):
        return np.log(x / (1 - x))

    def density(x, mu, b=1.0):
        return np.exp(-np.abs(logit(x) - mu) / b) / (2 * b * x * (1 - x))

    x, r = phi(image), phi(reconstruction)
    places = np.linspace(1e-6, 1 - 1e-6, 1_000_001)
    # A density it is.
    assert np.trapezoid(density(places, 0.7), places) == pytest.approx(1, abs=1e-3)
    expected = np.mean(np.log(density(x, logit(x))) - np.log(density(x, logit(r))))
    ours = logit_laplace_loss(*np.float32([reconstruction, image]))
    assert ours.dtype == np.float32 and float(ours) == pytest.approx(expected, rel=1e-5)


def test_logit_laplace_pulls_towards_the_image_and_is_finite_everywhere():
    image = np.float32([-1, -0.5, 0, 0.5, 1]).repeat(7).reshape(5, 7)
    loss = jax.jit(jax.value_and_grad(logit_laplace_loss))
    assert loss(image, image)[0] == 0
    inside = np.float32(np.linspace(-1.2, 1.2, 7))[None].repeat(5, 0)
    inside = np.where(inside == image, inside + 0.01, inside)
    np.testing.assert_array_equal(np.sign(loss(inside, image)[1]), np.sign(inside - image))
    far = np.float32([-np.inf, -1e30, -3, -1.25, 1.25, 3, np.inf])[None].repeat(5, 0)
    value, gradient = loss(far, image)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    values = [
        float(logit_laplace_loss(jnp.float32(x), jnp.float32(0.2)))
        for x in (0.3, 0.9, 1.1, 1.2, 1.3, 9)
    ]
    # The farther the larger, to the edge.
    assert values == sorted(values) and values[-1] == values[-2] > values[-3]


@pytest.mark.parametrize(
    "section, changes, message",
    [
        (
            "optimizer",
            {"learningrate": 1.0},
            "optimizer has no key 'learningrate': did you mean 'learning_rate'",
        ),
        ("optimizer", {"decay": "cosin"}, "did you mean 'cosine'"),
        ("optimizer", {"warmup": "soon"}, "config.optimizer.warmup expects a number of steps"),
        (
            "loss",
            {"logit_laplac": 0.1},
            "config.loss has no key 'logit_laplac': did you mean 'logit_laplace'",
        ),
        (
            "tokenizer",
            {"quantiser": {}},
            "config.tokenizer has no key 'quantiser': did you mean 'quantizer'",
        ),
        ("dataset", {"sise": 3}, "config.dataset has no key 'sise': did you mean 'size'"),
    ],
)
def test_wrong_keys_are_named(section, changes, message):
    config = config_of()
    config.update({section: changes})
    with pytest.raises(InputError, match=message):
        stage1.make(config)
