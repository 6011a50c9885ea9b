"""What belongs to a model, from the workdirs where it was trained."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import build, checkpoint, chosen_step, exported, public_names
from evqgan.core.config_files import PATHS, of_tokenizer, of_workdir
from evqgan.core.errors import InputError
from evqgan.evals import provenance
from evqgan.inference.evaluation import read_evaluation

# Keys of a tokenizer's config that a generator's config has, too.
COMMON = (
    *("seed", "batch_size", "duration", "dataset", "optimizer", "class_names"),
    *("log_every", "eval_every", "checkpoint_every"),
)


@dataclasses.dataclass(frozen=True)
class Gathered:
    """A model and what is known of it.

    configs: {part: its config as plain values}; parts: `exported.PARTS`, or the tokenizer alone.
    steps: {part: the step of the checkpoint that it was taken from}; None: not known, as of a
      generator's tokenizer whose workdir is gone.
    state: the weights, as a model's `shapes` name them.
    evaluation: the numbers that were measured of these weights, and their cards.
    dataset: config.dataset with the places where the images lie here.
    origin: of public weights, see `public_names.origin`; {} of those trained here.
    """

    configs: dict[str, dict[str, Any]]
    steps: dict[str, int | None]
    state: dict[str, Any]
    evaluation: provenance.Evaluation
    dataset: Any
    origin: dict[str, Any]

    @property
    def part(self) -> str:
        """The part that the model is called after: the generator if there is one."""
        return "generator" if "generator" in self.configs else "tokenizer"

    @property
    def is_converted(self) -> bool:
        """Whether its weights are another program's: no step of training here was taken."""
        return self.steps[self.part] == 0

    @property
    def config(self) -> dict[str, Any]:
        """The config of that part."""
        return self.configs[self.part]


def gather(
    workdir: str,
    tokenizer: str = "",
    say: Callable[[str], None] = print,
    step: chosen_step.Step = None,
) -> Gathered:
    """Return the model of a workdir: a generator's, a tokenizer's or a quickstart's.

    tokenizer: the workdir of a generator's tokenizer, if it is not where training found it.
    say: takes a line on what is missing.
    step: which checkpoint, of both the generator's; its tokenizer is the one that it knows.

    Raises InputError for what is no such workdir, or damaged.
    """
    config, folder = of_workdir(workdir)
    if exported.is_one(folder):
        raise InputError(f"{folder} is an exported model already: copy the folder")
    if tokenizer and config.stage == "stage1":
        raise InputError(f"--tokenizer is for a generator's workdir, {folder} is a tokenizer's")
    number = models.find_step(folder, config, step)
    state, of_state = models.restored(folder, blank(config), number)
    found: dict[str, tuple[ConfigDict, int | None]] = {config.stage: (config, of_state)}
    places = [folder]
    if config.stage == "stage2":
        match = tokenizer_of(config, folder, state["tokenizer"], tokenizer)
        if match is None:
            say(
                "the workdir of its tokenizer is not there any more, or holds other weights by "
                "now: the card cannot say how it was trained (--tokenizer=WORKDIR names it)"
            )
            found["stage1"] = unknown_tokenizer(config), None
        else:
            first, place, its_step = match
            found["stage1"] = (first, its_step)
            places.insert(0, place)
    parts = {"tokenizer": "stage1", "generator": "stage2"}
    there = {part: found[stage] for part, stage in parts.items() if stage in found}
    configs = {part: without_paths(build.plain(one.to_dict())) for part, (one, _) in there.items()}
    steps = {part: number for part, (_, number) in there.items()}
    evaluation = evaluation_of(evaluated_in(places), state, say)
    origin = public_names.origin(folder)
    return Gathered(configs, steps, state, evaluation, config.dataset, origin)


def blank(config: ConfigDict) -> dict[str, Any]:
    """Return the shapes of a config's model as NumPy arrays, which take no memory."""
    shapes = models.of(config).shapes()
    return jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)


def tokenizer_of(
    config: ConfigDict, folder: pathlib.Path, weights: Mapping[str, Any], given: str
) -> tuple[ConfigDict, pathlib.Path, int] | None:
    """Return config, workdir and step of the tokenizer that a generator was trained on.

    It is where the config says, or beside the generator's workdir, and one of its checkpoints has
    the same weights; else None.

    folder: the generator's workdir. weights: the tokenizer's, as the generator's checkpoint has
    them. given: its workdir, for which InputError is raised if it holds another one.
    """
    said = pathlib.Path(config.tokenizer.get("weights") or "tokenizer")
    places = [pathlib.Path(given)] if given else [said, folder.parent / said.name]
    for place in places:
        if not given and not (exported.find(place) / "config.json").is_file():
            continue
        first, there = of_tokenizer(place)
        if build.plain(first.tokenizer) == build.plain(config.tokenizer.model):
            for step in steps_of(there):
                state, _ = models.restored(there, blank(first), step)
                theirs = {"params": state["ema"], "codebook": state["codebook"]}
                if provenance.fingerprint(theirs) == provenance.fingerprint(weights):
                    return first, there, step
    if given:
        what = "holds another tokenizer than the one that the generator was trained on"
        raise InputError(f"--tokenizer={given} {what}")
    return None


def steps_of(folder: pathlib.Path) -> Iterator[int]:
    """Yield the steps of the checkpoints of a workdir or exported model, the latest first."""
    if exported.is_one(folder):
        yield exported.step_of(folder, "tokenizer")
        return
    checkpoints = checkpoint.Checkpoints(folder, create=False)
    steps = checkpoints.steps()
    checkpoints.close()
    yield from reversed(steps)


def unknown_tokenizer(config: ConfigDict) -> ConfigDict:
    """Return a config that a generator's tokenizer can be read with; its training is not known."""
    found = {key: config[key] for key in COMMON if key in config}
    dtype = config.tokenizer.get("dtype") or config.dtype
    found |= {"stage": "stage1", "dtype": dtype, "tokenizer": config.tokenizer.model}
    return ConfigDict({**found, "evals": {"reconstruction": {}}})


def without_paths(config: Any) -> Any:
    """Return a config without what names places and devices of the machine it was trained on.

    A folder of images keeps its own name alone; "random" weights are no place.
    """
    if isinstance(config, list | tuple):
        return [without_paths(x) for x in config]
    if not isinstance(config, dict):
        return config
    found = {}
    for key, value in config.items():
        if key in PATHS and isinstance(value, str) and value != "random":
            if key == "init":
                continue
            value = os.path.basename(value.rstrip("/")) if key == "folder" else ""
        if key != "mesh":
            found[key] = without_paths(value)
    return found


def evaluated_in(places: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Return the folders with numbers of workdirs: these, and quickstarts they are parts of."""
    tops = [place.parent for place in places if place.name in exported.PARTS]
    both = [top for top in tops if (top / "generator" / exported.CONFIG).is_file()]
    return list(dict.fromkeys([*places, *both]))


def evaluation_of(
    places: list[pathlib.Path], state: Mapping[str, Any], say: Callable[[str], None]
) -> provenance.Evaluation:
    """Return the numbers in the evaluation.json of workdirs, later ones first, and their cards.

    Numbers of other weights than those of `state` are left out, and of a tokenizer those of a
    generator; `say` takes a line on each such card, unless another file has all its numbers of
    these weights, and on the lack of any number.
    """
    generator = state.get("tokenizer")
    tokenizer = generator or {"params": state["ema"], "codebook": state["codebook"]}
    known = {
        provenance.fingerprint(tokenizer),
        *([provenance.fingerprint(state["ema"])] if generator else []),
    }
    found: provenance.Evaluation = {"numbers": {}, "protocols": {}}
    left_out: list[tuple[str, list[str]]] = []  # whose numbers, and which
    for place in places:
        file = place / "evaluation.json"
        if not file.is_file():
            continue
        theirs = read_evaluation(file, "move it away, or measure again by --mode=evaluate")
        for name, card in theirs["protocols"].items():
            model = card.get("model") or {}
            if model.get("tokenizer") and not generator:
                left_out.append((f"{name} in {file} are of a generator", card["numbers"]))
                continue
            if model.get("fingerprint") not in known:
                left_out.append((f"{name} in {file} are of other weights", card["numbers"]))
                continue
            for images in (card.get("real"), card.get("heldout")):
                if images and pathlib.Path(images["source"]).is_dir():
                    images["source"] = pathlib.Path(images["source"]).name
            for number in card["numbers"]:
                found["numbers"][number] = theirs["numbers"].get(number)
            found["protocols"][name] = card
    for whose, numbers in left_out:
        if absent := [number for number in numbers if number not in found["numbers"]]:
            which = "" if absent == numbers else f": {', '.join(absent)}"
            say(f"the numbers of {whose}, and are left out{which}")
    if not found["numbers"]:
        say("no numbers: none were measured of these weights (--mode=evaluate)")
    return found
