"""What the training loop knows of a stage."""

import dataclasses
import json
from collections.abc import Callable
from typing import NamedTuple

from evqgan.core import build, mesh
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype, Often, Positive, Seed, Share

OF_EVALUATOR = ("predict", "batches", "config", "sample")  # what an Evaluator is given beside keys of the config


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfStage:
    """The keys of every stage's config and the kinds of their values; those of a section are its constructor's.

    eval_batch_size: None is batch_size. best: the number of an evaluator by which the best checkpoint is kept beside
    the `keep` latest; "" is none. alarm: {number: share of its highest value below which the log warns}. changed_data:
    a run may go on with other training images than it began with. init: a workdir of the same stage and shapes, with
    whose weights a new run begins; init_optimizer: and with its moments, too. class_names, data and began: noted by
    training, of what it is from (`pipeline.identity`) and of the step at which a longer duration found it finished.
    """

    stage: str
    seed: Seed
    dtype: Dtype
    batch_size: Positive
    duration: Often
    dataset: dict
    tokenizer: dict
    optimizer: dict
    evals: dict
    log_every: Often
    eval_every: Often
    checkpoint_every: Often
    loss: dict = dataclasses.field(default_factory=dict)
    eval_batch_size: Positive | None = None
    best: str = ""
    keep: Positive = 1
    alarm: dict[str, Share] = dataclasses.field(default_factory=dict)
    mesh: dict = dataclasses.field(default_factory=dict)
    changed_data: bool = False
    init: str = ""
    init_optimizer: bool = False
    class_names: tuple[str, ...] = ()
    data: dict | None = None
    began: int = 0


def module(config, where="config"):
    """The module of config.stage, which has `Keys`, `resolve` and `make`; InputError if there is none."""
    if not hasattr(config, "get") or "stage" not in config:
        raise InputError(f"{where} needs the key 'stage'")
    return build.module("", config.stage, f"{where}.stage", "Keys", "resolve", "make")


def check(config, where="config"):
    """The module of config.stage; InputError unless the keys of `config` are those of its stage, of the right kinds.

    What is in a section is checked by who is built from it, see `make` of the stage.
    """
    found = module(config, where)
    build.call(found.Keys, config, where)
    build.check(mesh.make, build.plain(config.get("mesh", {})), f"{where}.mesh", ["devices"])
    for name, keys in build.plain(config.evals).items():
        evaluator = build.module("evals", name, f"{where}.evals", "Evaluator").Evaluator
        build.check(evaluator, keys, f"{where}.evals.{name}", OF_EVALUATOR)
    return found


def filled(config):
    """The config of a stage as JSON has it, with the defaults of all keys that it leaves out."""
    whole = json.loads(config.to_json())
    with build.defaults() as found:
        check(config).make(config)
    for where, keys in found.items():
        section = whole
        for name in where.split(".")[1:]:
            section = section.get(name, {}) if isinstance(section, dict) else {}
        for name, value in keys.items():
            section.setdefault(name, json.loads(json.dumps(value, default=lambda factory: {})))
    return whole


class Stage(NamedTuple):
    """A stage as functions; `state` is a dict pytree of arrays of which the loop reads what `optim.begin` puts there.

    Each stage module has `resolve(config, classes=None) -> config`, which fills in what the config takes from other
    workdirs, and what from the data once these are open and have so many classes, and `make(config, examples, classes)
    -> Stage`. batch: {"image" uint8 [B,H,W,3] or "ids" int32 [B,h,w,D], "label" int32 [B]}.
    """

    init: Callable  # init() -> state; traceable, the same for the same seed
    load: Callable  # load(state, saved=()) -> state with what comes from files, but for the keys that a checkpoint of
    # converted weights has `saved`; called once, when a new run begins
    update: Callable  # update(state, batch) -> state, {name: scalar}, by `optim.advance`; random by (seed, step) alone
    predict: Callable  # predict(state, batch, rng) -> {name: array [B,...]}, for evaluators
    sample: Callable | None = None  # sample(state, ids, mask, label, keys) -> ids, image uint8; stage 2 only. Keyword
    # arguments change config.sample; with trace=True it gives ids [S,B,h,w,D] after each of S steps, V where none is
    check_mask: Callable | None = None  # check_mask(mask NumPy bool [B,h,w]): InputError if `sample` cannot fill it
    notes: tuple[str, ...] = ()  # lines for the log of every run, such as what is not trained
    shown: tuple[str, ...] = ()  # metrics that come first in the progress line
