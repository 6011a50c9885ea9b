"""The weights that are meant in a public checkpoint, by their plain names.

Plain names lack what wrappers put before them. Where a file holds raw and averaged weights, one of
both is taken.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from evqgan.core.errors import InputError

# Before all names: of DistributedDataParallel, of torch.compile, of a Lightning module that holds
# the model.
WRAPPERS = ("module.", "_orig_mod.", "model.")
COMPILED = "_orig_mod."  # also within a name, where a part was compiled
# Where a checkpoint keeps its weights, and its averaged ones beside them.
RAW = ("state_dict", "model", "params")
AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_params")
# Before the names of averaged weights that stand among the raw ones.
AVERAGES = ("model_ema.", "ema_model.", "ema.")
# Of averaging itself, no weights.
COUNTERS = ("decay", "num_updates", "n_averaged", "initted", "step")
WHICH = ("raw", "ema")
BOTH = "it holds raw and averaged weights"  # begins the message where a choice is open

T = TypeVar("T")


def check_which(which: str) -> None:
    """Raise InputError unless --weights names one of the two kinds, or none."""
    if which not in ("", *WHICH):
        raise InputError(f"--weights is raw or ema, not {which!r}")


def chosen(
    found: Any,
    which: str,
    holds: Callable[[Any], bool],
    raw: Sequence[str] = RAW,
    averaged: Sequence[str] = AVERAGED,
) -> tuple[Any, str]:
    """Return the part of the dict `found` that holds the weights, and what is still to be chosen.

    The part is `found` itself if none of its values holds weights. The second result is `which`, or
    "" if raw and averaged weights were parts of their own, of which one is chosen now.

    which: "raw", "ema" or "".
    holds: a function that returns whether a value is a dict of weights.
    raw, averaged: the keys under which the parts may stand.

    Raises InputError if there are both and `which` is "".
    """
    first, second = (
        next((found[key] for key in keys if holds(found.get(key))), None)
        for keys in (raw, averaged)
    )
    if first is None and holds(found):
        first = found
    if second is None:
        return found if first is None else first, which
    return one_of(first, second, which), ""


def plain(weights: dict[str, T], which: str) -> dict[str, T]:
    """Return {name: weight} with plain names.

    Averaged ones among raw ones are taken or left as `which` says.

    Raises InputError if both are there and `which` is "", or if two weights then have one name.
    """
    weights = unwrapped(weights)
    prefix = next((p for p in AVERAGES if any(name.startswith(p) for name in weights)), None)
    if prefix is None:
        return one_of(weights, None, which)
    size = len(prefix)
    averaged = {name[size:]: x for name, x in weights.items() if name.startswith(prefix)}
    averaged = unwrapped({name: x for name, x in averaged.items() if name not in COUNTERS})
    raw = unwrapped({name: x for name, x in weights.items() if not name.startswith(prefix)})
    # latent-diffusion's LitEma takes the dots out.
    dotless = {name.replace(".", ""): name for name in raw}
    if averaged and all(name in dotless for name in averaged):
        averaged = {dotless[name]: x for name, x in averaged.items()}
    if raw and one_of(raw, averaged, which) is averaged:
        averaged = raw | averaged  # buffers are not averaged
    return one_of(raw or None, averaged, which)


def one_of(raw: Any, averaged: Any, which: str) -> Any:
    """Return `raw` or `averaged` weights, None where there are none, as `which` says.

    Raises InputError for a choice left open.
    """
    if raw is not None and averaged is not None and not which:
        hint = "say which by --weights=raw or --weights=ema"
        raise InputError(f"{BOTH}: {hint}")
    if which == "ema" and averaged is None:
        raise InputError("it holds no averaged weights that are known as such: drop --weights=ema")
    if which == "raw" and raw is None:
        raise InputError("it holds averaged weights alone: drop --weights=raw")
    return averaged if which == "ema" or raw is None else raw


def unwrapped(weights: dict[str, T]) -> dict[str, T]:
    """Return {name: weight} without the prefixes of wrappers.

    Raises InputError if two weights then have one name.
    """
    names = list(weights)
    while prefix := _shared_prefix(names):
        names = [name.removeprefix(prefix) for name in names]
    names = [name.replace(COMPILED, "") for name in names]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        when = "once the prefixes of wrappers are gone"
        raise InputError(f"two of its weights are called {twice} {when}")
    return dict(zip(names, weights.values(), strict=True))


def _shared_prefix(names: Sequence[str]) -> str:
    """Return the prefix of a wrapper that all names have, or ""."""
    for prefix in WRAPPERS:
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""
