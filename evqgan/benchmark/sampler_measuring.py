"""Measure settings of a sampler, each with several seeds, and keep in a file what is measured."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax

from evqgan.benchmark.real_images import Beside
from evqgan.benchmark.sampler_scan import Measured, Setting
from evqgan.core import build, files, progress, signals, stores
from evqgan.core.errors import InputError
from evqgan.evals.provenance import fingerprints, plain
from evqgan.inference.model import Model

OF_CLASSES = ("sample_accuracy", "spread_ratio")  # what is kept beside the distance, of classes


class Measurements:
    """What is measured of settings: each is done once, and saved as soon as it is done.

    known: {key_of(setting, seed): {number: value}}.
    """

    def __init__(
        self,
        model: Model,
        real: Beside,
        distance: str,
        num: int,
        seeds: int,
        most: int,
        file: pathlib.Path,
        anew: bool = False,
    ) -> None:
        """Read what `file` has of an earlier call; InputError if that measured otherwise.

        real: what samples are measured beside. distance: the number that settings are compared by.
        num: how many samples of each seed. seeds: how many of a setting.
        most: how many settings there will be at most, for the time that is left.
        anew: a file that was measured otherwise is begun anew, and it is said.
        """
        self.model, self.real, self.distance = model, real.against, distance
        self.num, self.seeds, self.file = num, seeds, file
        self.total = most * seeds
        self.protocol = {
            "workdir": stores.real(model.workdir).as_posix(),
            "step": model.step,
            "model": [*fingerprints(model.state)],
            "num": num,
            "batch_size": model.runner.batch_size,
            "distance": distance,
            **beside_of(real),
            "cost": "CPU seconds" if is_cpu() else "seconds",
        }
        self.known: dict[str, dict[str, Any]] = {}
        if file.is_file():
            found = files.read_json(file, "what benchmark samplers writes")
            there = found.get("protocol")
            if there == self.protocol and isinstance(found.get("measured"), dict):
                self.known = found["measured"]
            else:
                was = build.listed(build.differences(dict(there or {}), self.protocol))
                otherwise = f"{file} was measured otherwise ({was})"
                if not anew:
                    raise InputError(f"{otherwise}: give another --out")
                progress.say(f"{otherwise}, and is begun anew")
        self._asked: set[str] = set()  # keys of this call
        self._compiled: set[str] = set()
        self._seconds, self._fresh = 0.0, 0  # of what was not known

    def of(self, setting: Setting, first: int = 0) -> Measured:
        """Return what is measured of a setting with the seeds from `first` on."""
        for seed in self._seeds(first):
            self._measure(setting, seed)
        seconds = self.numbers(setting, "seconds_per_image", first)
        return Measured(
            setting,
            tuple(self.numbers(setting, self.distance, first)),
            tuple(self.numbers(setting, "sample_accuracy", first)),
            min(seconds),
        )

    def numbers(self, setting: Setting, name: str, first: int = 0) -> list[Any]:
        """Return a number of a setting, of each seed that has it."""
        found = [self.known[key_of(setting, seed)] for seed in self._seeds(first)]
        return [numbers[name] for numbers in found if numbers.get(name) is not None]

    def _seeds(self, first: int) -> range:
        return range(first, first + self.seeds)

    def _measure(self, setting: Setting, seed: int) -> None:
        key, began = key_of(setting, seed), time.perf_counter()
        if key not in self.known:
            self._compile(setting)
            clock = time.process_time if is_cpu() else time.perf_counter
            words = in_words(setting, self.model.sampler)
            with progress.heartbeat(f"measuring {words}, seed {seed}"):
                start = clock()
                made = self.model.sample(self.num, None, seed, **setting)
                seconds = (clock() - start) / self.num
                found = self.real.numbers_of(made["images"], made.get("labels"))
            numbers = {name: found[name] for name in (self.distance, *OF_CLASSES) if name in found}
            self.known[key] = {**numbers, "seconds_per_image": seconds}
            files.save_json(self.file, {"protocol": self.protocol, "measured": self.known})
            signals.note_saved(f"{progress.counted(len(self.known), 'measurement')} in {self.file}")
            self._seconds += time.perf_counter() - began
            self._fresh += 1
        self._asked.add(key)
        parts = [in_words(setting, self.model.sampler), f"seed {seed}"]
        parts += [f"{name} {value:.4g}" for name, value in self.known[key].items() if value]
        each = self._seconds / self._fresh if self._fresh else None
        print(progress.line("measured", len(self._asked), self.total, parts, each), flush=True)

    def _compile(self, setting: Setting) -> None:
        """Make one batch, so that no compilation counts in what a setting costs."""
        if (key := key_of(setting)) not in self._compiled:
            self.model.sample(self.model.runner.rows(self.num), None, 0, **setting)
            self._compiled.add(key)


def beside_of(real: Beside) -> dict[str, Any]:
    """Return, as JSON has it, beside what samples are measured; where images lie does not count."""
    sets = {"train": dataclasses.asdict(real.train), "heldout": dataclasses.asdict(real.heldout)}
    images = {name: {**about, "source": ""} for name, about in sets.items()}
    found = {"real": images, "settings": real.settings, "features": real.features}
    return dict(json.loads(json.dumps(found, default=plain)))


def is_cpu() -> bool:
    """Return whether this is a CPU, whose own seconds other work disturbs less than the clock's."""
    return jax.default_backend() == "cpu"


def key_of(setting: Setting, seed: int | None = None) -> str:
    """Return what a setting is called in the file, with one seed."""
    return json.dumps({**setting, "seed": seed}, sort_keys=True)


def in_words(setting: Mapping[str, Any], preset: Mapping[str, Any]) -> str:
    """Return where a setting differs from the preset, such as "steps=4 top_p=0.9"."""
    changes = [f"{key}={value}" for key, value in setting.items() if value != preset[key]]
    return " ".join(changes) or "the preset"
