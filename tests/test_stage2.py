"""Training a generator on a frozen tokenizer: what one step does."""

import json

import jax
import numpy as np
import pytest
import workdirs
from ml_collections import ConfigDict
from test_configs import load
from test_stage1 import batch_of, different

import evqgan
from evqgan import models
from evqgan.core import checkpoint, mesh
from evqgan.core.errors import InputError
from evqgan.generators import Request
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import stage2


def config_of(**changes):
    """A generator of two narrow layers on an untrained tokenizer.

    It has no weight decay, dropout or schedule.
    """
    config = load("quickstart", "tiny")
    model = config.tokenizer.tokenizer
    for coder in (model.encoder, model.decoder):
        coder.depths = (1,)
    config = config.generator
    config.tokenizer = ConfigDict({"weights": "random", "model": model})
    config.optimizer.update({"weight_decay": 0.0, "decay": "constant", "learning_rate": 3e-3})
    config.generator.dropout = 0.0
    config.loss.targets = 0
    config.duration = "100 steps"
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def compiled():
    """config -> stage, state, update, compiled once for each config.

    Nothing is donated, so that states compare.
    """
    known = {}

    def get(config):
        key = config.to_json()
        if key not in known:
            stage = stage2.make(config)
            known[key] = stage, jax.jit(stage.init)(), jax.jit(stage.update)
        return known[key]

    return get


def sampled(stage):
    """sample(state, ids, mask, label, keys) of a generator's stage, by its averaged weights."""
    settings = stage.model.settings(stage.config.sample)

    def sample(state, *given):
        return stage.model.sample(
            state["ema"], state["tokenizer"], Request(*given), settings
        ).tokens

    return sample


def test_the_loss_falls_every_part_learns_and_the_tokenizer_stays(compiled):
    _, start, update = compiled(config_of())
    state, losses = start, []
    for _ in range(40):
        state, metrics = update(state, batch_of())
        losses.append(float(metrics["loss"]))
        assert all(np.isfinite(float(value)) for value in metrics.values())
    assert losses[0] == pytest.approx(np.log(64), abs=0.3)  # it knows nothing
    assert np.mean(losses[-5:]) < losses[0] - 0.5
    assert not different(start["tokenizer"], state["tokenizer"])
    still = {
        mesh.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(start["params"])
    }
    assert different(start["params"], state["params"]) == still
    assert (
        int(state["step"]) == 40
        and {"accuracy", "masked", "gradient_norm", "learning_rate"} < metrics.keys()
    )


def test_a_step_is_a_function_of_state_and_batch(compiled):
    stage, state, update = compiled(config_of())
    assert not different(jax.jit(stage.init)(), state)
    first, second = update(state, batch_of()), update(state, batch_of())
    assert not different(first, second)
    _, metrics = update({**state, "step": state["step"] + 1}, batch_of())
    assert float(metrics["masked"]) != float(first[1]["masked"])  # every step draws its own masks
    other = {**batch_of(), "label": np.zeros(8, np.int32)}
    assert any(
        name.startswith("label/")
        for name in different(first[0]["params"], update(state, other)[0]["params"])
    )


def test_averaged_weights_follow(compiled):
    _, state, update = compiled(config_of())
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


def test_averaged_weights_are_what_predicts_and_samples(compiled):
    stage, state, _ = compiled(config_of())
    zeros = jax.tree.map(np.zeros_like, state["params"])
    predict, sample = jax.jit(stage.model.predict), jax.jit(sampled(stage))
    out = predict({**state, "params": zeros}, batch_of(), jax.random.key(0))
    assert out["ids"].shape == (8, 8, 8, 1)
    for share, number in (("0.25", 4), ("0.50", 8), ("0.75", 12), ("1.00", 16)):
        assert out["sums"][f"cross_entropy@{share}"].shape == (8, 2)
        # Masked tokens of one block.
        np.testing.assert_array_equal(out["sums"][f"accuracy@{share}"][:, 1], number)
    blind = predict({**state, "ema": zeros}, batch_of(), jax.random.key(0))
    # All codes alike.
    np.testing.assert_allclose(blind["sums"]["cross_entropy@0.50"][:, 0] / 8, np.log(64), rtol=1e-5)

    ids = np.arange(128, dtype=np.int32).reshape(2, 8, 8, 1) % 64
    mask = np.zeros((2, 8, 8), bool)
    mask[:, 2:5] = True
    keys = jax.random.split(jax.random.key(1), 2)
    new = sample({**state, "params": zeros}, ids, mask, np.array([1, 2]), keys)
    assert new.shape == ids.shape and new.dtype == np.int32
    images = jax.jit(stage.model.tokenizer.decode)(state["tokenizer"], new)
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(new[~mask], ids[~mask])
    assert (new[mask] != ids[mask]).any() and 0 <= new.min() <= new.max() < 64


def test_parts_of_a_batch_see_every_example(compiled):
    config = config_of()
    config.optimizer.accumulate = 2
    _, state, update = compiled(config)
    _, metrics = update(state, batch_of())
    assert float(metrics["loss"]) == pytest.approx(np.log(64), abs=0.3)
    assert 0 < float(metrics["masked"]) < 1


@pytest.mark.parametrize("parts", [1, 4])
def test_images_are_encoded_part_by_part_so_that_memory_is_that_of_one(parts, monkeypatch):
    encoded, encode = [], models.TokenGenerator.ids_of

    def spy(model, weights, batch):
        encoded.append(len(batch["image"]))
        return encode(model, weights, batch)

    monkeypatch.setattr(models.TokenGenerator, "ids_of", spy)
    config = config_of()
    config.batch_size, config.optimizer.accumulate = 8, parts
    stage = stage2.make(config)
    jax.eval_shape(stage.update, jax.eval_shape(stage.init), batch_of())
    assert {*encoded} == {8 // parts}


def test_a_run_begins_with_the_tokenizers_averaged_weights():
    weights = workdirs.trained() / "tokenizer"
    _, config = workdirs.configs(workdirs.trained() / "images")
    config.tokenizer.weights = str(weights)
    config = stage2.resolve(config)
    assert (
        config.tokenizer.model.to_dict()
        == json.loads((weights / "config.json").read_text())["tokenizer"]
    )
    stage = stage2.make(config, 60, 10)
    state = jax.jit(stage.init)()
    loaded = stage.load(state)
    assert not different({**state, "tokenizer": 0}, {**loaded, "tokenizer": 0})
    checkpoints = checkpoint.Checkpoints(weights, create=False)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state["tokenizer"]
    )
    saved = checkpoints.restore({"ema": like["params"], "codebook": like["codebook"]})
    checkpoints.close()
    assert not different(
        loaded["tokenizer"], {"params": saved["ema"], "codebook": saved["codebook"]}
    )
    assert different(loaded["tokenizer"], state["tokenizer"])


def test_the_tokenizer_computes_in_the_dtype_it_was_trained_in_whatever_the_generators(monkeypatch):
    make, found = tokenizers.make, []
    monkeypatch.setattr(
        tokenizers, "make", lambda keys, dtype="float32": found.append(dtype) or make(keys, dtype)
    )
    _, config = workdirs.configs(workdirs.trained() / "images")
    config.tokenizer.weights, config.dtype = str(workdirs.trained() / "tokenizer"), "bfloat16"
    given = config.copy_and_resolve_references()
    config = stage2.resolve(config)
    assert config.tokenizer.dtype == "float32"
    stage2.make(config)
    evqgan.load(workdirs.trained() / "generator", config)
    assert found and set(found) == {"float32"}
    with given.unlocked():
        given.tokenizer.dtype = "bfloat16"
    assert stage2.resolve(given).tokenizer.dtype == "bfloat16"
    with config.unlocked():
        del config.tokenizer.dtype  # a workdir made before there was this key
    assert tokenizers.of_generator(config).encoder.dtype == "bfloat16"


def test_tokenizers_that_cannot_be_used_are_named(tmp_path):
    config = config_of()
    for weights, message in (
        ("", "config.tokenizer.weights = '' is no tokenizer workdir .*: train one first"),
        (str(tmp_path), "is no tokenizer workdir .no .*config.json.: train one first"),
        (str(workdirs.trained() / "generator"), "is the workdir of stage2, not of stage1"),
    ):
        config.tokenizer = ConfigDict({"weights": weights, "model": {}})
        with pytest.raises(InputError, match=message):
            stage2.resolve(config)


@pytest.mark.parametrize(
    "section, changes, message",
    [
        ("generator", {"classes": 7}, "config.generator.classes is 7, but the data set has 10"),
        ("generator", {"widht": 7}, "config.generator has no key 'widht': did you mean 'width'"),
        (
            "generator",
            {"name": "multigraned"},
            "config.generator names 'multigraned', no module with TRAITS, Model, Settings, init",
        ),
        ("generator", {"window": 3}, "window = 3 does not divide the 8 x 8 token grid"),
        (
            "generator",
            {"extend": 9},
            "extend = 9 reaches beyond the 8 x 8 token grid from anywhere",
        ),
        ("loss", {"target": 1}, "config.loss has no key 'target': did you mean 'targets'"),
        (
            "sample",
            {"temprature": 0.9},
            "config.sample has no key 'temprature': did you mean 'temperature'",
        ),
        ("optimizer", {"em": 0.9}, "config.optimizer has no key 'em'"),
    ],
)
def test_wrong_keys_are_named(section, changes, message):
    config = config_of()
    config[section].update(changes)
    with pytest.raises(InputError, match=message):
        stage2.make(config, 60, 10)


def test_a_tokenizer_of_another_config_than_its_workdir_is_told_with_the_cure():
    place = str(workdirs.trained() / "tokenizer")
    config = config_of()
    config.tokenizer = ConfigDict({"weights": place, "model": config.tokenizer.model.to_dict()})
    config.tokenizer.model.quantizer = {"name": "fsq", "levels": (4, 4)}
    with pytest.raises(InputError, match=r"take that one by --config.tokenizer.model=\{\} \(check"):
        stage2.make(config).load({})
    config.tokenizer.model = {}
    loaded = stage2.make(stage2.resolve(config)).load({})["tokenizer"]
    theirs = evqgan.load(place).state
    assert not different(loaded, {"params": theirs["ema"], "codebook": theirs["codebook"]})


def test_classes_may_be_ignored_but_not_invented():
    config = config_of()
    config.generator.classes = 0
    stage2.make(config, 60, 10)
    config.generator.classes = 10
    with pytest.raises(InputError, match="config.generator.classes is 10, but the data set has 0"):
        stage2.make(config, 60, 0)


GENERATORS = {  # on 4 x 4 tokens of two depths
    "multigrained": {"window": 4, "extend": 1, "code_width": 8},
    "maskgit": {},
    "gpt": {},
    "rqtransformer": {"head_layers": 1},
}


def on_two_depths(name, **changes):
    """A small generator on a tokenizer of residual codes."""
    config = config_of(**changes)
    config.tokenizer.model.quantizer.update({"name": "residual", "depth": 2, "revive": 0.0})
    config.dataset.size = 16
    small = {"name": name, "classes": 10, "layers": 1, "width": 32, "heads": 2, "dropout": 0.0}
    config.generator = ConfigDict({**small, **GENERATORS[name]})
    config.loss, config.sample = ConfigDict(), ConfigDict()
    return config


@pytest.mark.parametrize("name", GENERATORS)
def test_any_generator_trains_on_residual_codes(name):
    """Traced, not compiled: what it learns, and what it makes, is tested in `test_generators`."""
    stage = stage2.make(on_two_depths(name))
    state = jax.eval_shape(stage.init)
    batch = {"image": batch_of()["image"][:, :16, :16], "label": batch_of()["label"]}
    new, metrics = jax.eval_shape(stage.update, state, batch)
    assert metrics["loss"].shape == ()
    assert jax.tree.map(np.shape, new) == jax.tree.map(np.shape, state)
    seen = jax.eval_shape(stage.model.predict, state, batch, jax.random.key(0))
    assert seen["ids"].shape == (8, 4, 4, 2)
    assert any(key.startswith("cross_entropy@") for key in seen["sums"])
    assert bool(stage.notes) == (name != "rqtransformer")


def test_soft_codes_are_drawn_anew_in_each_step_and_for_those_alone_that_learn_from_them(compiled):
    config = on_two_depths("rqtransformer")
    config.tokenizer.soft = 0.5
    _, state, update = compiled(config)
    batch = {"image": batch_of()["image"][:, :16, :16], "label": batch_of()["label"]}
    first, again = update(state, batch)[1], update({**state, "step": state["step"] + 1}, batch)[1]
    # Without dropout, the codes are all that is random.
    assert float(first["loss"]) != float(again["loss"])
    hard = compiled(on_two_depths("rqtransformer"))[2](state, batch)[1]
    assert float(hard["loss"]) != float(first["loss"])
    config = on_two_depths("gpt")
    config.tokenizer.soft = 0.5
    with pytest.raises(InputError, match="the gpt generator learns from the nearest codes alone"):
        stage2.make(config)
    config = on_two_depths("rqtransformer")
    config.tokenizer.soft, config.dataset.codes = 0.5, "codes"
    with pytest.raises(InputError, match="stored ids .* give --config.tokenizer.soft=0, or"):
        stage2.make(config)


def test_a_list_of_settings_of_another_length_than_depths_is_refused_before_training():
    """A run would otherwise find it at its first evaluation, and have no scores."""
    config = on_two_depths("rqtransformer")
    config.sample.top_k = (8, 4)
    stage2.make(config)
    config.sample.top_k = (8, 4, 2)
    with pytest.raises(InputError, match="top_k and top_p are one number or 2, one a depth"):
        stage2.make(config)


def test_guidance_of_a_generator_that_cannot_have_it_is_refused_before_training():
    config = config_of()
    config.sample.guidance, config.generator.class_dropout = 1.0, 0.1
    stage2.make(config)
    config.generator.class_dropout = 0.0
    with pytest.raises(InputError, match="class_dropout"):
        stage2.make(config)


def test_a_generator_is_told_what_its_model_asks_for():
    found = {name: models.of(on_two_depths(name)) for name in ("rqtransformer", "maskgit", "gpt")}
    model = found["rqtransformer"].network
    assert (model.codes, model.latent, model.depth, model.codebook_width) == (64, (4, 4), 2, 8)
    assert (found["maskgit"].network.codes, found["maskgit"].network.latent) == (64, (4, 8))
    assert (found["gpt"].network.latent, found["gpt"].network.factor) == ((4, 8), 4)
    assert [one.flat for one in found.values()] == [1, 2, 2]
    assert {one.tokenizer.grid for one in found.values()} == {(4, 4)}
    ids = np.arange(32).reshape(1, 4, 4, 2)
    # A token's depths side by side.
    assert models.flatten_depth(ids, 2)[0, 1, :4, 0].tolist() == [8, 9, 10, 11]
    np.testing.assert_array_equal(models.unflatten_depth(models.flatten_depth(ids, 2), 2), ids)


def test_the_number_of_classes_is_that_of_the_data_where_it_is_not_given():
    config = config_of()
    config.generator.class_dropout = 0.1
    with config.generator.unlocked():
        del config.generator.classes
        config.generator.classes = None
    stage2.make(config)  # before the data are read
    assert stage2.make(config, classes=5) and config.generator.classes is None
    found = {number: stage2.resolve(config, number).generator for number in (0, 7)}
    assert (found[7].classes, found[7].class_dropout) == (7, 0.1)
    assert (found[0].classes, found[0].class_dropout) == (0, 0.0)
    shapes = [
        jax.eval_shape(stage2.make(config, classes=number).init)["params"]["label"][
            "embedding"
        ].shape[0]
        for number in (5, 7)
    ]
    assert (
        shapes == [6, 8]
        and "label" not in jax.eval_shape(stage2.make(config, classes=0).init)["params"]
    )
    config.generator.classes = 10
    with pytest.raises(InputError, match="generator.classes is 10, but the data set has 7"):
        stage2.make(stage2.resolve(config, 7), classes=7)
    config.generator.classes = -1
    with pytest.raises(InputError, match="config.generator.classes expects a whole number"):
        stage2.make(config)
