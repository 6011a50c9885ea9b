"""What the training loop knows of a stage."""

import json
from collections.abc import Collection
from types import ModuleType
from typing import Any, Protocol

from evqgan.core import build, schema
from evqgan.tokenizers.quantizers import old_form
from evqgan.training import optim


class Stage(Protocol):
    """A stage of training.

    Its state is a dict pytree of arrays, of which the loop reads only the counters of
    `skipping.init_counters`. The module of a stage has `resolve` and `make`, see `StageModule`.
    """

    notes: tuple[str, ...]  # lines for the log of every run, such as what is not trained
    progress_keys: tuple[str, ...]  # metrics that come first in the progress line
    # A stage may have two programs of a step: `early_update`, which leaves out what does not count
    # yet, for so many steps at the beginning, and `update` for all others. 0: `update` alone.
    early_steps: int
    model: Any  # `models.of(config)`: what evaluators and people use of it
    updater: optim.Updater  # of the model's weights
    data_advice: str  # "for a new run ...": what makes it wait less for images

    def init(self) -> dict:
        """Return the first state; traceable, and the same for the same seed."""

    def load(self, state: dict, saved: Collection[str] = ()) -> dict:
        """Return the state with pretrained weights filled in. Called once, when a new run begins.

        saved: the top-level keys of the state that a checkpoint of converted weights in the workdir
          provides, so that they need not be read here.
        """

    def check(self, state: dict) -> None:
        """Raise ContractError for a model that evaluators cannot measure.

        state: the abstract state, with "ema".
        """

    def update(self, state: dict, batch: dict) -> tuple[dict, dict]:
        """Return the state after a step, by `skipping.skip_if_nonfinite`, and metrics.

        Metrics of the modules that a config names are joined with its own by `contracts.joined`.

        batch: {"image" uint8 [B,H,W,3] or "ids" int32 [B,h,w,D], "label" int32 [B]}.
        metrics: {name: scalar}.
        What is random is a function of (seed, step) alone.
        """

    def early_update(self, state: dict, batch: dict) -> tuple[dict, dict]:
        """Take one of the first `early_steps` steps, without what does not count yet.

        What is left out is, for example, a critic that does not judge yet: the program is smaller
        without it. Its metrics are absent.
        """


class StageModule(Protocol):
    """What the module of a stage has."""

    def resolve(self, config: Any, classes: int | None = None) -> Any:
        """Return the config, completed by what other workdirs and the data determine.

        classes: the number of classes of the data; None before the data are opened.
        """

    def make(self, config: Any, examples: int = 1, classes: int | None = None) -> Stage:
        """Return the Stage of a resolved config.

        examples: of the training set.
        classes: how many the data have; None if that is not known.
        """


def module(config: Any, where: str = "config") -> ModuleType:
    """Return the module of config.stage.

    Raises InputError unless the config, called `where` in messages, has the keys of its stage.
    """
    schema.check(config, where)
    return build.module("training", config.stage, f"{where}.stage", *build.contract(StageModule))


def with_defaults(config: Any) -> dict:
    """Return the config of a stage as JSON has it, with the defaults of all keys it leaves out."""
    full = json.loads(config.to_json())
    with build.defaults() as found:
        module(config).make(config)
    tokenizer = full["tokenizer"].get("model") or full["tokenizer"]
    if "quantizer" in tokenizer:  # of a workdir from before quantizers had names
        tokenizer["quantizer"] = old_form.renamed(tokenizer["quantizer"])
        for name, value in found.get("config.tokenizer.quantizer", {}).items():
            tokenizer["quantizer"].setdefault(name, json.loads(json.dumps(value)))
    for where, keys in found.items():
        section = full
        for name in where.split(".")[1:]:
            section = section.get(name, {}) if isinstance(section, dict) else {}
        for name, value in keys.items():
            value = json.loads(json.dumps(value, default=lambda factory: {}))
            section.setdefault(name, value)
    return full
