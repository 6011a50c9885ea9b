"""Numbers of two evaluations side by side: compare A.json B.json

A and B are evaluation.json of --mode=evaluate, or training/evaluation_<step>.json of a run. Numbers
are compared whose cards agree; where these differ, one line names all places, and none is printed.

What may differ: which model it is (its workdir, step and weights), where the same images lie, and
remarks. What must not, unless --differ names its place on the card: the protocol, the real images
(split, count, size, crop, filter, uint8 rule, hash), the samples (count, seed, labels, sampler),
EMA or raw, the networks of features with their hashes, the code, JAX, the device and the dtype.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from evqgan.core import cards
from evqgan.core.cli import TEXTS, Flag
from evqgan.core.errors import InputError, cut
from evqgan.evals import provenance
from evqgan.features.names import RENAMED, network_of
from evqgan.inference.evaluation import read_evaluation

FLAGS = (
    Flag("differ", TEXTS, (), "places that may differ, too, such as run.device,produced.sampler"),
)
SHOWN = 60  # ours: characters of a value in a message
MOST = 6  # ours: differences in a message whose values it shows
# What a card has to say, and in which form: without it numbers mean nothing.
ON_A_CARD: dict[str, type] = {"protocol": str, "model": dict, "produced": dict, "run": dict}


def run(given: Any, words: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each number that both files have.

    words: the two files.

    Raises InputError, which says where, if the cards of a number differ.
    """
    if len(words) != 2:
        raise InputError(f"compare expects two files, A.json and B.json, got {len(words)}")
    files = [pathlib.Path(word).expanduser() for word in words]
    first, second = (read_evaluation(file, "give an evaluation.json") for file in files)
    both = [name for name in first["protocols"] if name in second["protocols"]]
    for word, found, other in ((words[0], first, second), (words[1], second, first)):
        numbers = found["numbers"]
        if old := [n for n in numbers if n in RENAMED and RENAMED[n] in other["numbers"]]:
            print(f"{word} is of an older version: {renamed(old)}")
    for word, found in zip(words, (first, second), strict=True):
        check_cards(word, found, both)
    check(first, second, both, words, given.differ or ())
    rows = [
        {"number": number, **row(first["numbers"].get(number), second["numbers"].get(number))}
        for name in both
        for number in common(first["protocols"][name], second["protocols"][name])
    ]
    if not rows:
        raise InputError(f"{words[0]} and {words[1]} have no number of the same name")
    for letter, word, found in zip("AB", words, (first, second), strict=True):
        models = {str(model_of(found["protocols"][name])): None for name in both}
        print(f"{letter}: {word}, {', '.join(models)}")
        if only := [name for name in found["protocols"] if name not in both]:
            print(f"{letter} alone has numbers of {', '.join(only)}")
    but = f" but for {', '.join(given.differ)}" if given.differ else ""
    return f"numbers with the same card{but}, compared on this machine", rows


def check_cards(word: str, found: provenance.Evaluation, evaluators: Sequence[str]) -> None:
    """Raise InputError if a card in the file `word` does not say how it was measured."""
    for evaluator in evaluators:
        card = found["protocols"][evaluator]
        missing = [
            name
            for name, form in ON_A_CARD.items()
            if not card.get(name) or not isinstance(card[name], form)
        ]
        features = card.get("features") or []
        if not isinstance(features, list) or not all(
            isinstance(one, dict) and isinstance(one.get("name"), str) for one in features
        ):
            missing.append("features")
        if missing:
            raise InputError(
                f"{word}: the card of {evaluator} says nothing of {', '.join(missing)}: its "
                "numbers are not comparable; measure them again by --mode=evaluate"
            )


def check(
    first: provenance.Evaluation,
    second: provenance.Evaluation,
    evaluators: list[str],
    words: list[str],
    allowed: tuple[str, ...] | list[str],
) -> None:
    """Raise InputError, which names all differences, where the cards of an evaluator differ.

    And for places in `allowed` that no card has.
    """
    every = [found["protocols"][name] for name in evaluators for found in (first, second)]
    for place in allowed:
        if every and not any(provenance.has(card, place) for card in every):
            places = ", ".join(dict.fromkeys(name for card in every for name in card))
            raise InputError(f"--differ: no card has the place {place!r}; cards have {places}")
    where: dict[str, list[str]] = {}  # what differs, and how: the evaluators
    differ = [*allowed]
    for evaluator in evaluators:
        pair = [found["protocols"][evaluator] for found in (first, second)]
        one, other = (behind(card, common(*pair)) for card in pair)
        forbidden = cards.differences(one, other, (*cards.MAY_DIFFER, *allowed))
        for place, (a, b) in forbidden.items():
            text = f"{place} is {short(a)} in A, {short(b)} in B"
            where.setdefault(text, []).append(evaluator)
            if place not in differ:
                differ.append(place)
    if where:
        texts = [f"{text} ({', '.join(some)})" for text, some in where.items()]
        more = f"; and {len(texts) - MOST} more" if len(texts) > MOST else ""
        raise InputError(
            f"the cards of A, {words[0]}, and B, {words[1]}, differ: {'; '.join(texts[:MOST])}"
            f"{more}; measure both alike, or, if that is what is compared, add "
            f"--differ={','.join(differ)}"
        )


def renamed(old: Sequence[str]) -> str:
    """Return in words which numbers are not compared, as they have other names now."""
    names = ", ".join(f"{name} there is called {RENAMED[name]} now" for name in old)
    return f"{names}, and is left out here; measure it again by --mode=evaluate"


def common(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the names of the numbers that two cards are both of."""
    return [number for number in first["numbers"] if number in second["numbers"]]


def behind(card: Mapping[str, Any], numbers: Sequence[str]) -> dict[str, Any]:
    """Return a card without the networks whose features are behind none of these numbers."""
    features = card.get("features") or ()
    names = [one["name"] for one in features]
    needed = {network_of(number, names) for number in numbers}
    kept = [one for one in features if one["name"] in needed]
    return {**card, "features": kept} if "features" in card else dict(card)


def row(first: float | None, second: float | None) -> dict[str, float | None]:
    """Return two numbers and by how much the second is larger; None is one that is not finite."""
    numbers = [math.nan if x is None else x for x in (first, second)]
    difference = numbers[1] - numbers[0]
    return {"A": first, "B": second, "B - A": difference if math.isfinite(difference) else None}


def model_of(card: dict[str, Any]) -> str:
    """Return which model a card is of, in words."""
    model = card.get("model", {})
    if "samples" in model:  # `provenance.ForeignModel`
        return f"{model['samples']}, samples of another program ({model.get('digest')})"
    return f"{model.get('workdir')} at step {model.get('step')} ({model.get('fingerprint')})"


def short(value: Any) -> str:
    """Return a value of a card in at most SHOWN characters; None is what a card does not say."""
    return cut("nothing" if value is None else repr(value), SHOWN)
