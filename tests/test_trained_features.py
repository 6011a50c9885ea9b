"""The whole path with trained networks on real images: a tokenizer learns by them, and is measured.

The weights are those of the package. What networks, distances and critics compute is tested with
random ones in their own files.
"""

import json

import jax
import numpy as np
import pytest
from test_configs import load

from configs import common
from evqgan.core import weights
from evqgan.nn import efficientnet
from evqgan.training import loop

LITE0 = "efficientnet_lite0"
TERMS = ("l2", "perceptual", "adversarial", "lambda", "critic_loss", "quantizer_loss")


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The last state and the lines of the log of two steps of `photos_stage1.py`, made smaller."""
    config = load("photos_stage1")
    common.shrink(config.tokenizer)
    for coder in (config.tokenizer.encoder, config.tokenizer.decoder):
        coder.depths = (1,)
    config.dataset.update({"size": 64, "validation": "validation[:8]"})
    config.adversarial.critic.update({"cout": 8, "num_discs": 1, "im_res": 128, "interp224": False})
    config.adversarial.update({"start": "0 steps", "ramp": "0 steps"})
    config.perceptual.weights = config.adversarial.weights = str(trained)
    config.evals.reconstruction.perceptual, config.best = "", "val/rfrechet_efficientnet"
    config.batch_size, config.duration = 2, "2 steps"
    config.optimizer.warmup = "0 steps"
    common.cadence(config, "1 step", "2 steps", "2 steps")
    workdir = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        # XLA's own form of these convolutions compiles in a fraction of the time.
        patch.setattr(efficientnet, "depthwise", jax.lax.conv_general_dilated)
        state = loop.train(config, workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return state, [json.loads(line) for line in lines]


def test_both_terms_look_through_the_trained_network(run, trained):
    frozen = run[0]["frozen"]
    for network in (frozen["perceptual"]["network"], frozen["critic"]["backbone"]):
        jax.tree.map(np.testing.assert_array_equal, network, weights.load(trained, LITE0, network))


def test_all_terms_of_the_loss_train(run):
    steps = [line for line in run[1] if "train/loss" in line]
    assert len(steps) == 2
    for line in steps:
        assert all(np.isfinite(line[f"train/{name}"]) for name in TERMS)
        assert 0.01 < line["train/perceptual"] < 4 and line["train/lambda"] > 0


def test_reconstructions_are_measured_by_trained_features(run):
    """Under a name that says so; far from the photographs after two steps."""
    (line,) = [line for line in run[1] if "val/psnr" in line]
    assert line["val/rfrechet_efficientnet"] > 100
    assert not [name for name in line if "untrained" in name]
