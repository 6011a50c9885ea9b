"""Quantizer sections from before quantizers had names: what they are called now.

Workdirs with them go on.
"""

import json

import pytest
from ml_collections import ConfigDict
from test_configs import load

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.tokenizers import tokenizer
from evqgan.tokenizers.quantizers import old_form
from evqgan.training import resume_rules

SMALL = {"codes": 16, "width": 4}
RQ = {"depth": 4, "ema": 0.99, "revive": 1.0}
SAME = {  # a section of then: one of now
    "vq": ({}, {"name": "vq"}),
    "kind": ({"kind": "vq", "l2_normalize": True}, {"name": "vq", "l2_normalize": True}),
    "ema": ({"ema": 0.9, "revive": 0.1}, {"name": "ema", "decay": 0.9, "revive": 0.1}),
    "of VQGAN, ema": (
        {"ema": 0.9, "swapped_commitment": True},
        {"name": "ema", "decay": 0.9, "commitment": 1.0},
    ),
    "revived": ({"revive": 0.5}, {"name": "revived", "revive": 0.5}),
    "by gradient, residual": ({"depth": 3}, {"name": "residual", "depth": 3, "decay": 0.0}),
    "residual": (RQ, {"name": "residual", "depth": 4, "decay": 0.99, "revive": 1.0}),
    "RQ-VAE": ({**RQ, "absolute_counts": True, "between_depths": True}, {"name": "rqvae"}),
    "VQGAN": (
        {"swapped_commitment": True, "commitment": 0.3},
        {"name": "vqgan", "commitment": 0.3},
    ),
    "MaskGIT": (
        {"entropy": 0.1, "entropy_target": "argmax"},
        {"name": "maskgit", "entropy_target": "argmax"},
    ),
    "ViT-VQGAN": ({"l2_normalize": True, "unnormalized_gradient": True}, {"name": "vitvqgan"}),
    "ViT-VQGAN, residual": (
        {
            "depth": 2,
            "l2_normalize": True,
            "unnormalized_gradient": True,
            "detached_residual": True,
        },
        {"name": "vitvqgan", "depth": 2, "detached_residual": True},
    ),
    "Gumbel": ({"kind": "gumbel", "anneal": 3}, {"name": "gumbel", "anneal": 3}),
    "Gumbel of MaskGIT": (
        {"kind": "gumbel", "logits": "distance", "hard": False, "noiseless_ids": True},
        {"name": "maskgit_gumbel", "kl_weight": 5e-4, "final_temperature": 1 / 16},
    ),
}


def made(section):
    named = old_form.renamed({**SMALL, **section})
    return build.build("tokenizers.quantizers", "Quantizer", named, "config.tokenizer.quantizer")


@pytest.mark.parametrize("then, now", SAME.values(), ids=SAME.keys())
def test_a_section_of_then_makes_the_quantizer_of_now(then, now):
    assert made(then) == made(now)
    assert old_form.renamed(now) is now


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"codez": 8}, "has no key 'codez': did you mean 'codes'"),
        ({"kind": "gumble"}, "did you mean 'gumbel'"),
        ({"kind": "gumbel", "depth": 2}, "no key 'depth'"),
        ({"entropy": 0.1, "depth": 2}, "no key 'depth'"),
        ({"depth": 2, "ema": 0.9, "between_depths": True}, "no key 'between_depths'"),
        ({"depth": "two"}, "depth expects a whole number"),
    ],
)
def test_a_wrong_key_of_then_is_refused_in_one_line(wrong, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        made(wrong)
    assert "\n" not in str(error.value)


def test_a_tokenizer_reads_both_forms():
    config = load("quickstart", "tiny").tokenizer.tokenizer
    now = tokenizer.make(config)
    config.quantizer = {"codes": 64, "width": 8, "ema": 0.9, "revive": 0.1}
    assert tokenizer.make(config) == now


def test_a_workdir_of_then_goes_on_with_the_config_of_now_and_with_no_other(tmp_path):
    config = load("quickstart", "tiny").tokenizer
    then = json.loads(config.to_json())
    then["tokenizer"]["quantizer"] = {"codes": 64, "width": 8, "ema": 0.9, "revive": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(then))
    resume_rules.check_claim(tmp_path, config)
    resume_rules.check_claim(tmp_path, ConfigDict(then))
    config.tokenizer.quantizer.decay = 0.8
    with pytest.raises(InputError, match="config.tokenizer.quantizer.decay: 0.9 -> 0.8"):
        resume_rules.check_claim(tmp_path, config)


def test_a_generator_of_then_goes_on_too(tmp_path):
    config = load("quickstart", "tiny").generator
    config.tokenizer.weights = "random"
    config.tokenizer.model = load("quickstart", "tiny").tokenizer.tokenizer
    then = json.loads(config.to_json())
    then["tokenizer"]["model"]["quantizer"] = {"codes": 64, "width": 8, "ema": 0.9, "revive": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(then))
    resume_rules.check_claim(tmp_path, config)
