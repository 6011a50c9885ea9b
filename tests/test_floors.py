"""Who may import whom: a module imports from the layers below its own.

Packages of one layer do not know each other.
"""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LINES = 350  # a longer file asks to be two
LAYERS = {
    "core": 0,
    "nn": 1,
    "metrics": 1,
    "tokenizers": 2,
    "generators": 2,
    "losses": 2,
    "features": 2,
    "data": 2,
    "models": 3,
    "evals": 4,
    "inference": 5,
    "training": 5,
    "aot": 6,
    "quickstart": 6,
    "own_images": 6,
    "flags": 6,
    "next_steps": 6,
    "main": 7,
    "benchmark": 7,
    "doctor": 7,
    "export": 7,
    "demo": 7,
    "plot": 7,
    "benchmark.paper": 8,  # the commands below know nothing of it
    "__init__": 7,
    "convert": 7,  # beside all others: nobody imports it
}
STAGES = ("evqgan.training.stage1", "evqgan.training.stage2")
# The loop takes its stage from the config.
BY_NAME = {("evqgan.training.loop", stage) for stage in STAGES}
ACCELERATED = {"jax", "flax"}  # metrics are of NumPy arrays: they run wherever these are
CONFIGS_IMPORT = {"configs", "ml_collections", *sys.stdlib_module_names}


def imports(source, module):
    """The dotted names that a module's source imports, wherever in the file.

    Relative ones are given as absolute.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part(name):
    """The part that a dotted name of evqgan belongs to: "evqgan.core.files.atomic" -> "core".

    A package within a package is one where LAYERS names it.
    """
    names = [*name.split("."), "__init__"]
    inner = ".".join(names[1:3])
    return inner if inner in LAYERS else names[1]


def violations(source, module):
    """One line for every import of `module` (a dotted name) that the layers do not allow."""
    own = part(module)
    if module.startswith("evqgan") and own not in LAYERS:
        return [f"{module} has no layer: give it one in this test"]
    found = []
    for name in imports(source, module):
        root, other = name.split(".")[0], part(name)
        if module.startswith("configs"):
            wrong = root not in CONFIGS_IMPORT
        elif root == "torch":
            wrong = own != "convert"
        elif root != "evqgan":
            wrong = root in {"tensorflow", "configs"} or (own == "metrics" and root in ACCELERATED)
        elif name == "evqgan":
            wrong = LAYERS[own] < 5  # for the version; from there every module could be reached
        elif other not in LAYERS:
            wrong = True
        else:
            below = LAYERS[other] < LAYERS[own] or own == other
            by_name = any(module == a and f"{name}.".startswith(f"{b}.") for a, b in BY_NAME)
            wrong = not below or by_name or (other == "convert" and own != other)
        if wrong:
            found.append(f"{module} imports {name}")
    return found


def modules():
    """(dotted name, path) of every Python file of evqgan and configs."""
    for path in sorted([*ROOT.glob("evqgan/**/*.py"), *ROOT.glob("configs/**/*.py")]):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def test_the_layers_are_kept():
    found = [line for module, path in modules() for line in violations(path.read_text(), module)]
    assert not found, "\n".join(found)


def test_files_are_small_and_named_for_what_they_hold():
    paths = [path for _, path in modules()]
    assert paths
    long = [
        f"{path} has {n} lines"
        for path in paths
        if (n := len(path.read_text().splitlines())) > LINES
    ]
    assert not long, "\n".join(long)
    assert not [path for path in paths if path.stem == "utils"]


@pytest.mark.parametrize(
    "module, source",
    [
        ("evqgan.core.metrics_writer", "from evqgan.nn import windows"),
        ("evqgan.nn.attention", "import evqgan.tokenizers.swin"),
        ("evqgan.generators.multigrained", "from evqgan.tokenizers.tokenizer import Tokenizer"),
        ("evqgan.data.pipeline", "from ..losses import gan"),
        ("evqgan.data.builders.digits", "from ...training import stage1"),
        ("evqgan.tokenizers.swin", "def f():\n    from evqgan.training import stage1"),
        ("evqgan.models", "from evqgan.training import optim"),
        ("evqgan.evals.generation", "from evqgan.inference import model"),
        ("evqgan.metrics.frechet", "from evqgan.nn import inception"),
        ("evqgan.metrics.frechet", "import jax.numpy as jnp"),
        ("evqgan.training.loop", "from evqgan.training import stage1"),
        ("evqgan.training.loop", "from evqgan import quickstart"),
        ("evqgan.inference.model", "import evqgan.main"),
        ("evqgan.main", "from evqgan.convert import taming"),
        ("evqgan.convert.taming", "from evqgan.benchmark import step"),
        ("evqgan.benchmark.step", "from evqgan.benchmark.paper import table6"),
        ("evqgan.benchmark.step", "from evqgan.benchmark import paper"),
        ("evqgan.main", "from evqgan import nosuch"),
        ("evqgan.nosuch", ""),
        ("evqgan.evals.generation", "import evqgan"),
        ("evqgan.training.resume_rules", "from evqgan.inference import model"),
        ("evqgan.inference.model", "from evqgan.training import stage"),
        ("evqgan.nn.vgg", "import torch"),
        ("evqgan.data.pipeline", "import tensorflow as tf"),
        ("evqgan.main", "from configs import quickstart"),
        ("configs.quickstart", "from evqgan import core"),
        ("configs.quickstart", "import jax"),
    ],
)
def test_a_violation_is_found(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    "module, source",
    [
        ("evqgan.core.metrics_writer", "import json\nfrom evqgan.core.errors import InputError"),
        (
            "evqgan.generators.multigrained",
            "from evqgan.core import build\nfrom evqgan.generators import masking",
        ),
        (
            "evqgan.tokenizers.swin",
            "from .quantizers import vq\nfrom ..nn.windows import partition",
        ),
        ("evqgan.data.builders.digits", "import tensorflow_datasets as tfds"),
        (
            "evqgan.training.stage2",
            "from evqgan.generators import sampling\nfrom evqgan.training import optim",
        ),
        (
            "evqgan.quickstart",
            "from evqgan.training import loop\nfrom evqgan.inference import mode_sample",
        ),
        ("evqgan.evals.generation", "from evqgan.metrics import frechet"),
        ("evqgan.metrics.mmd", "import scipy\nfrom evqgan.core.errors import InputError"),
        ("evqgan.benchmark.paper.table6", "from evqgan.benchmark.paper import beside"),
        ("evqgan.benchmark.paper.table6", "from evqgan.benchmark import step"),
        ("evqgan.main", "import evqgan"),
        ("evqgan.main", "from evqgan import quickstart\nfrom evqgan.training import loop"),
        ("evqgan.convert.taming", "import torch\nfrom evqgan.tokenizers import cnn"),
        (
            "configs.photos_stage1",
            "import math\nfrom ml_collections import ConfigDict\nfrom configs import quickstart",
        ),
    ],
)
def test_what_is_allowed_is_not_found(module, source):
    assert violations(source, module) == []
