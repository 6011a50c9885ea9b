"""Configs that are wrong end in one line, before anything is read.

Configs that are not those of a run do, too.
"""

import json

import pytest
from ml_collections import ConfigDict
from test_configs import load

from evqgan.core.errors import InputError
from evqgan.training import resume_rules
from evqgan.training import stage as stages

GONE = object()
WRONG = (
    GONE,
    None,
    -1,
    -0.5,
    0,
    True,
    float("nan"),
    float("inf"),
    "",
    "x\0y",
    [],
    [1, -2],
    {},
    {"name": 3},
    10**12,
)


def of_generator():
    config = load("quickstart", "tiny")
    config.generator.tokenizer.model = config.tokenizer.tokenizer
    return config.generator


CONFIGS = {
    "tokenizer": lambda: load("photos_stage1", "tiny"),
    "generator": of_generator,
    "gumbel, gpt": lambda: load("vqgan_ffhq_stage2", "tiny"),
    "vit": lambda: load("vitvqgan_imagenet_stage1", "tiny"),
    "rqtransformer": lambda: load("rqtransformer_imagenet_stage2", "tiny"),
}
ALWAYS = ("tokenizer", "generator")  # the others in the slow run


def places(node, above=()):
    """The paths of all keys in nested dicts."""
    for key, value in node.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


def changed(config, path, value):
    """The config with another value at `path`, or without it."""
    copy = json.loads(json.dumps(config))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if value is GONE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return ConfigDict(copy)


def line(config):
    """What a config is refused with, "" if it is not."""
    try:
        stages.module(config).make(config)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in CONFIGS],
)
def test_each_value_made_wrong_is_refused_in_one_line_or_makes_sense(name):
    config = json.loads(CONFIGS[name]().to_json())
    assert not line(ConfigDict(config)), name
    for path in places(config):
        for value in WRONG:
            said = line(changed(config, path, value))  # anything but InputError is raised
            assert "\n" not in said, (path, value)


@pytest.mark.parametrize(
    "path, value, said",
    [
        ("stage", "main", "config.stage is 'main': expected one of stage1, stage2"),
        ("stage", GONE, "config needs the key 'stage'"),
        ("dataset", GONE, "config needs the key 'dataset'"),
        ("optimizer", 3, "config.optimizer expects keys of its own, got 3"),
        ("seed", "1", "config.seed expects a whole number from 0 to 4294967295, got '1'"),
        ("seed", 2**32, "config.seed expects a whole number from 0 to 4294967295, got 4294967296"),
        ("dtype", "float16", "config.dtype expects one of float32, bfloat16, got 'float16'"),
        ("batch_size", 0, "config.batch_size expects a whole number from 1, got 0"),
        ("eval_every", 0, "config.eval_every expects more than 0"),
        ("duration", "5 years", "config.duration expects more than 0"),
        (
            "optimizer.learning_rate",
            float("nan"),
            "config.optimizer.learning_rate expects a number from 0, got nan",
        ),
        (
            "optimizer.learning_rate",
            -1.0,
            "config.optimizer.learning_rate expects a number from 0, got -1.0",
        ),
        ("optimizer.ema", 1.5, "config.optimizer.ema expects a number from 0 to below 1, got 1.5"),
        (
            "optimizer.accumulate",
            3,
            "config.optimizer.accumulate = 3 does not divide config.batch_size = 2",
        ),
        (
            "optimizer.total",
            3,
            "config.optimizer has no key 'total': "
            "expected one of accumulate, b1, b2, clip, decay, e",
        ),
        (
            "evals.generation.show",
            -1,
            "config.evals.generation.show expects a whole number from 0, got -1",
        ),
        (
            "evals.generatoin",
            {},
            "config.evals names 'generatoin', no module with Evaluator in evqgan/evals/: did you",
        ),
        (
            "alarm",
            {"val/accuracy": 2},
            "config.alarm expects keys of its own, each a number from 0 to 1",
        ),
        (
            "sample.temperature",
            float("nan"),
            "config.sample.temperature expects a number from 0, got nan",
        ),
        (
            "sample.choice_temperature",
            float("inf"),
            "config.sample.choice_temperature expects a number from 0, got inf",
        ),
        ("sample.schedule", "cosin", "config.sample.schedule expects one of cosine, linear"),
        ("loss.masks", "x", "config.loss.masks expects one of matched, raster, paper, got 'x'"),
        ("loss.model", 3, "config.loss has no key 'model'"),
        ("generator.latent", [8, 8], "config.generator has no key 'latent'"),
        (
            "generator.name",
            "masking",
            "config.generator names 'masking', no module with TRAITS, Model, Settings, init, ",
        ),
        ("tokenizer.weights", 3, "config.tokenizer.weights expects a text, got 3"),
        ("mesh", {"data": 0}, "config.mesh.data expects one of -1 or a whole number from 1, got 0"),
    ],
)
def test_what_is_said(path, value, said):
    config = json.loads(of_generator().to_json())
    config["batch_size"] = 2
    *sections, last = path.split(".")
    node = config
    for key in sections:
        node = node[key]
    node.setdefault(last, None)
    assert line(changed(config, path.split("."), value)).startswith(said)


def test_a_default_that_is_given_is_no_change(tmp_path):
    config = of_generator()
    resume_rules.claim(tmp_path, config)
    config.optimizer.update({"moment_dtype": "bfloat16"})
    with pytest.raises(InputError, match="config.optimizer.moment_dtype: float32 -> bfloat16"):
        resume_rules.check_claim(tmp_path, config)
    config.optimizer.update({"moment_dtype": "float32", "accumulate": 1})
    config.generator.mlp_ratio = 4.0
    resume_rules.check_claim(tmp_path, config)


def test_a_workdir_from_before_the_tokenizer_had_a_dtype_goes_on(tmp_path):
    config = of_generator()
    resume_rules.claim(tmp_path, config)
    config.tokenizer.dtype = "float32"
    resume_rules.check_claim(tmp_path, config)
    config.tokenizer.dtype = "bfloat16"
    with pytest.raises(InputError, match="config.tokenizer.dtype: float32 -> bfloat16"):
        resume_rules.check_claim(tmp_path, config)


def test_a_run_does_not_go_on_with_other_data_unless_it_is_told_to(tmp_path):
    config = of_generator()
    config.data = {"examples": 10, "list": "a"}
    resume_rules.claim(tmp_path, config)
    resume_rules.check_claim(tmp_path, config)
    config.data = {"examples": 50, "list": "b"}
    with pytest.raises(
        InputError, match="was trained on 10 examples, and 50 are there now: .*changed_data=True"
    ):
        resume_rules.check_claim(tmp_path, config)
    config.changed_data = True
    resume_rules.check_claim(tmp_path, config)
