"""Who may import whom: a module imports from the floors below it, packages of one floor do not know each other."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LINES = 350  # a longer file asks to be two
FLOORS = {
    "core": 0,
    "nn": 1,
    "tokenizers": 2,
    "generators": 2,
    "critics": 2,
    "data": 2,
    "edit": 2,
    "rejection": 2,
    "steps": 3,
    "adversary": 3,
    "beginning": 3,
    "stage1": 3,
    "stage2": 3,
    "sample": 3,
    "evals": 3,
    "train": 4,
    "encode": 4,
    "evaluate": 4,
    "quickstart": 4,
    "commands": 4,
    "main": 5,
    "benchmark": 5,
    "__init__": 5,
    "convert": 5,  # beside the tower: nobody imports it
}
SAME_FLOOR = {  # the quickstart is two runs of the loop, then each command; a command uses the loop's evaluators;
    # the adversarial term is a part of stage 1
    ("stage1", "adversary"),
    ("quickstart", "train"),
    ("quickstart", "commands"),
    ("quickstart", "evaluate"),
    ("commands", "train"),
    ("evaluate", "train"),
}
BY_NAME = {("train", "stage1"), ("train", "stage2")}  # the loop takes its stage from the config
CONFIGS_IMPORT = {"configs", "ml_collections", *sys.stdlib_module_names}


def imports(source, module):
    """The dotted names that a module's source imports, wherever in the file; relative ones as absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part(name):
    """The part of the tower that a dotted name of evqgan belongs to: "evqgan.core.log.Writer" -> "core"."""
    return [*name.split("."), "__init__"][1]


def violations(source, module):
    """One line for every import of `module` (a dotted name) that the floors do not allow."""
    own = part(module)
    if module.startswith("evqgan") and own not in FLOORS:
        return [f"{module} has no floor: give it one in this test"]
    found = []
    for name in imports(source, module):
        root, other = name.split(".")[0], part(name)
        if module.startswith("configs"):
            wrong = root not in CONFIGS_IMPORT
        elif root == "torch":
            wrong = own != "convert"
        elif root != "evqgan":
            wrong = root in {"tensorflow", "configs"}
        elif name == "evqgan":
            wrong = FLOORS[own] < 4  # for the version; from there every module could be reached
        elif other not in FLOORS:
            wrong = True
        else:
            pair = (own, other)
            below = FLOORS[other] < FLOORS[own] or own == other or pair in SAME_FLOOR
            wrong = not below or pair in BY_NAME or (other == "convert" and own != other)
        if wrong:
            found.append(f"{module} imports {name}")
    return found


def modules():
    """(dotted name, path) of every Python file of evqgan and configs."""
    for path in sorted([*ROOT.glob("evqgan/**/*.py"), *ROOT.glob("configs/**/*.py")]):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def test_the_floors_are_kept():
    found = [line for module, path in modules() for line in violations(path.read_text(), module)]
    assert not found, "\n".join(found)


def test_files_are_small_and_named_for_what_they_hold():
    paths = [path for _, path in modules()]
    assert paths
    long = [f"{path} has {n} lines" for path in paths if (n := len(path.read_text().splitlines())) > LINES]
    assert not long, "\n".join(long)
    assert not [path for path in paths if path.stem == "utils"]


@pytest.mark.parametrize(
    "module, source",
    [
        ("evqgan.core.log", "from evqgan.nn import windows"),
        ("evqgan.nn.attention", "import evqgan.tokenizers.swin"),
        ("evqgan.generators.multigrained", "from evqgan.tokenizers.tokenizer import Tokenizer"),
        ("evqgan.data.pipeline", "from ..critics import gan"),
        ("evqgan.data.builders.digits", "from ... import stage1"),
        ("evqgan.tokenizers.swin", "def f():\n    from evqgan import stage1"),
        ("evqgan.stage1", "from evqgan import stage2"),
        ("evqgan.evals.samples", "from evqgan import sample"),
        ("evqgan.train", "from evqgan import stage1"),
        ("evqgan.train", "from evqgan import quickstart"),
        ("evqgan.sample", "import evqgan.main"),
        ("evqgan.main", "from evqgan.convert import taming"),
        ("evqgan.convert.taming", "from evqgan.benchmark import table6"),
        ("evqgan.main", "from evqgan import nosuch"),
        ("evqgan.nosuch", ""),
        ("evqgan.evals.samples", "import evqgan"),
        ("evqgan.train", "from evqgan import commands"),
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
        ("evqgan.core.log", "import json\nfrom evqgan.core.errors import InputError"),
        ("evqgan.generators.multigrained", "from evqgan.core import build\nfrom evqgan.generators import decoding"),
        ("evqgan.tokenizers.swin", "from . import quantizers\nfrom ..nn.windows import partition"),
        ("evqgan.data.builders.digits", "import tensorflow_datasets as tfds"),
        ("evqgan.stage2", "from evqgan.generators import decoding\nfrom evqgan.core import mesh"),
        ("evqgan.quickstart", "from evqgan import commands, evaluate, sample, train"),
        ("evqgan.evaluate", "import evqgan"),
        ("evqgan.main", "from evqgan import quickstart, train"),
        ("evqgan.convert.taming", "import torch\nfrom evqgan.tokenizers import cnn"),
        ("configs.photos_stage1", "import math\nfrom ml_collections import ConfigDict\nfrom configs import quickstart"),
    ],
)
def test_what_is_allowed_is_not_found(module, source):
    assert violations(source, module) == []
