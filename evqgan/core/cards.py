"""Measurement cards, not model cards (`export.card`): how training says that numbers measure alike.

They are as JSON has them. `evals.provenance` makes them, and says what is on them. Two numbers of
one name compare where the `measurement_digest` of their cards is the same.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from evqgan.core import build, stores

# What may differ between the cards of numbers that compare, by its place on the card: which model
# it is, what only names the real images (their digest identifies them), and remarks.
MAY_DIFFER = ("model", "real.source", "settings.metrics", "run.commit", "warnings")
# Also between numbers of one run, as it goes on: by which code and where they were computed.
IN_A_RUN = (*MAY_DIFFER, "run")


def file_of(workdir: str | os.PathLike[str], step: int) -> pathlib.Path:
    """Return the file of the numbers and cards of an evaluation while training."""
    return stores.path(workdir) / "training" / f"evaluation_{step:07d}.json"


def plain_tree(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card without the names of its numbers, and its lists of dicts as dicts."""

    def one(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: one(inner) for name, inner in value.items()}
        if isinstance(value, list) and value and all(isinstance(x, Mapping) for x in value):
            return {str(i): one(inner) for i, inner in enumerate(value)}
        return value

    return {name: one(value) for name, value in card.items() if name != "numbers"}


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], allowed: Sequence[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return {place: (what the first card says, the second)} where two cards disagree.

    What one of them does not say is None. allowed: places that may differ; one stands for all that
    is below it.
    """
    found = build.differences(plain_tree(first), plain_tree(second))
    return {place: x for place, x in found.items() if not build.within(place, allowed)}


def measurement_digest(card: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of a sha256 of what decides how numbers were measured.

    That is all that their card says but for IN_A_RUN. What is None counts as not said.
    """
    said = differences({}, card, IN_A_RUN)
    decides = {place: value for place, (_, value) in said.items()}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def measurements(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return {"val/<name>": the `measurement_digest` of its card} of the numbers of an evaluation.

    evaluation: `evals.provenance.Evaluation`.
    """
    found: dict[str, str] = {}
    for card in evaluation["protocols"].values():
        found |= dict.fromkeys(
            (f"val/{name}" for name in card["numbers"]), measurement_digest(card)
        )
    return found


def of_step(workdir: str | os.PathLike[str], step: int) -> dict[str, Any]:
    """Return the evaluation that training noted at a step; without cards if there is none to read.

    It only says whether numbers compare: a damaged file is none.
    """
    try:
        found = json.loads(file_of(workdir, step).read_text(encoding="utf-8"))
        measurements(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {"numbers": {}, "protocols": {}}
    return found


def latest(workdir: str | os.PathLike[str], step: int) -> tuple[int, dict[str, Any]] | None:
    """Return the step of the last evaluation up to `step`, and `of_step`; None without any."""
    found = file_of(workdir, step).parent.glob("evaluation_*.json")
    numbers = [file.stem.partition("_")[2] for file in found]
    last = max((int(x) for x in numbers if x.isdecimal() and int(x) <= step), default=None)
    return None if last is None else (last, of_step(workdir, last))


def remeasured(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words which numbers of two evaluations were measured otherwise in the second one.

    Such as "val/fid (produced.count: 8 -> 64)"; one text for each evaluator.
    """
    lines = []
    for evaluator, card in now["protocols"].items():
        there = before["protocols"].get(evaluator, {"numbers": []})
        names = [f"val/{name}" for name in card["numbers"] if name in there["numbers"]]
        if names and (found := differences(there, card, IN_A_RUN)):
            lines.append(f"{', '.join(names)} ({build.listed(found)})")
    return lines
