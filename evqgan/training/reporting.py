"""What a run says and writes while it trains: lines, metrics, evaluations, pictures, alarms.

The line of a step is made by `timing.StepTimer.line`; those at the start of a run are said by
`loop.announce`.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import psutil

from evqgan import evals
from evqgan.core import build, cards, chips, cluster, files, pictures, quickstart_record
from evqgan.core.errors import NonFinite
from evqgan.core.metrics_writer import Writer
from evqgan.core.processes import tell
from evqgan.core.progress import heartbeat, warn
from evqgan.core.retention import Score
from evqgan.evals import provenance
from evqgan.evals.batches import errors_last
from evqgan.evals.provenance import Evaluation
from evqgan.training.alarms import alarms, check_skipped, highest
from evqgan.training.setup import Setup
from evqgan.training.timing import StepTimer

Taken = tuple[int, dict, dict[str, Any]]  # steps that are done, the state after them, metrics
# How metrics of every model begin, which the line of a step shows after a model's own.
LAST = ("gradient_norm", "learning_rate", "skipped")
STEP = "the step under way"  # what a signal waits for
SKIPS = 10  # ours: updates in a row that were not finite before a run gives up


def memory() -> float:
    """Return the GiB of the machine's memory that this process holds."""
    return psutil.Process().memory_info().rss / 2**30


class Reporter:
    """Reports on the steps of one run, to the terminal and by a Writer."""

    def __init__(self, setup: Setup, writer: Writer, state: dict, began: float) -> None:
        """Report on the steps that follow the first `state`, from which the run goes on.

        began: when the run did, by `time.perf_counter`.
        """
        self.setup, self.writer = setup, writer
        self.under_way = STEP  # what a signal waits for, in words
        peak = chips.of(jax.devices()[0].device_kind).flops
        size = setup.config.batch_size
        self.progress = StepTimer(setup.length.total, size, began, setup.flops_at, peak)
        self.waits = False  # whether a wait for data was warned of
        self.last_reported = int(state["skipped"][1])  # skipped steps that a line told of
        self.watched = build.plain(setup.config.get("alarm", {}))
        # The chief alone says alarms, and may just mend that file.
        chief = jax.process_index() == 0
        self.highest_so_far = highest(setup.workdir, self.watched) if chief else {}
        # The step of the last evaluation before, and its numbers with their cards.
        self.before = cards.latest(setup.workdir, int(state["step"])) if chief else None

    def compiling(self, step: int, update: Callable) -> Callable:
        """Return an update that takes step `step` and, as its first one, is compiled by it.

        Rates are counted from the next step on.
        """

        def take(state: dict, batch: dict) -> Any:
            began = time.perf_counter()
            tell("compiling the training step: minutes at full size, and kept for the next time")
            with self.progress.spend("compiling"), heartbeat("compiling", tell):
                done = jax.block_until_ready(update(state, batch))
            self.progress.start(step)
            tell(f"compiled in {time.perf_counter() - began:.0f} s")
            return done

        return take

    def fetch(self, step: int, metrics: dict) -> dict[str, float]:
        """Return the metrics of a step as floats, and warn of steps that were skipped.

        Raises NonFinite, and writes nonfinite.json, if SKIPS were skipped in a row.
        """
        first, last = ("loss", *self.setup.stage.progress_keys), LAST
        names = [name for name in first if name in metrics]
        names += sorted(metrics.keys() - {*names}, key=lambda name: (name.startswith(last), name))
        found = {f"train/{name}": float(metrics[name]) for name in names}
        try:
            line = check_skipped(step, found, self.last_reported, SKIPS)
        except NonFinite:
            if jax.process_index() == 0:
                values = {name: str(value) for name, value in found.items()}
                report = {"step": step, "metrics": values}
                files.save_json(self.setup.workdir / "nonfinite.json", report)
            raise
        if line:
            tell(line)
        self.last_reported = int(found["train/skipped"])
        return found

    def write(self, step: int, metrics: dict[str, float], skipped_images: int) -> None:
        """Print the progress line, and write the metrics of `fetch`."""
        tell(self.progress.line(step, metrics))
        perf = self.progress.perf(step)
        own = {"skipped_images": skipped_images, "memory_gib": memory()}
        self.writer.write(step, {**metrics, **perf, **{f"perf/{k}": x for k, x in own.items()}})
        if not self.waits and (line := self.progress.waited(perf)) and jax.process_index() == 0:
            self.waits = True
            warn(f"{line}: {self.advice()}")

    def advice(self) -> str:
        """Return what to do where the devices wait for data."""
        dataset = self.setup.dataset
        if dataset.codes:
            return "put the stored ids on a faster disk"
        now = ["put the images on a faster disk", "give each device more cores"]
        if not dataset.workers:
            now.insert(0, "read by processes if cores are idle (config.dataset.workers)")
        advice = self.setup.stage.data_advice
        if (self.setup.workdir.parent / quickstart_record.PLAN).is_file():  # of configs/folder.py
            advice = (
                "for a new run scale the pictures down to near its size before, or train both "
                "stages one by one, which read record files and stored ids (docs/own_images.md)"
            )
        return f"{', '.join(now)}, or {advice}"

    def evaluate(self, step: int, state: dict) -> Score | None:
        """Evaluate a state, write its numbers and pictures, and return its score.

        The score is made of the number config.best, None if no evaluator gives it.
        """
        if self.setup.evaluators:
            tell(f"evaluating step {step:,}")
            self.under_way = f"the evaluation of step {step:,}"
        with self.progress.spend("evaluation"), heartbeat("evaluating", tell):
            began = time.perf_counter()
            found, shown = self._measured(step, state)
            seconds = {"perf/evaluation_seconds": time.perf_counter() - began}
            numbers = {f"val/{name}": value for name, value in found["numbers"].items()}
            measured = cards.measurements(found)
            score = self._score(numbers, measured)
            self.writer.write(step, {**numbers, **seconds})
            self.writer.images(step, shown)
            self._save_pictures(step, shown)
            if numbers:
                tell("  " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
            self._tell_remeasured(step, found)
            for line in alarms(step, numbers, measured, self.highest_so_far, self.watched):
                tell(line)
        self.under_way = STEP
        return score

    def _measured(self, step: int, state: dict) -> tuple[Evaluation, dict[str, np.ndarray]]:
        """Return the numbers of a state with their cards, and pictures, "val/<name>".

        The first process saves the numbers and cards in training/evaluation_<step>.json, in the
        form of an evaluation.json.
        """
        config, workdir = self.setup.config, self.setup.workdir
        with cluster.failing_together(), errors_last():  # so that all can save the step then
            subject = functools.partial(provenance.subject, config, workdir, step, state)
            found, shown = evals.run_all(self.setup.evaluators, state, subject)
        if found["numbers"] and jax.process_index() == 0:
            files.save_json(cards.file_of(self.writer.folder, step), provenance.finite(found))
        return found, {f"val/{name}": picture for name, picture in shown.items()}

    def _tell_remeasured(self, step: int, found: Evaluation) -> None:
        """Say which numbers are measured otherwise than at the last evaluation before."""
        if self.before is not None:
            earlier, there = self.before
            for numbers in cards.remeasured(there, found):
                tell(
                    f"measured otherwise than at step {earlier:,}, and not compared with that, "
                    f"for the best or an alarm: {numbers}"
                )
        self.before = step, found

    def _score(self, numbers: dict[str, float], measured: dict[str, str]) -> Score | None:
        """Return the score of the number config.best; a line says if this evaluation gave none.

        numbers, measured: {name: its value}, {name: how it was}.
        """
        best = self.setup.config.get("best", "")
        if best and self.setup.evaluators and best not in numbers:
            tell(f"this evaluation gave no {best} (config.best): its checkpoint has no score")
        if best not in numbers:
            return None
        sign = -1 if evals.is_better_higher(self.setup.evaluators, best) else 1
        return Score(float(sign * numbers[best]), best, measured.get(best, ""))

    def _save_pictures(self, step: int, shown: dict[str, np.ndarray]) -> None:
        """Save pictures {name: uint8 [H,W,3]} in the workdir, by the first process."""
        if jax.process_index() == 0:
            for name, picture in shown.items():
                file = f"{name.split('/')[-1]}_{step:07d}.png"
                pictures.save_png(self.writer.folder / "training" / file, picture)
