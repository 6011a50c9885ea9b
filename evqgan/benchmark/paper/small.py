"""Small models on bundled data, for tables and figures that no trained workdirs are given for.

They are the systems of configs/comparison.py and lie in OUT/DATA/SYSTEM, other seeds than 0 in
OUT/DATA/SYSTEM_SEED: several commands share them, and the same command goes on where it stopped.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from evqgan.core import build, checkpoint, compilation_cache, files, signals
from evqgan.core.cli import PATH, TEXT, Flag, whole
from evqgan.core.config_files import SHIPPED, read_file
from evqgan.core.errors import InputError
from evqgan.core.progress import counted, duration, say
from evqgan.training.loop import train

CONFIGS = SHIPPED / "configs" / "comparison.py"
# Ours: half of that file's, so that a table takes minutes; `comparison` trains for all of them.
STEPS = {"stage1": 150, "stage2": 250}
GENERATED = "generated"  # the data set of the trial
RUN = ("dataset", "optimizer", "duration", "seed")  # what a run has to have in common, too
# Of a run, and of one of a few steps, on two CPU cores that do nothing else.
SECONDS = {"stage1": 36, "stage2": 60}
SECONDS_TINY = {"stage1": 10, "stage2": 20}
# How the systems are called: their tokenizers, and their generators.
TOKENIZERS = {
    "efficient_vqgan": "ours",
    "vqgan": "VQGAN",
    "vit_vqgan": "ViT-VQGAN",
    "rq_vae": "RQ-VAE",
    "maskgit": "MaskGIT",
}
GENERATORS = {
    **TOKENIZERS,
    "vit_vqgan": "VIM",
    "rq_vae": "RQ-Transformer",
    "efficient_vqgan_on_vqgan": "ours on VQGAN's tokenizer",
    "maskgit_on_vqgan": "MaskGIT on VQGAN's tokenizer",
}

OUT = Flag("out", PATH, (), "where small models are trained (workdirs/paper)", "workdirs/paper")
DATA = Flag(
    "data",
    TEXT,
    (),
    "data of small models: digits, photographs, or tiny: a trial, two steps on generated images",
    "digits",
)

SEEDS = Flag("seeds", whole(1), (), "runs of each small system: seeds 0, 1, ... (1)", 1)


class Small(NamedTuple):
    """A small system.

    system: a key of config.systems in configs/comparison.py.
    data: the variant of that file.
    size: of the images, None as in the file.
    conditional: whether the generator is told the class.
    window: W_s of our generator, None as in the file.
    seed: of both stages.
    """

    system: str
    data: str
    size: int | None = None
    conditional: bool = True
    window: int | None = None
    seed: int = 0

    def config(self) -> ConfigDict:
        """Return the system's config: {"tokenizer", "generator"}; InputError if there is none."""
        config = read_file(f"{CONFIGS}:{self.data}")
        if self.system not in config.systems:
            hint = build.suggestion(self.system, config.systems)
            raise InputError(f"there is no system {self.system!r}: {hint}")
        system = ConfigDict(json.loads(config.systems[self.system].to_json()))
        parts = system.tokenizer, system.generator
        for part in parts:
            part.seed, part.evals, part.best = self.seed, ConfigDict(), ""
            part.dataset.size = self.size or part.dataset.size
            if self.data != "tiny":
                part.duration = f"{STEPS[part.stage]} steps"
        if not self.conditional:
            system.generator.generator.classes = 0
        if self.window:
            # As many supervised tokens an image as in the file.
            keys, loss = system.generator.generator, system.generator.loss
            loss.targets = max(loss.targets * keys.window**2 // self.window**2, 1)
            keys.window = self.window
        return system

    def folder(self, out: Any, system: str = "") -> pathlib.Path:
        """Return where its workdirs lie. system: another one than its own."""
        data = self.data if self.size is None else f"{self.data}_{self.size}"
        seed = f"_{self.seed}" if self.seed else ""
        return pathlib.Path(out) / data / f"{system or self.system}{seed}"

    def tokenizer(self, out: Any) -> pathlib.Path:
        """Return the workdir of its tokenizer, which may be another system's."""
        return self.folder(out, self.config().get("tokenizer_of", "")) / "tokenizer"

    def generator(self, out: Any) -> pathlib.Path:
        """Return the workdir of its generator."""
        window = f"_window{self.window}" if self.window else ""
        name = "generator" if self.conditional else "unconditional"
        return self.folder(out) / f"{name}{window}"


def check_unused(given: Any) -> None:
    """Raise InputError for flags of small models beside --workdir, with which there are none."""
    for flag in (DATA, SEEDS):
        if given.workdir and getattr(given, flag.name, flag.default) != flag.default:
            raise InputError(f"--{flag.name} is of small models: with --workdir there are none")


def scale(systems: Iterable[Small]) -> str:
    """Return what a title says of small systems."""
    data = list(dict.fromkeys(small.data for small in systems))
    if data == ["tiny"]:
        return "a trial, two steps on generated images"
    return f"small scale, bundled {' and '.join(data)}"


def tokenizers(out: Any, systems: Iterable[Small]) -> list[pathlib.Path]:
    """Train the tokenizers of systems, or what of it is not done yet; return their workdirs."""
    systems = list(systems)
    jobs = {small.tokenizer(out): small.config().tokenizer for small in systems}
    announce(jobs)
    found = []
    for small in systems:
        tell(out, jobs)
        found.append(trained_tokenizer(out, small))
    tell(out, jobs)
    return found


def generators(out: Any, systems: Iterable[Small]) -> list[pathlib.Path]:
    """Train both stages of systems, or what of it is not done yet; return the generators'."""
    systems = list(systems)
    jobs = {small.tokenizer(out): small.config().tokenizer for small in systems}
    jobs |= {small.generator(out): small.config().generator for small in systems}
    announce(jobs)
    found = []
    for small in systems:
        config, workdir = small.config().generator, small.generator(out)
        tell(out, jobs)
        config.tokenizer.weights = str(trained_tokenizer(out, small))
        tell(out, jobs)
        if not is_done(workdir, config):
            train(config, workdir)
        found.append(workdir)
    tell(out, jobs)
    return found


def trained_tokenizer(out: Any, small: Small) -> pathlib.Path:
    """Train a tokenizer, if that is not done yet, and return its workdir."""
    config, workdir = small.config().tokenizer, small.tokenizer(out)
    compilation_cache.enable()  # several systems and commands have the same ones
    if not is_done(workdir, config):
        train(config, workdir)
    return workdir


def announce(jobs: Mapping[pathlib.Path, ConfigDict]) -> None:
    """Print what is to be trained, and about how long that takes. jobs: configs by workdir."""
    left = [config.stage for workdir, config in jobs.items() if not is_done(workdir, config)]
    if left:
        is_trial = all(config.dataset.name == GENERATED for config in jobs.values())
        seconds = sum((SECONDS_TINY if is_trial else SECONDS)[stage] for stage in left)
        stages = (("stage1", "tokenizer"), ("stage2", "generator"))
        numbers = [counted(left.count(stage), what) for stage, what in stages if stage in left]
        size = "two steps each, as a trial" if is_trial else "small"
        where = "on two CPU cores that do nothing else"
        say(f"training {' and '.join(numbers)}, {size}: about {duration(seconds)} {where}")


def tell(out: Any, jobs: Mapping[pathlib.Path, ConfigDict]) -> None:
    """Note how many are trained, for the line of a signal. jobs: configs by workdir."""
    trained = sum(is_done(workdir, config) for workdir, config in jobs.items())
    signals.note_done(f"{trained} of {counted(len(jobs), 'training')} in {out}")


def is_done(workdir: pathlib.Path, config: ConfigDict) -> bool:
    """Return whether a workdir holds the end of this very run; `train` says what is wrong else."""
    file = workdir / "config.json"
    if not file.is_file() or not (workdir / "checkpoints").is_dir():
        return False
    there, wanted = files.read_json(file), json.loads(config.to_json())
    keys = {"stage1": ("tokenizer",), "stage2": ("generator", "loss")}[config.stage]
    if any(there.get(key) != wanted[key] for key in (*keys, *RUN)):
        return False
    checkpoints = checkpoint.Checkpoints(workdir, create=False)
    steps = checkpoints.steps()
    checkpoints.close()
    return bool(steps) and f"{steps[-1]} steps" == config.duration
