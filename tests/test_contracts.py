"""The contract of each folder, over all modules in it: a new model, loss or evaluator is tested by being there."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan import evals, generators, losses, models
from evqgan.core import build, schema
from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer as tokenizers

pytestmark = pytest.mark.usefixtures("quick_to_compile")

GENERATORS = build.having("generators", ["TRAITS"])
CODERS = build.having("tokenizers", ["Encoder"])
EVALUATORS = build.having("evals", ["Evaluator"])
CRITICS, DISTANCES = (build.having("losses", [entry]) for entry in ("Critic", "Distance"))
# The smallest sections that have all of a module; a new one adds a line here.
SMALL = {
    "multigrained": {"window": 2, "extend": 1, "code_width": 8, "global_tokens": "ordered"},
    "maskgit": {},
    "gpt": {},
    "rqtransformer": {"head_layers": 1, "head_heads": 2},
    "swin": {"width": 8, "head_dim": 8, "depths": (1,), "window": 4},
    "cnn": {"width": 32, "multipliers": (1, 1, 1), "blocks": 1, "z_width": 8, "attention": ()},
    "vit": {"size": 16, "patch": 4, "width": 16, "layers": 1, "heads": 2, "head_dim": 8, "mlp_width": 16},
}


def arguments(function):
    """{name: default, or inspect.Parameter.empty}."""
    return {name: x.default for name, x in inspect.signature(function).parameters.items()}


def test_the_folders_are_not_empty():
    assert {"multigrained", "gpt", "maskgit", "rqtransformer"} <= set(GENERATORS)
    assert {"swin", "cnn", "vit"} <= set(CODERS) and {"reconstruction", "generation"} <= set(EVALUATORS)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_has_the_names_and_arguments_of_its_contract(name):
    module = build.module("generators", name, "", *build.contract(generators.Generator))
    told, codebook, soft, fills = module.TRAITS
    fields = arguments(module.Model)
    assert {"codes", "latent", "dtype", *told} <= fields.keys() and fills in ("any", "suffix")
    assert not {"depth", "codebook_width", "factor"} - set(told) & fields.keys() or name == "gpt"
    for function in (module.loss, module.evaluate, module.sample):
        given = arguments(function)
        assert ("codebook" in given) == codebook, function
        settings = {n: x for n, x in given.items() if n not in models.OURS}
        assert inspect.Parameter.empty not in settings.values(), f"{function} has a key without default: {settings}"
    assert ("soft" in arguments(module.loss)) == soft
    assert arguments(module.evaluate).keys() <= {"model", "params", "ids", "label", "rng", "codebook"}
    assert arguments(module.sample)["trace"] is False


@pytest.fixture(scope="module", params=GENERATORS)
def generator(request):
    """A small TokenGenerator on an untrained tokenizer of two depths, its weights and parameters."""
    coder = {"name": "swin", **SMALL["swin"]}
    keys = {"encoder": coder, "decoder": coder, "quantizer": {"codes": 16, "width": 4, "depth": 2}}
    tokenizer = models.ImageTokenizer(tokenizers.make(keys), (16, 16))
    small = {"name": request.param, "layers": 1, "width": 16, "heads": 2, "classes": 3, **SMALL[request.param]}
    found = models.token_generator(small, tokenizer, "float32")
    params, weights = (jax.jit(lambda f=f: f(jax.random.key(0)))() for f in (found.init, tokenizer.init))
    return found, jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), params), weights


def inputs(number=2):
    """ids, a mask of the lower half, labels and keys."""
    ids = jax.random.randint(jax.random.key(1), (number, 4, 4, 2), 0, 16)
    mask = jnp.zeros((number, 4, 4), bool).at[:, 2:].set(True)
    return ids, mask, jnp.arange(number) % 3, jax.random.split(jax.random.key(2), number)


def test_a_generator_learns_and_is_measured(generator):
    found, params, weights = generator
    ids, _, label, _ = inputs()
    loss = jax.jit(jax.grad(lambda p: found.loss(p, weights, ids, label, jax.random.key(0)), has_aux=True))
    grads, metrics = loss(params)
    assert all(value.shape == () for value in metrics.values())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    state, batch = {"ema": params, "tokenizer": weights}, {"ids": ids, "label": label}
    numbers = jax.eval_shape(found.predict, state, batch, jax.random.key(0))
    assert numbers.pop("ids").shape == ids.shape
    assert all(x.shape == (2, 2) for x in numbers["sums"].values())
    assert any(name.startswith("cross_entropy") for name in numbers["sums"])


def test_a_generator_keeps_what_is_known_by_each_images_own_key_and_shows_how_it_fills(generator):
    found, params, weights = generator
    ids, mask, label, keys = inputs()
    found.check_mask(np.asarray(mask))
    run = jax.jit(lambda *given: found.sample(params, weights, *given))
    made = np.asarray(run(ids, mask, label, keys))
    assert made.shape == ids.shape and made.dtype == np.int32 and ((made >= 0) & (made < 16)).all()
    np.testing.assert_array_equal(made[:, :2], ids[:, :2])
    turned = np.asarray(run(ids[::-1], mask, label[::-1], keys[::-1]))
    np.testing.assert_array_equal(turned, made[::-1])
    states = np.asarray(jax.jit(lambda *x: found.sample(params, weights, *x, trace=True))(ids, mask, label, keys))
    np.testing.assert_array_equal(states[-1], made)
    blank = states == 16
    assert blank[0].any() and not blank[-1].any() and (blank[:-1] >= blank[1:]).all()  # a token made stays


def test_a_generator_refuses_masks_that_it_cannot_fill(generator):
    found, *_ = generator
    hole = np.zeros((1, 4, 4), bool)
    hole[0, 1] = True
    if found.traits.fills == "suffix":
        with pytest.raises(InputError, match=f"the {found.name} generator makes tokens in raster order"):
            found.check_mask(hole)
    else:
        found.check_mask(hole)


@pytest.mark.parametrize("name", CODERS)
def test_coders_are_the_inverse_of_each_other_in_shape(name):
    coders = [build.build("tokenizers", entry, {"name": name, **SMALL[name]}, "") for entry in ("Encoder", "Decoder")]
    assert coders[0].factor == coders[1].factor == 4

    def run():
        image = jnp.zeros((2, 16, 16, 3))
        features, first = coders[0].init_with_output(jax.random.key(0), image)
        again, second = coders[1].init_with_output(jax.random.key(0), features)
        return features, again, first, second

    features, image, _, second = jax.eval_shape(run)
    assert features.shape[:3] == (2, 4, 4) and image.shape == (2, 16, 16, 3) and image.dtype == "float32"
    kernel = second["params"]
    for name in coders[1].last_layer:
        kernel = kernel[name]
    assert 3 in kernel.shape, "the adaptive weight is taken at the layer that makes colours"


@pytest.mark.parametrize("name", EVALUATORS)
def test_an_evaluator_takes_what_it_is_given_and_keys_with_defaults(name):
    evaluator = build.module("evals", name, "", "Evaluator").Evaluator
    found = arguments(evaluator)
    assert set(schema.OF_EVALUATOR) <= found.keys()
    assert all(x is not inspect.Parameter.empty for n, x in found.items() if n not in schema.OF_EVALUATOR)
    assert set(build.contract(evals.Evaluator)) <= set(dir(evaluator))


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_judges_images_and_declares_what_it_needs(name):
    module = build.module("losses", name, "", "Critic", *build.contract(losses.LossModule))
    critic, rng = module.Critic(), jax.random.key(0)
    assert critic.label_classes == 0 and critic.trainable
    image, label = jnp.zeros((4, 64, 64, 3)), jnp.zeros(4, jnp.int32)
    rngs = {"params": rng, "augment": rng}
    logits, variables = jax.eval_shape(
        lambda: critic.init_with_output(rngs, image, label, train=True)
    )
    assert len(logits) == 4 and logits.dtype == "float32"
    assert set(variables) <= {"params", "batch_stats", "frozen"}
    assert set(module.PRETRAINED) <= set(variables.get("frozen", {}))


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_compares_images_by_the_networks_it_declares(name):
    module = build.module("losses", name, "", "Distance", *build.contract(losses.LossModule))
    image = jnp.zeros((2, 64, 64, 3))
    distance, variables = jax.eval_shape(
        lambda: module.Distance().init_with_output(jax.random.key(0), image, image)
    )
    assert distance.shape == (2,) and distance.dtype == "float32"
    assert set(module.PRETRAINED) == set(variables["frozen"])
