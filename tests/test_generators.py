"""What every generator must keep, over all modules in evqgan/generators.

Small generators on a tokenizer of two depths, through `models.TokenGenerator`, as training and
inference use them. What is particular to one is tested in the file of its name.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import large_weights
import numpy as np
import optax
import pytest
import workdirs
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.generators import Request
from evqgan.inference import model as inference
from evqgan.inference.keywords import SamplerKeywords
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training import loop

CODES, DEPTH, GRID = 16, 2, (4, 4)
NAMES = build.having("generators", ["TRAITS"])
# The smallest sections that have all of a module; a new one adds a line here.
SMALL = {
    "multigrained": {"window": 4, "extend": 1, "code_width": 8, "global_tokens": "ordered"},
    "maskgit": {},
    "gpt": {},
    "rqtransformer": {"head_layers": 1, "head_heads": 2},
}
# Other forms of a module that learn in another way.
VIM = {"tables": "separate", "time_shift": True, "activation": "squared_relu"}
FORMS = {name: {"name": name} for name in NAMES} | {"vim": {"name": "gpt", **VIM}}
BATCH = 6


@functools.cache
def tokenizer():
    """An untrained tokenizer of two depths, and its weights."""
    coder = {"name": "swin", "width": 8, "head_dim": 8, "depths": (1,), "window": 4}
    quantizer = {"codes": CODES, "width": 4, "depth": DEPTH}
    keys = {"encoder": coder, "decoder": coder, "quantizer": quantizer}
    found = models.ImageTokenizer(tokenizers.make(keys), (16, 16))
    return found, large_weights.drawn(jax.eval_shape(found.init, jax.random.key(0)))


@functools.cache
def generator(form, **changes):
    """A small TokenGenerator; its dropout is 0."""
    keys = {"layers": 1, "width": 16, "heads": 2, "classes": 3, "dropout": 0.0}
    keys |= FORMS[form] | SMALL[FORMS[form]["name"]] | changes
    return models.token_generator(keys, tokenizer()[0], "float32")


@functools.cache
def sampled(form):
    """`sample` with its history of a generator, compiled: (params, request) -> Decoded."""
    found = generator(form)
    settings = found.settings({"steps": 3} if "steps" in names_of(found) else {})

    def run(params, request):
        return found.sample(params, tokenizer()[1], request, settings, keep_history=True)

    return jax.jit(run)


def names_of(generator):
    """The keys of its config.sample."""
    return {field.name for field in dataclasses.fields(generator.module.Settings)}


@pytest.fixture(scope="module", params=NAMES)
def form(request):
    return request.param


@pytest.fixture(scope="module")
def params(form):
    return large_weights.drawn(jax.eval_shape(generator(form).init, jax.random.key(0)))


def request_of(**changes):
    """The lower half of BATCH images, of which the first four have one class."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, CODES, (BATCH, *GRID, DEPTH)).astype(np.int32)
    mask = np.zeros((BATCH, *GRID), bool)
    mask[:, 2:] = True
    label = np.array([1, 1, 1, 1, 0, 2], np.int32)
    keys = jax.random.split(jax.random.key(2), BATCH)
    return Request(ids, mask, label, keys)._replace(**changes)


def test_every_generator_has_a_small_form():
    assert {"multigrained", "gpt", "maskgit", "rqtransformer"} <= set(NAMES) == set(SMALL)


def test_known_tokens_stay_and_what_is_hidden_does_not_leak(form, params):
    run, request = sampled(form), request_of()
    generator(form).check_mask(request.mask)
    made = np.asarray(run(params, request).tokens)
    assert made.shape == request.ids.shape and made.dtype == np.int32
    assert ((made >= 0) & (made < CODES)).all()
    np.testing.assert_array_equal(made[:, :2], request.ids[:, :2])
    assert (made != request.ids)[:, 2:].any(axis=(0, 1, 2)).all()  # at both depths
    other = np.where(request.mask[..., None], (request.ids + 5) % CODES, request.ids)
    np.testing.assert_array_equal(run(params, request_of(ids=other)).tokens, made)
    shown = np.where(request.mask[..., None], request.ids, (request.ids + 1) % CODES)
    changed = np.asarray(run(params, request_of(ids=shown)).tokens)
    assert (changed != made)[:, 2:].any()  # what is known matters


def test_the_history_ends_in_the_sample_and_what_is_made_stays(form, params):
    request = request_of()
    made = sampled(form)(params, request)
    history = np.asarray(made.history)
    assert history.shape[1:] == request.ids.shape and history.dtype == np.int32
    np.testing.assert_array_equal(history[-1], made.tokens)
    blank = history == CODES
    assert not blank[-1].any() and not blank[:, :, :2].any()
    assert (blank[:-1] >= blank[1:]).all()
    is_same = (history[1:] == history[:-1]) | blank[:-1]
    assert is_same.all()
    if len(history) > 1:
        assert blank[0].any()

    def alone(params, request):
        found = generator(form)
        return found.sample(params, tokenizer()[1], request, found.settings())

    assert jax.eval_shape(alone, params, request).history is None


def test_an_image_depends_on_its_own_key_and_class_alone(form, params):
    run, request = sampled(form), request_of()
    ids = np.repeat(request.ids[:1], BATCH, axis=0)
    request = request_of(ids=ids)
    made = np.asarray(run(params, request).tokens)
    assert len({image.tobytes() for image in made[:4]}) == 4  # by key
    turned = Request(*(x[::-1] for x in request))
    np.testing.assert_array_equal(run(params, turned).tokens, made[::-1])
    keys = request.keys[np.array([0] * BATCH)]
    by_class = np.asarray(run(params, request._replace(keys=keys)).tokens)
    np.testing.assert_array_equal(by_class[:4], made[[0] * 4])
    assert (by_class[4:] != made[0]).any()


def test_losses_gradients_remat_bfloat16_and_dropout(form, params):
    """All in one program, which compiles once.

    Dropout is of training alone; rematerialization and bfloat16 change little.
    """
    request, weights = request_of(), tokenizer()[1]
    exact, dropping = generator(form), generator(form, dropout=0.5)
    given = weights, request.ids, request.label, jax.random.key(0)
    batch = {"ids": request.ids, "label": request.label}

    @jax.jit
    def run(params):
        def gradient(**changes):
            found = generator(form, **changes)
            return jax.value_and_grad(lambda p: found.loss(p, *given), has_aux=True)(params)

        rough = dataclasses.replace(exact, network=exact.network.clone(dtype="bfloat16"))
        state = {"ema": params, "tokenizer": weights}
        return {
            "exact": gradient(),
            "remat": gradient(remat=True)[1],
            "rough": rough.loss(params, *given)[0],
            "dropping": dropping.loss(params, *given)[0],
            "evaluated": [x.predict(state, batch, given[-1]) for x in (exact, dropping)],
        }

    found = run(params)
    (loss, metrics), grads = found["exact"]
    assert loss.shape == () and all(x.shape == () for x in metrics.values())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(found["remat"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert found["rough"].dtype == np.float32
    np.testing.assert_allclose(found["rough"], loss, rtol=0.05)
    assert abs(found["dropping"] - loss) > 1e-4
    evaluated, again = found["evaluated"]
    np.testing.assert_array_equal(evaluated["ids"], request.ids)
    for name, sums in evaluated["sums"].items():
        assert sums.shape == (BATCH, 2)
        np.testing.assert_allclose(sums, again["sums"][name], rtol=1e-6)
    assert any(name.startswith("cross_entropy@") for name in evaluated["sums"])


@pytest.mark.parametrize("form", FORMS)
def test_layers_without_a_loop_change_nothing_in_training(form):
    """With dropout, which draws the same."""
    found = [generator(form, layers=2, dropout=0.5, unroll=unroll) for unroll in (1, 0)]
    request, weights = request_of(), tokenizer()[1]
    given = weights, request.ids, request.label, jax.random.key(0)
    params = large_weights.drawn(jax.eval_shape(found[0].init, jax.random.key(0)))
    losses = [lambda p, one=one: one.loss(p, *given)[0] for one in found]
    loop, whole = (str(jax.make_jaxpr(loss)(params)) for loss in losses)
    assert "unroll=2" in whole and "unroll=2" not in loop
    a, b = jax.jit(lambda p: [loss(p) for loss in losses])(params)
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_falls_and_a_pattern_is_learned(form):
    """Of each class its own; samples of a class have its pattern, by steps of one scan."""
    found, weights, number = generator(form, width=32), tokenizer()[1], 18
    label = jnp.arange(number) % 3
    codes = jnp.arange(GRID[0] * GRID[1] * DEPTH) % 4
    ids = (codes[None] + 4 * label[:, None]).reshape(number, *GRID, DEPTH)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 150))  # ends where rounding is small

    @jax.jit
    def train():
        params = found.init(jax.random.key(0))

        def step(state, i):
            params, moments = state
            loss = functools.partial(found.loss, weights=weights, ids=ids, label=label)
            grad = jax.value_and_grad(lambda p: loss(p, rng=jax.random.key(i)), has_aux=True)
            (value, _), grads = grad(params)
            updates, moments = optimizer.update(grads, moments)
            return (optax.apply_updates(params, updates), moments), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(150))
        keys = jax.random.split(jax.random.key(9), number)
        request = Request(jnp.zeros_like(ids), jnp.ones(ids.shape[:3], bool), label, keys)
        greedy = found.settings({"temperature": 0.0})
        return losses, found.sample(params, weights, request, greedy).tokens

    losses, made = train()
    assert losses[0] > 2 and losses[-5:].mean() < losses[0] / 3
    assert np.mean(made == ids) > 0.95


def test_type_checkers_know_the_settings_of_all_generators():
    assert set(SamplerKeywords.__annotations__) == set().union(
        *map(names_of, map(generator, NAMES))
    )


def test_masks_that_it_cannot_fill_are_refused(form):
    found = generator(form)
    hole = np.zeros((1, *GRID), bool)
    hole[0, 1] = True
    if found.traits.fills == "suffix":
        message = f"the {found.name} generator makes tokens in raster order"
        with pytest.raises(InputError, match=message):
            found.check_mask(hole)
    else:
        found.check_mask(hole)


def test_settings_are_a_value_whose_fields_are_the_keys(form):
    found = generator(form)
    defaults = found.settings()
    assert found.settings({}) == defaults == found.module.Settings()
    assert hash(found.settings({"top_k": np.int32(3)})) == hash(found.settings({"top_k": 3}))
    assert found.settings({"top_k": 3, "temperature": 0.5}).temperature == 0.5
    for changes, message in (
        ({"temprature": 0.9}, "config.sample has no key 'temprature': did you mean 'temperature'"),
        ({"temperature": -1.0}, "config.sample.temperature expects a number from 0, got -1.0"),
        ({"top_p": 0.0}, "config.sample.top_p expects a number above 0 to 1"),
    ):
        with pytest.raises(InputError, match=message) as error:
            found.settings(changes)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="config.sample has no key 'seed'"):
        found.settings({"seed": 1})


def test_heads_must_divide_the_width(form):
    with pytest.raises(InputError, match="multiple of (generator.heads = 3|the 3 heads)"):
        jax.eval_shape(generator(form, heads=3).init, jax.random.key(0))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "multigrained"])
def test_stage_2_trains_samples_and_edits(name, tmp_path):
    """The loop with a generator in the config, and what is loaded from its workdir.

    All other tests of workdirs are of the multigrained one.
    """
    place = workdirs.trained()
    first, config = workdirs.configs(place / "images")
    small = {"classes": 10, "layers": 1, "width": 32, "heads": 2}
    config.generator = ConfigDict({"name": name, **small})
    config.loss, config.sample = ConfigDict(), ConfigDict({"top_k": 40, "top_p": 0.95})
    config.evals.generation = ConfigDict({"show": 0})
    config.tokenizer.weights = str(place / "tokenizer")
    if name == "rqtransformer":  # on a tokenizer of two depths, and its soft codes
        first.tokenizer.quantizer.update({"name": "residual", "depth": 2})
        config.tokenizer = ConfigDict({"weights": "random", "model": first.tokenizer, "soft": 0.5})
        config.generator.head_layers = 1
        config.sample = ConfigDict({"top_k": (40, 20), "top_p": 0.95})
    loop.train(config, tmp_path / name)
    loaded = inference.load(tmp_path / name)
    images = loaded.generate(2, labels=["bee", 3])
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(loaded.generate(2, labels=["bee", 3]), images)
    mask = np.zeros((32, 32), bool)
    mask[16:] = True
    made = loaded.edit(images[0], mask, label="cat", num=2)
    assert made.shape == (2, 32, 32, 3) and (made[0] != made[1]).any()
    np.testing.assert_array_equal(made[:, :12], images[:1, :12].repeat(2, 0))
    if loaded.generator.traits.fills == "suffix":
        made = loaded.outpaint(images[0], 0, 0, 0, 8, label="cat", num=2)
        assert made.shape == (2, 40, 32, 3)
        with pytest.raises(InputError, match="raster order"):
            loaded.edit(images[0], ~mask, label="cat")
    with pytest.raises(InputError, match="there is no keyword 'order'"):
        loaded.generate(1, order="wavefront")
