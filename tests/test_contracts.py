"""The contract of each folder, over all modules in it: a new one is tested by being there."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import pytest

from evqgan import evals, features, generators, losses, models
from evqgan.core import build, schema
from evqgan.tokenizers import quantizers

GENERATORS = build.having("generators", ["TRAITS"])
CODERS = build.having("tokenizers", ["Encoder"])
QUANTIZERS = build.having("tokenizers.quantizers", ["Quantizer"])
EVALUATORS = build.having("evals", ["Evaluator"])
FEATURES = build.having("features", ["Features"])
CRITICS, DISTANCES = (build.having("losses", [entry]) for entry in ("Critic", "Distance"))
# The smallest sections that have all of a module; a new one adds a line here.
SMALL = {
    "swin": {"width": 8, "head_dim": 8, "depths": (1,), "window": 4},
    "cnn": {"width": 32, "multipliers": (1, 1, 1), "blocks": 1, "z_width": 8, "attention": ()},
    "vit": {
        "size": 16,
        "patch": 4,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "head_dim": 8,
        "mlp_width": 16,
    },
}


def arguments(function):
    """{name: default, or inspect.Parameter.empty}."""
    return {name: x.default for name, x in inspect.signature(function).parameters.items()}


def test_the_folders_are_not_empty():
    assert {"multigrained", "gpt", "maskgit", "rqtransformer"} <= set(GENERATORS)
    assert {"swin", "cnn", "vit"} <= set(CODERS)
    assert {"vq", "ema", "residual", "gumbel", "fsq", "lfq"} <= set(QUANTIZERS)
    assert {"reconstruction", "generation", "distribution"} <= set(EVALUATORS)
    assert {"inception", "efficientnet", "pixels"} <= set(FEATURES)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_has_the_names_and_arguments_of_its_contract(name):
    module = build.module("generators", name, "", *build.contract(generators.Generator))
    needs, codebook, soft, fills = module.TRAITS
    fields = arguments(module.Model)
    assert {"codes", "latent", "dtype", *needs} <= fields.keys() and fills in ("any", "suffix")
    assert not {"depth", "codebook_width", "factor"} - set(needs) & fields.keys()
    for function in (module.loss, module.evaluate, module.sample):
        assert ("codebook" in arguments(function)) == codebook, function
    loss = {
        name: x for name, x in arguments(module.loss).items() if name not in models.GIVEN_TO_LOSS
    }
    assert inspect.Parameter.empty not in loss.values(), f"a key without default: {loss}"
    assert ("soft_targets" in arguments(module.loss)) == soft
    given = {"model", "params", "ids", "label", "rng", "codebook"}
    assert arguments(module.evaluate).keys() <= given
    given = {"model", "params", "request", "settings", "codebook", "keep_history"}
    assert arguments(module.sample).keys() <= given
    assert dataclasses.is_dataclass(module.Settings) and module.Settings.__dataclass_params__.frozen
    assert hash(module.Settings()) == hash(module.Settings())  # all fields have defaults


@pytest.mark.parametrize("name", CODERS)
def test_coders_are_the_inverse_of_each_other_in_shape(name):
    coders = [
        build.build("tokenizers", entry, {"name": name, **SMALL[name]}, "")
        for entry in ("Encoder", "Decoder")
    ]
    assert coders[0].factor == coders[1].factor == 4

    def run():
        image = jnp.zeros((2, 16, 16, 3))
        features, first = coders[0].init_with_output(jax.random.key(0), image)
        again, second = coders[1].init_with_output(jax.random.key(0), features)
        return features, again, first, second

    features, image, _, second = jax.eval_shape(run)
    assert (
        features.shape[:3] == (2, 4, 4)
        and image.shape == (2, 16, 16, 3)
        and image.dtype == "float32"
    )
    kernel = second["params"]
    for name in coders[1].last_layer:
        kernel = kernel[name]
    assert 3 in kernel.shape, "the adaptive weight is taken at the layer that makes colours"


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantizer_gives_the_shapes_and_types_of_its_contract_by_its_defaults(name):
    quantizer = build.module("tokenizers.quantizers", name, "", "Quantizer").Quantizer()
    assert all(hasattr(quantizer, trait) for trait in build.contract(quantizers.Quantizer))
    assert all(
        hasattr(quantizer, method) == quantizer.soft_targets
        for method in build.contract(quantizers.SoftQuantizer)
    )
    d, c, v = quantizer.depth, quantizer.width, quantizer.codes

    def run():
        z = jnp.zeros((1, 2, 3, c), jnp.bfloat16)
        out, variables = quantizer.init_with_output(jax.random.key(0), z)
        again = quantizer.apply(variables, out[1], method="embed")
        return *out, again, quantizer.apply(variables, method="codebook")

    z_q, ids, aux, again, book = jax.eval_shape(run)
    assert (z_q.shape, z_q.dtype) == (again.shape, again.dtype) == ((1, 2, 3, c), "float32")
    assert (ids.shape, ids.dtype) == ((1, 2, 3, d), "int32")
    assert book.shape in ((1, v, c), (d, v, c)) and book.dtype == "float32"
    assert aux.keys() >= {"quantizer_loss", "usage", "perplexity"}
    assert all(x.shape == () for x in aux.values()) and aux["quantizer_loss"].dtype == "float32"


@pytest.mark.parametrize("name", EVALUATORS)
def test_an_evaluator_takes_what_it_is_given_and_keys_with_defaults(name):
    evaluator = build.module("evals", name, "", "Evaluator").Evaluator
    found = arguments(evaluator)
    assert {*schema.OF_EVALUATOR, "show"} <= found.keys()
    assert all(
        x is not inspect.Parameter.empty for n, x in found.items() if n not in schema.OF_EVALUATOR
    )
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


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_of_images_of_any_size_by_the_networks_they_declare(name):
    module = build.module(
        "features", name, "", "Features", *build.contract(features.FeaturesModule)
    )
    model = module.Features()
    small, large = (jnp.zeros((2, *shape, 3), jnp.uint8) for shape in ((16, 24), (330, 8)))
    assert isinstance(model.resize, str) and model.resize
    found, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), small))
    assert "pooled" in found and found.keys() <= {"pooled", "spatial", "logits"}
    assert all(x.ndim == 2 and len(x) == 2 and x.dtype == "float32" for x in found.values())
    assert set(variables) <= {"frozen"}
    assert set(module.PRETRAINED) == set(variables.get("frozen", {}))
    again = jax.eval_shape(model.apply, variables, large)
    assert jax.tree.map(lambda x: x.shape, again) == jax.tree.map(lambda x: x.shape, found)
