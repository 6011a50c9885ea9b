"""Evaluators: numbers and pictures about a model, named in config.evals.

Each module here with an `Evaluator` is one. To add one, write a module with a class of the form
of `Evaluator`; the keys of config.evals.<module> are arguments of its constructor, and have
defaults. Training, and the mode evaluate, run those of the config. What is counted of features or
images is a function of arrays in `evqgan.metrics`; an evaluator computes these arrays: `batches`
reads the images, `evqgan.features` has networks for features, and `feature_metrics` gathers these.
An attribute `stage` names the only stage whose models it measures, and `higher_is_better` those of
its numbers, as `names` has them, of which config.best keeps the highest: of all others the lowest.
`is_of_classes = False` says that it looks at no label, so that the images need not have the classes
of the model. `tests/test_contracts.py` tests every evaluator in this folder.
"""

import fnmatch
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from evqgan.core import build, mesh
from evqgan.core.errors import ContractError, InputError
from evqgan.data.dataset import Dataset
from evqgan.evals.batches import Batches
from evqgan.evals.provenance import Evaluation, Measured, Subject, enter
from evqgan.generators import Request


class Evaluator(Protocol):
    """Yields numbers and pictures of a state."""

    def __init__(
        self,
        predict: Callable,
        batches: Batches,
        config: Any,
        sample: Callable | None,
        *,
        show: int,
        **keys: Any,
    ) -> None:
        """Take what an evaluator needs.

        predict: (state, batch, rng) -> {name: array [B,...]}, by the model's `predict` in `models`:
          "ids" and, of a tokenizer, "reconstruction", of a generator "sums". The batch's own arrays
          are there, too: "image", "label", and "valid", which says what counts. Images are uint8
          [B,H,W,3], so that their difference needs a cast.
        batches: called, it yields batches of the validation split, each image once; see `Batches`.
        sample: of a generator: (state, request) -> image uint8 [B,H,W,3], see `generators.Request`.
          All devices share the work, and each of them gets all images.
        show: how many images the pictures show; 0, as the mode evaluate has it: no pictures.
        keys: the others of config.evals.<module>.
        """

    def run(self, state: dict) -> Iterator[tuple[str, Any]]:
        """Yield (name, number or picture uint8 [H,W,3]), which depend on the state alone.

        In training a number is logged as "val/<name>", in evaluation.json it is called <name>: so
        names of one evaluator that another one has are refused. Raises InputError if there are no
        numbers of these data.

        state: a dict of arrays: a tokenizer's has "ema" and "codebook", a generator's "ema" and
          "tokenizer" (see `shapes` in `models`). In training it holds the rest of the state, too.
        """

    def names(self) -> Sequence[str]:
        """Return the names of the numbers that a run may yield; "accuracy@*" stands for several."""

    def card(self) -> Measured:
        """Return what the numbers of the last run were measured on.

        With what `provenance.subject` says of the model it becomes the card that the numbers need
        beside them to be compared with others.
        """


MODELS = {"stage1": "tokenizer", "stage2": "generator"}  # what a stage trains


def stage_of(name: str) -> str:
    """Return the only stage whose models the evaluator of this name measures; "" for any.

    Raises InputError where there is no such evaluator, or it lacks what all of them have.
    """
    found = build.module("evals", name, "config.evals", "Evaluator").Evaluator
    where, stage = f"the Evaluator of evqgan/evals/{name}.py", getattr(found, "stage", "")
    for method in build.contract(Evaluator):
        if not callable(getattr(found, method, None)):
            raise ContractError(f"{where} has no method {method}: see evals.Evaluator")
    if stage not in ("", *MODELS):
        hint = build.suggestion(stage, MODELS)
        raise ContractError(f"{where} has stage = {stage!r}: {hint}, or none for any")
    return stage


def is_of_classes(name: str) -> bool:
    """Return whether the evaluator of this name may look at labels; it says so if it does not."""
    found = build.module("evals", name, "config.evals", "Evaluator").Evaluator
    return bool(getattr(found, "is_of_classes", True))


def check_stage(name: str, stage: str) -> None:
    """Raise InputError for an evaluator of another stage than that of a config."""
    if (wanted := stage_of(name)) and wanted != stage:
        ours, theirs = MODELS[stage], MODELS[wanted]
        advice = f"give the workdir of a {theirs}, such as --workdir=RUN/{theirs}"
        raise InputError(f"config.evals.{name} is of a {theirs}, this is a {ours}: {advice}")


def build_all(
    config: Any, model: Any, dataset: Dataset, device_mesh: jax.sharding.Mesh
) -> dict[str, Evaluator]:
    """Return the Evaluators of config.evals by name, with the functions of the model compiled.

    model: `models.of(config)`.
    dataset: config.dataset.
    """
    everywhere = mesh.replicated(device_mesh)  # every host needs all of it

    def predict(state: dict, batch: dict, rng: jax.Array) -> dict:
        return {**batch, **model.predict(state, batch, rng)}

    def sample(state: dict, request: Request) -> jax.Array:
        request = mesh.split(request, device_mesh)
        settings = model.settings(config.get("sample", {}))
        made = model.sample(state["ema"], state["tokenizer"], request, settings)
        return model.tokenizer.decode(state["tokenizer"], made.tokens)

    for name in config.evals:
        check_stage(name, config.stage)
    key = "eval_batch_size" if config.get("eval_batch_size") else "batch_size"
    size = config[key]
    batches = Batches(dataset, size, mesh.rows(device_mesh, size, f"config.{key}"), device_mesh)
    is_stage2 = config.stage == "stage2"

    def over_all(function: Callable) -> Callable:
        return jax.jit(mesh.over(function, device_mesh), out_shardings=everywhere)

    given = {"predict": over_all(predict), "sample": over_all(sample) if is_stage2 else None}
    given |= {"batches": batches, "config": config}
    found: dict[str, Evaluator] = {
        name: build.build(
            "evals",
            "Evaluator",
            {"name": name, **build.plain(keys)},
            f"config.evals.{name}",
            **given,
        )
        for name, keys in config.evals.items()
    }
    check_apart(found)
    return found


def names_of(evals: Mapping[str, Evaluator]) -> dict[str, Sequence[str]]:
    """Return {evaluator: what its `names` says}; ContractError unless that is a list of names."""
    found = {}
    for prefix, evaluator in evals.items():
        names: Any = evaluator.names()
        is_list = isinstance(names, list | tuple)
        if not is_list or not all(isinstance(name, str) for name in names):
            raise ContractError(
                f"names() of config.evals.{prefix} expects a list of names, got {names!r}"
            )
        found[prefix] = names
    return found


def check_apart(evals: Mapping[str, Evaluator]) -> None:
    """Raise ContractError for a name that two evaluators say their numbers may have."""
    pairs = itertools.combinations(names_of(evals).items(), 2)
    for (first, ours), (second, theirs) in pairs:
        for name, other in itertools.product(ours, theirs):
            if fnmatch.fnmatchcase(name, other) or fnmatch.fnmatchcase(other, name):
                raise same_name(first, second, name)


def same_name(first: str, second: str, name: str) -> ContractError:
    """Return the error for two evaluators that give a number, or a picture, of one name."""
    return ContractError(
        f"config.evals.{first} and config.evals.{second} both give {name!r}: leave one of them "
        "out, or give it another name"
    )


def check_names(evals: Mapping[str, Evaluator], wanted: Mapping[str, Iterable[str]]) -> None:
    """Raise InputError for a number that no evaluator gives, if there are evaluators.

    wanted: {key of the config: names of numbers as training logs them, "val/..."}.
    """
    given = [f"val/{name}" for names in names_of(evals).values() for name in names]
    for key, names in wanted.items():
        for name in names:
            if given and not any(fnmatch.fnmatchcase(name, known) for known in given):
                hint = build.suggestion(name, given)
                raise InputError(
                    f"config.{key}: no evaluator in config.evals gives {name!r}: {hint}"
                )


def run_all(
    evals: dict[str, Evaluator], state: dict, subject: Callable[[], Subject]
) -> tuple[Evaluation, dict[str, np.ndarray]]:
    """Run evaluators on a state; return their numbers with their cards, and their pictures.

    An evaluator that raises InputError is passed over with a printed line; ContractError is raised
    for one that gives what is neither a number nor a picture, or no card, or a name that another
    one has given.

    subject: returns what `provenance.subject` says of the state; called once, if there are
      evaluators.
    pictures: {name: uint8 [H,W,3]}.
    """
    found: Evaluation = {"numbers": {}, "protocols": {}}
    pictures: dict[str, np.ndarray] = {}
    givers: dict[str, str] = {}
    about = subject() if evals else None
    for prefix, evaluator in evals.items():
        try:
            numbers, shown, card = measured(prefix, evaluator, state, givers)
        except ContractError:
            raise
        except InputError as error:
            if jax.process_count() > 1:  # the others may not know, and would wait
                raise
            print(f"no numbers of {prefix}: {error}", flush=True)
            continue
        assert about is not None  # there are evaluators
        pictures |= shown
        enter(found, numbers, about.card(prefix, card))
    return found, pictures


def measured(
    prefix: str, evaluator: Evaluator, state: dict, givers: dict[str, str]
) -> tuple[dict[str, float], dict[str, np.ndarray], Measured]:
    """Return what an evaluator gives of a state: numbers, pictures, and what they are of.

    Raises ContractError for what is neither a number nor a picture, and for no card; any error but
    InputError has a note that says which evaluator measured.

    prefix: the evaluator's name. givers: as of `sorted_out`.
    """
    try:
        numbers, shown = sorted_out(prefix, evaluator.run(state), givers)
        card = evaluator.card()
    except InputError:
        raise
    except Exception as error:
        error.add_note(f"while config.evals.{prefix} measured")
        raise
    if not isinstance(card, Measured):
        got = type(card).__name__
        raise ContractError(f"card() of config.evals.{prefix} gave {got}, expected Measured")
    return numbers, shown, card


def sorted_out(
    prefix: str, given: Iterable[tuple[str, Any]], givers: dict[str, str] | None = None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the numbers and the pictures of what the run of an evaluator gives.

    A number may be an array of shape [], of any kind. Raises ContractError for what is neither,
    and for a name that another evaluator has given.

    prefix: the evaluator's name.
    givers: {name: the evaluator that gave it}, of those before this one; it is brought up to date.
    """
    givers = {} if givers is None else givers
    numbers: dict[str, float] = {}
    pictures: dict[str, np.ndarray] = {}
    for pair in given:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            got = f"{type(pair).__name__} {str(pair)[:40]!r}"
            raise ContractError(f"config.evals.{prefix} gave {got}, expected (name, value)")
        name, value = pair
        if (other := givers.setdefault(name, prefix)) != prefix:
            raise same_name(other, prefix, name)
        array = np.asarray(value)
        is_whole = jax.dtypes.issubdtype(array.dtype, np.integer)
        if array.shape == () and (is_whole or jax.dtypes.issubdtype(array.dtype, np.floating)):
            numbers[name] = int(array) if is_whole else float(array)
        elif array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8:
            pictures[name] = array
        else:
            got = f"{array.dtype} {list(array.shape)}"
            expected = "a number, or a picture uint8 [H,W,3]"
            raise ContractError(f"config.evals.{prefix} gave {name} as {got}, expected {expected}")
    return numbers, pictures


def is_better_higher(evals: Mapping[str, Evaluator], number: str) -> bool:
    """Return whether a number, as training logs it, is the better the higher it is."""
    name = number.removeprefix("val/")
    return any(
        fnmatch.fnmatchcase(name, known)
        for evaluator in evals.values()
        for known in getattr(evaluator, "higher_is_better", ())
    )
