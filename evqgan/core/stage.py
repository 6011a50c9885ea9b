"""What the training loop knows of a stage."""

from collections.abc import Callable
from typing import NamedTuple


class Stage(NamedTuple):
    """A stage as functions; `state` is a dict pytree of arrays of which the loop reads what `optim.begin` puts there.

    Each stage module has `resolve(config) -> config`, which fills in what the config takes from other workdirs, and
    `make(config, examples, classes) -> Stage`. batch: {"image" uint8 [B,H,W,3] or
    "ids" int32 [B,h,w,D], "label" int32 [B]}.
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
