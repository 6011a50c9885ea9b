"""Generator against critic: the adaptive weight and every gradient, computed explicitly too."""

import functools
import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from test_stage1 import batch_of, config_of, different

from evqgan.core import weights
from evqgan.core.errors import InputError
from evqgan.data import transforms
from evqgan.losses import gan, lpips, patchgan
from evqgan.tokenizers import swin
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import stage1

CRITIC = {"name": "patchgan", "layers": 1, "width": 4}


class Distance(nn.Module):
    """Stand in for LPIPS, which takes long to compile.

    The distance is the squared difference of fixed random features.
    """

    dtype: Any = "float32"

    @nn.compact
    def __call__(self, a, b):
        kernel = self.variable(
            "frozen", "kernel", lambda: jax.random.normal(self.make_rng("params"), (4, 4, 3, 8))
        )
        numbers = ("NHWC", "HWIO", "NHWC")
        x, y = (
            nn.relu(
                jax.lax.conv_general_dilated(
                    x, kernel.value, (2, 2), "SAME", dimension_numbers=numbers
                )
            )
            for x in (a, b)
        )
        return jnp.mean(jnp.square(x - y), (1, 2, 3))


@pytest.fixture(scope="module", autouse=True)
def small_distance():
    """A perceptual distance of one convolution, in the place of LPIPS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lpips, "Distance", Distance)
        yield


def judged(remat=False, **changes):
    """A tiny tokenizer's config with a perceptual and an adversarial term.

    Critic and generator are at work from step 0.
    """
    config = config_of(name="ema", decay=0.9)
    for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
        coder.update({"depths": (2,) if remat else (1,), "remat": remat})
    config.perceptual = {"distance": {"name": "lpips"}, "weight": 0.5, "weights": "random"}
    config.adversarial = {"critic": dict(CRITIC), "optimizer": {"learning_rate": 1e-3}, **changes}
    return config


@functools.cache
def beginning(remat=False):
    """The state in which all these configs begin."""
    return jax.jit(stage1.make(judged(remat)).init)()


def updating(config):
    """The step of a config, traced and compiled once for each config. It donates nothing."""
    return compiled(config.to_json())


@functools.cache
def compiled(config):
    return jax.jit(stage1.make(ConfigDict(json.loads(config))).update)


class Explicit:
    """The losses of a state and a batch, each as a function of all params.

    The critic is in training mode.
    """

    def __init__(self, config, state, batch):
        self.model = tokenizers.make(config.tokenizer)
        self.state = state
        self.image = transforms.scale(batch["image"])
        self.critic = patchgan.Critic(layers=1, width=4)
        self.distance = Distance()
        self.stats = state["critic"]["variables"]["batch_stats"]

    def reconstruct(self, params):
        given = {"params": params, "codebook": self.state["codebook"]}
        (reconstruction, _, aux), _ = self.model.apply(
            given, self.image, train=True, mutable=["codebook"]
        )
        return reconstruction, aux["quantizer_loss"]

    def logits(self, params, image, stats):
        given = {"params": params, "batch_stats": stats}
        return self.critic.apply(given, image, train=True, mutable=["batch_stats"])

    def reconstruction(self, params):
        found, _ = self.reconstruct(params)
        frozen = {"frozen": self.state["frozen"]["perceptual"]}
        return jnp.mean((found - self.image) ** 2) + 0.5 * jnp.mean(
            self.distance.apply(frozen, self.image, found)
        )

    def adversarial(self, params):
        logits, _ = self.logits(
            self.state["critic"]["params"], self.reconstruct(params)[0], self.stats
        )
        return -jnp.mean(logits)

    def critics(self, params):
        real, changed = self.logits(params, self.image, self.stats)
        fake, changed = self.logits(
            params, self.reconstruct(self.state["params"])[0], changed["batch_stats"]
        )
        return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))), changed[
            "batch_stats"
        ]


def norm(tree):
    return np.sqrt(sum(np.sum(np.square(np.asarray(x, np.float64))) for x in jax.tree.leaves(tree)))


def assert_same_step(start, first, second, key):
    """Two programs have taken the same step, up to their roundings, which Adam makes larger."""

    def step(a, b):
        return jax.tree.map(lambda x, y: np.float32(x) - np.float32(y), a[key], b[key])

    assert norm(step(first, second)) < 1e-2 * norm(step(first, start))


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_weight_and_gradients_are_those_of_the_explicit_losses(remat):
    config, state, batch = judged(remat), beginning(remat), batch_of(2)
    _, metrics = updating(config)(state, batch)
    explicit = Explicit(config, state, batch)

    near, far = (
        jax.jit(jax.grad(f))(state["params"])
        for f in (explicit.reconstruction, explicit.adversarial)
    )
    last = [norm(grads["decoder"]["to_rgb"]["kernel"]) for grads in (near, far)]
    weight = 0.8 * last[0] / (last[1] + 1e-4)
    assert float(metrics["reconstruction_gradient"]) == pytest.approx(last[0], rel=1e-3)
    assert float(metrics["adversarial_gradient"]) == pytest.approx(last[1], rel=1e-3)
    assert float(metrics["lambda"]) == pytest.approx(weight, rel=1e-3)

    quantizer = jax.jit(jax.grad(lambda params: explicit.reconstruct(params)[1]))(state["params"])
    total = jax.tree.map(lambda a, b, c: a + weight * b + c, near, far, quantizer)
    assert float(metrics["gradient_norm"]) == pytest.approx(norm(total), rel=1e-3)

    def whole(params):
        return (
            explicit.reconstruction(params)
            + weight * explicit.adversarial(params)
            + explicit.reconstruct(params)[1]
        )

    loss = jax.jit(whole)(state["params"])
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-4)
    grads, _ = jax.jit(jax.grad(explicit.critics, has_aux=True))(state["critic"]["params"])
    assert float(metrics["critic_gradient_norm"]) == pytest.approx(norm(grads), rel=1e-3)


def test_nothing_flows_where_it_must_not():
    """Frozen networks stay, and the critic's step is that of its own loss.

    The critic's statistics are of its own two passes.
    """
    config, state, batch = judged(), beginning(), batch_of(2)
    new, _ = updating(config)(state, batch)
    assert not different(state["frozen"], new["frozen"])
    _, stats = jax.jit(Explicit(config, state, batch).critics)(state["critic"]["params"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        new["critic"]["variables"]["batch_stats"],
        stats,
    )
    # Of the generator's adversarial loss, not the critic's.
    other, _ = updating(judged(weight=50.0))(state, batch)
    assert_same_step(state["critic"], new["critic"], other["critic"], "params")
    assert different(new["params"], other["params"])


def test_no_term_is_lost():
    """The loss is the sum of its terms, and every weight moves the tokenizer."""
    base, state, batch = judged(adaptive=False, weight=0.3), beginning(), batch_of(2)
    base.loss = {"l2": 0.7, "l1": 0.2}
    new, metrics = updating(base)(state, batch)
    m = {name: float(value) for name, value in metrics.items()}
    total = (
        0.7 * m["l2"]
        + 0.2 * m["l1"]
        + 0.5 * m["perceptual"]
        + m["quantizer_loss"]
        + 0.3 * m["adversarial"]
    )
    assert m["loss"] == pytest.approx(total, rel=1e-5)
    for section, key in (
        ("loss", "l2"),
        ("loss", "l1"),
        ("perceptual", "weight"),
        ("adversarial", "weight"),
    ):
        config = base.copy_and_resolve_references()
        config[section][key] *= 3
        other, _ = updating(config)(state, batch)
        assert different(new["params"], other["params"]), (section, key)


def test_before_its_start_the_critic_does_not_exist():
    config = judged(start="2 steps", ramp="2 steps", weight=1.0, adaptive=False)
    stage, update = stage1.make(config), updating(config)
    assert stage.early_steps == 2
    state, factors = beginning(), []
    # A run takes these steps by a program in which it is not.
    without, less = jax.jit(stage.early_update)(state, batch_of(2))
    same, more = update(state, batch_of(2))
    for a, b in zip(jax.tree.leaves(without), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert "critic_loss" in set(more) - set(less)
    for step in range(5):
        new, metrics = update(state, batch_of(2))
        factors.append(float(metrics["lambda"]))
        moved = different(state["critic"], new["critic"])
        if step < 2:
            assert not moved and metrics["critic_loss"] == 0 and metrics["real_logits"] == 0
        else:
            assert {name.split("/")[0] for name in moved} == {"params", "opt", "variables"}
        # Its optimizer counts from here: Adam's first step is as long as the learning rate.
        if step == 2:
            pairs = zip(
                *(jax.tree.leaves(s["critic"]["params"]) for s in (state, new)), strict=True
            )
            assert max(float(np.abs(x - y).max()) for x, y in pairs) == pytest.approx(
                1e-3, rel=0.05
            )
        state = new
    np.testing.assert_allclose(factors, [0, 0, 1 / 3, 2 / 3, 1], rtol=1e-5)


def test_a_step_that_is_not_finite_is_skipped_whole_and_counted():
    update = updating(judged())
    state, _ = update(beginning(), batch_of(2))
    poisoned = jax.tree.map(lambda x: x, state)
    poisoned["critic"]["params"]["logits"]["bias"] = jnp.full_like(
        state["critic"]["params"]["logits"]["bias"], jnp.nan
    )
    after = poisoned
    for n in (1, 2, 3):
        after, metrics = update(after, batch_of(2))
        assert not np.isfinite(float(metrics["critic_loss"]))
        assert (int(metrics["skipped_in_a_row"]), int(metrics["skipped"])) == (n, n)
    same = {key: value for key, value in after.items() if key not in ("step", "skipped")}
    before = {key: value for key, value in poisoned.items() if key in same}
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(same), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=str(path))  # NaN equals NaN here
    assert int(after["step"]) == int(state["step"]) + 3
    healed = {**after, "critic": state["critic"]}
    healed, metrics = update(healed, batch_of(2))
    assert (int(metrics["skipped_in_a_row"]), int(metrics["skipped"])) == (0, 3)
    assert different(after["params"], healed["params"])


def test_regularizers_change_the_critic_alone():
    batch = batch_of(2)
    plain = updating(judged())
    state, _ = plain(beginning(), batch)
    new, _ = plain(state, batch)
    for changes in ({"r1": 5.0}, {"lecam": 1.0}):
        other, metrics = updating(judged(**changes))(state, batch)
        (name,) = changes
        assert float(metrics[name]) > 0
        assert different(new["critic"]["params"], other["critic"]["params"])
        assert_same_step(state, new, other, "params")


def test_r1_is_taken_every_so_many_steps():
    state, update, found = beginning(), updating(judged(r1=1.0, r1_every=3)), []
    for _ in range(4):
        state, metrics = update(state, batch_of(2))
        found.append(float(metrics["r1"]) > 0)
    assert found == [False, False, True, False]


def test_lecam_remembers_the_logits():
    state, metrics = updating(judged(lecam=1.0))(beginning(), batch_of(2))
    expected = gan.update_ema(gan.averages(), metrics["real_logits"], metrics["fake_logits"])
    for key, value in expected.items():
        assert float(state["critic"]["variables"]["averages"][key]) == pytest.approx(
            float(value), rel=1e-5
        )


def test_pixels_are_clipped_before_they_are_bytes():
    stage, state = stage1.make(judged()), jax.tree.map(lambda x: x, beginning())
    for bias, byte in ((40.0, 255), (-40.0, 0)):
        state["ema"]["decoder"]["to_rgb"]["bias"] = jnp.full(3, bias)
        assert (
            np.asarray(stage.model.predict(state, batch_of(2), None)["reconstruction"]) == byte
        ).all()


def test_start_and_ramp_are_announced_in_steps_and_epochs():
    config = judged(start="5 epochs", ramp="10%")
    config.duration = "400 steps"
    loss, note, _ = stage1.make(config, examples=80).notes  # 40 steps an epoch
    assert (
        "patchgan, from step 200, in full from step 240 (epochs 5.0 and 6.0)" in note
        and "ends before" not in note
    )
    assert loss == "loss: quantizer + 1 x l2 + 0.5 x perceptual (lpips) + lambda x adversarial"
    config.adversarial.start = "500 steps"
    assert "this run ends before it sets in" in stage1.make(config, examples=80).notes[1]


def test_a_conditional_critic_wants_the_classes_of_the_data():
    config = judged(critic={"name": "projected", "cond": True, "classes": 7})
    with pytest.raises(InputError, match=r"critic.classes is 7, but the data set has 10"):
        stage1.make(config, classes=10)


def test_a_decoder_without_the_last_layer_that_it_declares_is_named(monkeypatch):
    monkeypatch.setattr(swin.Decoder, "last_layer", ("to_rbg", "kernel"))
    with pytest.raises(InputError, match="which it declares as to_rbg/kernel and does not have"):
        jax.eval_shape(stage1.make(judged()).init)


def test_untrained_features_are_told():
    notes = stage1.make(judged()).notes
    assert any(
        'config.perceptual.weights = "random": vgg16, lpips are UNTRAINED' in note for note in notes
    )


def test_frozen_networks_come_from_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lpips, "PRETRAINED", {"kernel": "lpips"})
    kernel = np.random.default_rng(0).standard_normal((4, 4, 3, 8)).astype(np.float32)
    weights.save(weights.path(tmp_path, "lpips"), {"params": {"kernel": kernel}}, {})
    config = judged()
    config.perceptual.weights = str(tmp_path)
    monkeypatch.setattr(lpips, "Distance", Stored)
    stage = stage1.make(stage1.resolve(config))
    assert not any("UNTRAINED" in note for note in stage.notes)
    state = jax.jit(stage.init)()
    # Never random numbers by mistake.
    assert not np.any(state["frozen"]["perceptual"]["kernel"]["params"]["kernel"])
    state = stage.load(state)
    np.testing.assert_array_equal(
        state["frozen"]["perceptual"]["kernel"]["params"]["kernel"], kernel
    )
    _, metrics = jax.jit(stage.update)(state, batch_of(2))
    assert float(metrics["perceptual"]) > 0


class Stored(nn.Module):
    """A distance whose kernel is a network's variables."""

    dtype: Any = "float32"

    @nn.compact
    def __call__(self, a, b):
        kernel = self.variable(
            "frozen", "kernel", lambda: {"params": {"kernel": jnp.ones((4, 4, 3, 8))}}
        )
        return jnp.mean(jnp.square(a - b), (1, 2, 3)) * jnp.mean(
            jnp.square(kernel.value["params"]["kernel"])
        )


def test_missing_weights_stop_the_run_before_anything_else(tmp_path):
    config = judged()
    config.perceptual.weights = str(tmp_path)
    with pytest.raises(
        InputError, match=r"python -m evqgan\.convert vgg16 --download .*weights=random"
    ):
        stage1.resolve(config)


@pytest.mark.parametrize(
    "section, changes, message",
    [
        (
            "adversarial",
            {"strat": 3},
            "config.adversarial has no key 'strat': did you mean 'start'",
        ),
        (
            "adversarial",
            {"critic": {"name": "patchgun"}},
            "Critic, PRETRAINED in evqgan/losses/: did you mean 'patch",
        ),
        ("adversarial", {"critic": {"name": "patchgan", "layer": 2}}, "did you mean 'layers'"),
        ("adversarial", {"optimizer": {"b3": 2}}, "config.adversarial.optimizer has no key 'b3'"),
        (
            "adversarial",
            {"optimizer": {"accumulate": 2}},
            "config.adversarial.optimizer has no key 'accumulate'",
        ),
        ("adversarial", {"critic": {"width": 2}}, "config.adversarial.critic needs the key 'name'"),
        (
            "adversarial",
            {"critic": {"name": "patchgan", "norm": "act"}},
            "is for critics trained elsewhere",
        ),
        ("adversarial", {"r1_every": 0}, "r1_every expects a whole number from 1, got 0"),
        ("perceptual", {"distance": {}}, "config.perceptual.distance needs the key 'name'"),
        (
            "perceptual",
            {"distance": {"name": "lpisp"}},
            "Distance, PRETRAINED in evqgan/losses/: did you mean 'lpips'",
        ),
        (
            "perceptual",
            {"weihgt": 2},
            "config.perceptual has no key 'weihgt': did you mean 'weight'",
        ),
        ("loss", {"l3": 1.0}, "config.loss has no key 'l3'"),
    ],
)
def test_wrong_keys_are_named(section, changes, message):
    config = judged()
    config.loss = {"l2": 1.0}
    for key, value in changes.items():
        config[section][key] = value
    with pytest.raises(InputError, match=message):
        stage1.make(stage1.resolve(config))


@pytest.mark.parametrize("remat", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_weight_costs_no_second_backward_pass(remat):
    """XLA drops what the norms of the last layer's gradients do not need."""

    def flops(adaptive):
        stage = stage1.make(judged(remat, adaptive=adaptive))
        lowered = jax.jit(stage.update).lower(jax.eval_shape(stage.init), batch_of(2))
        return lowered.compile().cost_analysis()["flops"]

    assert flops(adaptive=True) < 1.02 * flops(adaptive=False)


def test_a_wrong_loss_is_named():
    with pytest.raises(
        InputError, match=r"config\.adversarial\.loss expects .*'hing': did you mean 'hinge'"
    ):
        stage1.make(judged(loss="hing"))
