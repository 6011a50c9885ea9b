"""The keys of an experiment's config, and the kinds of their values.

The keys of a section are checked by the constructor that takes them (`core.build`).
"""

import dataclasses
from typing import Any, Literal

from evqgan.core import build, mesh
from evqgan.core.errors import InputError
from evqgan.core.kinds import Dtype, Often, Positive, Seed, Share, Whole

# What an Evaluator is given beside keys of the config.
OF_EVALUATOR = ("predict", "batches", "config", "sample")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The keys of config.data.

    examples: the number of training images.
    list: a hash of their paths, "" where they have none.
    """

    examples: Positive
    list: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The keys of the config of every stage.

    stage: "stage1", a tokenizer, or "stage2", a generator on its ids.
    seed: of first weights, the order of the data, and all that is drawn.
    dtype: that networks compute in; weights and optimizer are float32.
    batch_size: images of a step, all devices together.
    duration: how long the run is.
    log_every: how often a line says the metrics of training.
    eval_every: how often the evaluators of `evals` run.
    checkpoint_every: how often a checkpoint is saved.
    dataset: the section that says which images, and how they are read.
    tokenizer: the section that says which tokenizer; in stage 2 also its weights.
    optimizer: the section of AdamW, its learning rate, and the averaged weights.
    loss: the section of the loss: in stage 1 the weights of its terms of pixels.
    mesh: the section that says how devices share the work.
    evals: a section for each evaluator, by its name.
    eval_batch_size: images that are evaluated at a time, all devices together; None: batch_size.
    best: the number of an evaluator by which the best checkpoint is chosen: the lowest, or of such
      as val/psnr and val/accuracy@0.50, as the evaluator says, the highest; it is kept beside the
      `keep` latest ones. "" is none.
    keep: how many checkpoints are kept, the latest ones.
    resume: the checkpoint from which a run goes on: "latest", which has to be whole, or
      "last_good", the latest that is whole on disk, whatever the loss was at it; damaged ones
      after it are moved into the folder "damaged" of the workdir.
    stall: seconds without the end of a step after which a run is taken for stuck, prints the stacks
      of all threads and ends; slow steps have ten times the longest so far. 0 is never.
    alarm: {number: share of its highest value below which the log warns}.
    changed_data: whether a run may go on with other training images than it began with.
    init: a workdir of the same stage and shapes, with whose weights a new run begins; or an
      exported model, or the name of one that ships.
    init_optimizer: whether it begins with the optimizer's moments of that workdir, too.
    class_names: noted by training, not given: the names of the classes.
    data: noted by training, not given: what the training images are (`pipeline.identity`).
    began: noted by training, not given: the step from which a finished run was extended by a longer
      duration, 0 where none was.
    """

    stage: Literal["stage1", "stage2"]
    seed: Seed
    dtype: Dtype
    batch_size: Positive
    duration: Whole
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
    stall: float = 60.0
    resume: Literal["latest", "last_good"] = "latest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerExperiment(Experiment):
    """The keys of a tokenizer's config.

    loss: the weights of `stage1.pixel_losses`.
    perceptual: the section of the loss's perceptual term; None: there is none.
    adversarial: the section of the critic and of the loss's adversarial term; None: there is none.
    """

    perceptual: dict | None = None
    adversarial: dict | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorExperiment(Experiment):
    """The keys of a generator's config.

    generator: the section of the model.
    sample: the section of its sampler.
    stored_ids: noted by training, not given: which stored ids it was trained from.
    """

    generator: dict
    sample: dict = dataclasses.field(default_factory=dict)
    stored_ids: str | None = None


# A module of evqgan/training: the keys of its config.
STAGES = {"stage1": TokenizerExperiment, "stage2": GeneratorExperiment}


def check(config: Any, where: str = "config") -> None:
    """Raise InputError unless the keys of `config` are those of its stage, of the right kinds."""
    if not hasattr(config, "get") or "stage" not in config:
        raise InputError(f"{where} needs the key 'stage'")
    stage = build.plain(config.stage)
    if stage == "comparison":
        raise InputError(
            f"{where} is of several systems: `python -m evqgan.benchmark comparison` trains them "
            "and compares them"
        )
    if not isinstance(stage, str) or stage not in STAGES:
        raise InputError(f"{where}.stage is {stage!r}: {build.suggestion(stage, STAGES)}")
    build.call(STAGES[stage], config, where)
    if config.get("data") is not None:
        build.call(Data, config.data, f"{where}.data")
    build.check(mesh.make, build.plain(config.get("mesh", {})), f"{where}.mesh", ["devices"])
    for name, keys in build.plain(config.evals).items():
        evaluator = build.module("evals", name, f"{where}.evals", "Evaluator").Evaluator
        build.check(evaluator, keys, f"{where}.evals.{name}", OF_EVALUATOR)
