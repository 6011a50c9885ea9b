"""Every experiment: it loads, its head says how to run it, its size is known, and its tiny form trains."""

import importlib.util
import pathlib

import jax
import pytest

from evqgan import stage1
from evqgan.core import build

ROOT = pathlib.Path(__file__).parent.parent
ALL = sorted(p for p in (ROOT / "configs").glob("**/*.py") if p.name not in ("common.py", "__init__.py"))
FILES = [path for path in ALL if path.stem != "comparison"]  # of several systems: tests/test_comparison.py

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
    ("ffhq_stage2", "vqgan"): 183_971_328,
    ("imagenet_stage2", "vqgan"): 200_484_096,
    # The compared systems: those of the originals exactly, but for VIM (its paper gives 650 M and 1697 M and not how)
    # and for RQ-VAE's 16384 (2048) codes and a row of zeros, 4,194,560 (524,544) numbers that no gradient trains.
    ("maskgit_imagenet_stage1", ""): 54_515_587,
    ("maskgit_imagenet_stage1", "512"): 54_515_587,
    ("maskgit_imagenet_stage2", ""): 172_457_193,
    ("maskgit_imagenet_stage2", "512"): 173_047_017,
    ("rqtransformer_ffhq_stage2", ""): 355_393_536,
    ("rqtransformer_imagenet_stage2", ""): 480_921_088,
    ("rqtransformer_imagenet_stage2", "800m"): 820_899_328,
    ("rqtransformer_imagenet_stage2", "1400m"): 1_387_529_728,
    ("rqtransformer_imagenet_stage2", "3800m"): 3_822_488_064,
    ("rqvae_ffhq_stage1", ""): 100_207_491,
    ("rqvae_imagenet_stage1", ""): 100_207_491,
    ("vim_ffhq_stage2", ""): 1_848_557_568,
    ("vim_imagenet_stage2", ""): 708_235_776,
    ("vim_imagenet_stage2", "large"): 1_850_603_520,
    ("vitvqgan_ffhq_stage1", ""): 172_237_347,
    ("vitvqgan_imagenet_stage1", ""): 172_237_347,
    ("vitvqgan_imagenet_stage1", "small"): 51_956_771,
    ("vitvqgan_imagenet_stage1", "large"): 615_322_915,
    ("vqgan_ffhq_stage1", ""): 72_141_699,
    ("vqgan_ffhq_stage2", ""): 304_932_864,
    ("vqgan_ffhq_stage2", "1024"): 304_932_864,
    ("vqgan_imagenet_stage1", ""): 76_073_859,
    ("vqgan_imagenet_stage1", "1024"): 72_141_699,
    ("vqgan_imagenet_stage1", "gumbel"): 68_995_971,
    ("vqgan_imagenet_stage2", ""): 1_410_640_896,
}


def load(name, variant=""):
    """The config as config_flags reads it."""
    (path,) = (path for path in ALL if path.stem == name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def part(name, variant):
    """The config of one stage, with a tokenizer where it needs one."""
    config = load(name, "" if name == "quickstart" else variant)
    if name == "quickstart":
        tokenizer, config = config.tokenizer.tokenizer, config[variant]
    elif config.stage == "stage2":
        workdir = pathlib.Path(config.tokenizer.weights).name  # named after the config, or after its variant
        first = next(key for key in PARAMETERS if "_".join(filter(None, key)) == workdir)
        tokenizer = load(*first).tokenizer
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
    if config.dataset.size > 128 and variant != "vqgan" and config.get("generator", {}).get("name") == "multigrained":
        assert 180e6 < count < 190e6


def test_no_config_is_missing_from_the_table():
    assert {p.stem for p in FILES} == {name for name, _ in PARAMETERS}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_head_gives_the_command_and_an_unknown_variant_is_named(path):
    head = path.read_text().split('"""')[1]
    assert str(path.relative_to(ROOT)) in head or path.stem == "quickstart"
    assert ":tiny" in head
    with pytest.raises(ValueError, match="there is no variant 'huge' of this config: expected one of .*tiny"):
        load(path.stem, "huge")


@pytest.mark.parametrize("name", [p.stem for p in FILES if p.stem != "quickstart"])
def test_the_tiny_form_trains(name, tmp_path):
    from workdirs import quick_to_compile  # which reads configs by this file

    from evqgan.train import train

    config = load(name, "tiny")
    with quick_to_compile():
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
