"""What the training loop knows of a stage."""

import json
from collections.abc import Collection
from typing import Any, Protocol

from evqgan.core import build, schema
from evqgan.tokenizers.quantizers import old_form


def module(config, where="config"):
    """The module of config.stage, with `resolve` and `make`; InputError unless the config has the keys of its stage."""
    schema.check(config, where)
    return build.module("training", config.stage, f"{where}.stage", "resolve", "make")


def filled(config):
    """The config of a stage as JSON has it, with the defaults of all keys that it leaves out."""
    whole = json.loads(config.to_json())
    with build.defaults() as found:
        module(config).make(config)
    tokenizer = whole["tokenizer"].get("model") or whole["tokenizer"]
    if "quantizer" in tokenizer:  # of a workdir from before quantizers had names: what it is called now
        tokenizer["quantizer"] = old_form.renamed(tokenizer["quantizer"])
        for name, value in found.get("config.tokenizer.quantizer", {}).items():
            tokenizer["quantizer"].setdefault(name, json.loads(json.dumps(value)))
    for where, keys in found.items():
        section = whole
        for name in where.split(".")[1:]:
            section = section.get(name, {}) if isinstance(section, dict) else {}
        for name, value in keys.items():
            section.setdefault(name, json.loads(json.dumps(value, default=lambda factory: {})))
    return whole


class Stage(Protocol):
    """A stage of training. Its state is a dict pytree of arrays, of which the loop reads what `optim.begin` puts there.

    Each stage module has `resolve(config, classes=None) -> config`, which fills in what the config takes from other
    workdirs, and what from the data once these are open and have so many classes, and `make(config, examples, classes)
    -> Stage`. batch: {"image" uint8 [B,H,W,3] or "ids" int32 [B,h,w,D], "label" int32 [B]}.
    """

    notes: tuple[str, ...]  # lines for the log of every run, such as what is not trained
    shown: tuple[str, ...]  # metrics that come first in the progress line
    model: Any  # `models.of(config)`: what evaluators and people use of it

    def init(self) -> dict:
        """Return the first state; traceable, and the same for the same seed."""

    def load(self, state: dict, saved: Collection[str] = ()) -> dict:
        """Return the state with what comes from files. Called once, when a new run begins.

        saved: the top-level keys that a converted checkpoint holds already.
        """

    def update(self, state: dict, batch: dict) -> tuple[dict, dict]:
        """Return the state after a step, by `optim.advance`, and metrics {name: scalar}.

        What is random is a function of (seed, step) alone.
        """
