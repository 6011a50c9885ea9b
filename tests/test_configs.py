"""Every experiment: it loads, its head says how to run it, its size is known, and its tiny form trains."""

import importlib.util
import pathlib

import jax
import pytest

from evqgan import stage1
from evqgan.core import build

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(p for p in (ROOT / "configs").glob("**/*.py") if p.name not in ("common.py", "__init__.py"))

# (config, variant): trained parameters. The exact numbers are ours; the paper gives 185 M for stage 2 (Table 6).
PARAMETERS = {
    ("quickstart", "tokenizer"): 214_971,
    ("quickstart", "generator"): 884_064,
    ("photos_stage1", ""): 1_140_847,
    ("photos_stage1", "perceptual"): 1_140_847,
    ("photos_stage1", "l2"): 1_140_847,
    ("photos_stage1", "global"): 1_250_607,  # 9.6 % more, all of it in tables of relative positions
    ("photos_stage2", ""): 1_038_496,
    ("imagenet_stage1", ""): 119_460_147,
    ("imagenet_stage1", "f8"): 29_991_667,
    ("imagenet_stage1", "512"): 119_460_147,
    ("imagenet_stage2", ""): 184_740_096,
    ("imagenet_stage2", "512"): 184_773_888,
    ("ffhq_stage1", ""): 43_716_531,
    ("ffhq_stage1", "f8"): 10_994_227,
    ("ffhq_stage1", "1024"): 43_716_531,
    ("ffhq_stage2", ""): 183_971_328,
    ("ffhq_stage2", "1024"): 184_091_136,
    ("celebahq_stage1", ""): 43_716_531,
    ("celebahq_stage2", ""): 183_971_328,
}


def load(name, variant=""):
    """The config as config_flags reads it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def part(name, variant):
    """The config of one stage, with a tokenizer where it needs one."""
    config = load(name, "" if name == "quickstart" else variant)
    if name == "quickstart":
        tokenizer, config = config.tokenizer.tokenizer, config[variant]
    elif config.stage == "stage2":
        first = name.replace("stage2", "stage1")
        tokenizer = load(first, variant if (first, variant) in PARAMETERS else "").tokenizer
    if config.stage == "stage2":
        config.tokenizer.model = tokenizer
    return config


@pytest.mark.parametrize("name, variant", PARAMETERS)
def test_parameters_are_exactly(name, variant):
    config = part(name, variant)
    stage = build.module("", config.stage, "config.stage").make(config, examples=10**6)
    shapes = jax.eval_shape(stage.init)
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert count == PARAMETERS[name, variant]
    if config.stage == "stage2" and name not in ("quickstart", "photos_stage2"):
        assert 180e6 < count < 190e6


def test_no_config_is_missing_from_the_table():
    assert {p.stem for p in FILES} == {name for name, _ in PARAMETERS}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_head_gives_the_command_and_an_unknown_variant_is_named(path):
    head = path.read_text().split('"""')[1]
    assert f"configs/{path.name}" in head or path.stem == "quickstart"
    assert ":tiny" in head
    with pytest.raises(ValueError, match="there is no variant 'huge' of this config: expected one of .*tiny"):
        load(path.stem, "huge")


@pytest.mark.parametrize("name", [p.stem for p in FILES if p.stem != "quickstart"])
def test_the_tiny_form_trains(name, tmp_path):
    from evqgan.train import train

    config = load(name, "tiny")
    state = train(config, tmp_path)
    assert int(state["step"]) == 4
    assert (tmp_path / "metrics.jsonl").read_text().count('"train/loss"') == 4
    assert list((tmp_path / "samples").glob("*.png"))


@pytest.mark.parametrize(
    "name, variant", [pytest.param("imagenet_stage1", "", marks=pytest.mark.slow), ("ffhq_stage1", "1024")]
)
def test_a_full_size_step_in_bfloat16_keeps_the_types_of_its_state(name, variant):
    """Traced, not run: all terms of the loss, the tokenizer and the critic at full size."""
    config = load(name, variant)
    assert config.dtype == "bfloat16"
    config.perceptual.weights = config.adversarial.weights = "random"
    stage = stage1.make(config, 10**6)
    state = jax.eval_shape(stage.init)
    batch = {
        "image": jax.ShapeDtypeStruct((2, config.dataset.size, config.dataset.size, 3), "uint8"),
        "label": jax.ShapeDtypeStruct((2,), "int32"),
    }
    new, metrics = jax.eval_shape(stage.update, state, batch)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
    assert {"l2", "perceptual", "adversarial", "lambda", "critic_loss"} <= metrics.keys()
    assert all(value.dtype in ("float32", "int32") for value in metrics.values())
