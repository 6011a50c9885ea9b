"""The weights that are meant in a public checkpoint, by their plain names: without what wrappers put before them, and
either raw or averaged where a file holds both."""

from collections.abc import Callable, Sequence
from typing import Any

from evqgan.convert.mapping import Weights
from evqgan.core.errors import InputError

# Before all names: of DistributedDataParallel, of torch.compile, of a Lightning module that holds the model.
WRAPPERS = ("module.", "_orig_mod.", "model.")
COMPILED = "_orig_mod."  # also within a name, where a part was compiled
RAW = (
    "state_dict",
    "model",
    "params",
)  # where a checkpoint keeps its weights, and its averaged ones beside them
AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_params")
AVERAGES = (
    "model_ema.",
    "ema_model.",
    "ema.",
)  # before the names of averaged weights that stand among the raw ones
COUNTERS = (
    "decay",
    "num_updates",
    "n_averaged",
    "initted",
    "step",
)  # of averaging itself, no weights
WHICH = ("raw", "ema")


def chosen(
    found: Any,
    which: str,
    holds: Callable[[Any], bool],
    raw: Sequence[str] = RAW,
    averaged: Sequence[str] = AVERAGED,
) -> Any:
    """The part of the dict `found` that holds the weights, itself where no part does, and what of `which` is left open.

    which: "raw", "ema" or "". holds(value): whether it is a dict of weights. raw, averaged: the keys of such parts.
    InputError if there are both and `which` is "".
    """
    parts = [
        next((found[key] for key in keys if holds(found.get(key))), None)
        for keys in (raw, averaged)
    ]
    if parts[0] is None and holds(found):
        parts[0] = found
    if parts[1] is None:
        return found if parts[0] is None else parts[0], which
    return one_of(*parts, which), ""


def plain(weights: Weights, which: str) -> Weights:
    """{name: weight} with plain names; averaged ones among raw ones are taken or left as `which` says.

    InputError if both are there and `which` is "", or if two weights then have one name.
    """
    weights = unwrapped(weights)
    prefix = next((p for p in AVERAGES if any(name.startswith(p) for name in weights)), None)
    if prefix is None:
        return one_of(weights, None, which)
    averaged = {
        name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)
    }
    averaged = unwrapped({name: x for name, x in averaged.items() if name not in COUNTERS})
    raw = unwrapped({name: x for name, x in weights.items() if not name.startswith(prefix)})
    dotless = {
        name.replace(".", ""): name for name in raw
    }  # latent-diffusion's LitEma takes the dots out
    if averaged and all(name in dotless for name in averaged):
        averaged = {dotless[name]: x for name, x in averaged.items()}
    if raw and one_of(raw, averaged, which) is averaged:
        averaged = raw | averaged  # buffers are not averaged
    return one_of(raw or None, averaged, which)


def one_of(raw: Weights | None, averaged: Weights | None, which: str) -> Any:
    """`raw` or `averaged` weights, None where there are none, as `which` says; InputError for a choice left open."""
    if raw is not None and averaged is not None and not which:
        raise InputError(
            "it holds raw and averaged weights: say which by --weights=raw or --weights=ema"
        )
    if which == "ema" and averaged is None:
        raise InputError("it holds no averaged weights that are known as such: drop --weights=ema")
    if which == "raw" and raw is None:
        raise InputError("it holds averaged weights alone: drop --weights=raw")
    return averaged if which == "ema" or raw is None else raw


def unwrapped(weights: Weights) -> Weights:
    """{name: weight} without the prefixes of wrappers; InputError if two weights then have one name."""
    names = list(weights)
    while prefix := next(
        (p for p in WRAPPERS if names and all(name.startswith(p) for name in names)), None
    ):
        names = [name.removeprefix(prefix) for name in names]
    names = [name.replace(COMPILED, "") for name in names]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"two of its weights are called {twice} once the prefixes of wrappers are gone"
        )
    return dict(zip(names, weights.values(), strict=True))
