"""The tokenizers of compared systems: trained in the comparison, or trained before and given."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from evqgan.core import build
from evqgan.core.config_files import of_tokenizer
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.evals.provenance import Evaluation
from evqgan.inference import evaluation
from evqgan.inference.evaluators import evaluators_of
from evqgan.inference.mode_inputs import load_model
from evqgan.training.loop import train


class Tokenizer(NamedTuple):
    """A tokenizer that is there.

    weights: config.tokenizer.weights of generators on it.
    parameters: how many.
    measured: returns its numbers on held-out images, and their cards.
    """

    weights: str
    parameters: int
    measured: Callable[[], Evaluation]


def check(name: str, system: ConfigDict) -> None:
    """Raise InputError if a system is given a tokenizer that is none, or one of other images."""
    if not isinstance(system.tokenizer, str):
        return
    where = f"systems.{name}.tokenizer = {system.tokenizer!r}"
    try:
        config, _ = of_tokenizer(system.tokenizer)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    theirs, ours = (build.call(Dataset, x.dataset, "dataset") for x in (config, system.generator))
    if theirs.shape != ours.shape:
        sizes = [f"{width}x{height}" for height, width in (theirs.shape, ours.shape)]
        raise InputError(
            f"{where} is a tokenizer of {sizes[0]} images, and those of the generator's data set "
            f"are {sizes[1]}: give another tokenizer, or the data set another size"
        )


def network_of(system: ConfigDict) -> ConfigDict:
    """Return the section config.tokenizer of a system's tokenizer, trained or given."""
    given = system.tokenizer
    config = of_tokenizer(given)[0] if isinstance(given, str) else given
    return config.tokenizer


def of_system(system: ConfigDict, workdir: pathlib.Path, seed: int) -> Tokenizer:
    """Return the tokenizer of a system: the given one, or one trained in `workdir` with a seed."""
    if isinstance(system.tokenizer, str):
        return given(system.tokenizer, json.dumps(build.plain(system.generator.dataset)))
    config = ConfigDict(json.loads(system.tokenizer.to_json()))
    config.seed, config.evals, config.best = seed, ConfigDict(), ""  # measured once, at the end
    state = train(config, workdir)
    config.evals = ConfigDict({"reconstruction": {}})
    measured = functools.partial(evaluation.evaluate, config, workdir, None, [])
    return Tokenizer(str(workdir), number_of(state["params"]), measured)


@functools.cache  # one for all systems and seeds
def given(weights: str, dataset: str) -> Tokenizer:
    """Return a tokenizer that is trained already. dataset: as JSON, the images it is measured on.

    weights: its workdir, or an exported model's folder, or the name of a model that ships.
    """
    config, folder = of_tokenizer(weights)
    config.dataset = ConfigDict(json.loads(dataset))
    model = load_model(config, folder)

    @functools.cache
    def measured() -> Evaluation:
        data = evaluation.data_of(config)
        evaluators = evaluators_of(config, data, {"reconstruction": {}})
        ((numbers, card),) = evaluation.evaluate_model(model, evaluators)
        return {"numbers": numbers, "protocols": {"reconstruction": card.as_json()}}

    return Tokenizer(weights, number_of(model.state["ema"]), measured)


def number_of(params: Any) -> int:
    """Return how many numbers arrays hold."""
    return sum(x.size for x in jax.tree.leaves(params))
