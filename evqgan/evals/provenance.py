"""Where a number comes from: its card has all that must be known to compare it with another one.

An evaluator says what it measured (`Measured`), the run says of which model, by which code and
where (`ModelCard`, `RunCard`), and `Card` is all of it. A card is kept as JSON beside the numbers
in evaluation.json, under "protocols"; `cards.differences` finds where two of them disagree.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from evqgan import models
from evqgan.core import build, cards, mesh, processes, versions
from evqgan.core.weights import hashed
from evqgan.evals.image_set import ROUNDED, ImageSet

# {"numbers": {name: value}, "protocols": {evaluator: {"numbers": their names, **card as JSON}}}
Evaluation = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Produced:
    """Images that a model made.

    what: "samples", "reconstructions", or "predictions" of tokens, which are no images.
    count: how many.
    size: (height, width).
    pixels: how they became uint8.
    seed: of samples; None of others.
    labels: of samples: "all classes in turn", "none", or as they were asked for.
    sampler: all settings of it.
    """

    what: str
    count: int
    size: tuple[int, int]
    pixels: str = ROUNDED
    seed: int | None = None
    labels: str = ""
    sampler: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an evaluator measured in its last run.

    protocol: a name in `protocols`.
    real, heldout: the real images; None: numbers that look at none.
    produced: what was measured.
    features: `Extractor.card` of each network.
    settings: what else decides the numbers, such as which metrics, or a batch size.
    warnings: sentences on what the numbers are worth.
    made_by: the model that finished samples are of; None: what was measured was made now.
    """

    protocol: str
    produced: Produced
    real: ImageSet | None = None
    heldout: ImageSet | None = None
    features: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()
    made_by: "MadeBy | None" = None


class MadeBy(NamedTuple):
    """The model that samples are of, as their file says it.

    fingerprint, tokenizer: as in `ModelCard`; "" in files of older versions.
    """

    step: int
    fingerprint: str = ""
    tokenizer: str = ""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Which model it is.

    workdir: the name of its folder.
    step: of the checkpoint.
    fingerprint: of its weights, see `fingerprint`.
    tokenizer: the fingerprint of a generator's tokenizer; "" of a tokenizer, which is the model.
    """

    workdir: str
    step: int
    fingerprint: str
    tokenizer: str


@dataclasses.dataclass(frozen=True)
class ForeignModel:
    """What is known of a model of another program: its samples.

    samples: the name of their file or folder.
    digest: 16 hexadecimal digits of a sha256 of their pixels, in the order of their names.
    """

    samples: str
    digest: str


@dataclasses.dataclass(frozen=True)
class RunCard:
    """What computed it.

    code: a hash of the package's files; commit: that of a clone, "" elsewhere.
    jax: its version.
    device: its kind. dtype: of the model.
    """

    code: str
    commit: str
    jax: str
    device: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class Card:
    """The card of the numbers of one evaluator.

    weights: "EMA", the averaged ones, or "raw" where nothing is averaged; `image_set.UNKNOWN` of
      a foreign model.
    """

    evaluator: str
    protocol: str
    weights: str
    model: ModelCard | ForeignModel
    real: ImageSet | None
    heldout: ImageSet | None
    produced: Produced
    features: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    run: RunCard
    warnings: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return the card as JSON has it."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=plain))


class Subject(NamedTuple):
    """The model that evaluators measure, as its cards call it.

    sampler: all settings of a generator's, with which samples are made unless they say otherwise.
    """

    model: ModelCard
    weights: str
    dtype: str
    sampler: Mapping[str, Any]

    def card(self, evaluator: str, measured: Measured) -> Card:
        """Return the card of what an evaluator measured.

        Of finished samples it has the step and the fingerprints that their file says, and a warning
        if these are not the model's.
        """
        of_evaluator = {
            field.name: getattr(measured, field.name) for field in dataclasses.fields(measured)
        }
        model, made_by = self.model, of_evaluator.pop("made_by")
        if made_by:
            mine = MadeBy(model.step, model.fingerprint, model.tokenizer)
            known = mine if made_by == MadeBy(model.step) else made_by  # of an older version
            model = dataclasses.replace(model, **known._asdict())
            if other := self._differs(known, mine):
                of_evaluator["warnings"] = [*measured.warnings, other]
        if measured.produced.what == "samples" and not measured.produced.sampler:
            made = dataclasses.replace(measured.produced, sampler=self.sampler)
            of_evaluator["produced"] = made
        run = run_card(self.dtype)
        return Card(evaluator, weights=self.weights, model=model, run=run, **of_evaluator)

    @staticmethod
    def _differs(made_by: MadeBy, mine: MadeBy) -> str:
        """Return in words that samples are of another model than `mine`, "" if they are not."""
        if made_by.step != mine.step:
            return f"the samples are of step {made_by.step:,}, the model of {mine.step:,}"
        if made_by != mine:
            return "the samples are of other weights than the model's, of the same step"
        return ""


def subject(config: Any, workdir: str | os.PathLike[str], step: int, state: Mapping) -> Subject:
    """Return how cards call the model of a state. All processes of a run have to call it.

    state: what the model's `shapes` say, and maybe more.
    """
    sampler: dict[str, Any] = {}
    if config.stage == "stage2":
        settings = models.of_stage2(config).settings(build.plain(config.get("sample", {})))
        sampler = dataclasses.asdict(settings)
        weights = fingerprints(state)
    else:
        own = {"params": state["ema"], "codebook": state["codebook"]}
        weights = fingerprint(own), ""
    averaged = config.optimizer.get("ema") != 0  # where it is left out, weights are averaged
    model = ModelCard(pathlib.Path(workdir).name, step, *weights)
    return Subject(model, "EMA" if averaged else "raw", config.dtype, sampler)


@functools.cache
def run_card(dtype: str) -> RunCard:
    """Return what computes here."""
    found = versions.now()
    device = jax.devices()[0].device_kind
    return RunCard(found["code"], found["commit"], found["jax"], device, dtype)


def fingerprint(weights: Any) -> str:
    """Return 16 hexadecimal digits of a sha256 of all arrays of a tree and their names.

    It is the same on any mesh and any number of processes, all of which have to call it, unless
    every device has all weights. One array at a time comes to the host.
    """
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return hashed((mesh.path_name(path), mesh.gathered(leaf)) for path, leaf in leaves)


def fingerprints(state: Mapping) -> tuple[str, str]:
    """Return those of a generator's state: of its own weights, and of its tokenizer's."""
    return fingerprint(state["ema"]), fingerprint(state["tokenizer"])


def plain(value: Any) -> Any:
    """Return what JSON does not know as a number or text."""
    return value.item() if hasattr(value, "item") else str(value)


def finite(evaluation: Evaluation) -> Evaluation:
    """Return numbers and cards as JSON has them: numbers that are not finite become None."""
    numbers = evaluation["numbers"].items()
    values = {name: x if x is None or math.isfinite(x) else None for name, x in numbers}
    return {**evaluation, "numbers": values}


def enter(evaluation: Evaluation, numbers: Mapping[str, Any], card: Card) -> None:
    """Enter numbers and their card, in the place of what the same evaluator said before.

    A number of the same name that another evaluator's card has makes way, and a line says so.
    """
    for old in evaluation["protocols"].get(card.evaluator, {}).get("numbers", []):
        evaluation["numbers"].pop(old, None)
    for other, there in evaluation["protocols"].items():
        if other == card.evaluator:
            continue
        for name in there["numbers"]:
            if name in numbers:
                processes.tell(f"{name} of {other} made way for {card.evaluator}'s")
        left = [name for name in there["numbers"] if name in evaluation["numbers"]]
        there["numbers"] = [name for name in left if name not in numbers]
    evaluation["numbers"] |= numbers
    evaluation["protocols"][card.evaluator] = {"numbers": list(numbers), **card.as_json()}


def forget_others(
    evaluation: Evaluation, models: Sequence[ModelCard | ForeignModel], kept: Sequence[str]
) -> None:
    """Remove the numbers that are of other weights of one of these models, and say which.

    models: those that are measured now; of the workdirs of others all numbers remain.
    kept: evaluators whose numbers remain, or are measured again.
    """
    for now in models:
        for name, card in list(evaluation["protocols"].items()):
            there = card.get("model") or {}
            if not isinstance(now, ModelCard) or there.get("workdir") != now.workdir:
                continue
            if name in kept:
                continue
            if all(there.get(x) == getattr(now, x) for x in ("fingerprint", "tokenizer")):
                continue
            for number in (gone := evaluation["protocols"].pop(name)["numbers"]):
                evaluation["numbers"].pop(number, None)
            was = f"{name} measured other weights than those of step {now.step:,}"
            processes.tell(f"no longer there, as {was}: {', '.join(gone)}")


def has(card: Mapping[str, Any], place: str) -> bool:
    """Return whether a card, as JSON has it, says something at a place, such as run.device."""
    tree: Any = cards.plain_tree(card)
    for name in place.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True
