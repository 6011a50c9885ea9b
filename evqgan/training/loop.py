"""THE training loop: batches -> stage.update -> log -> evaluate -> checkpoint. It knows no stage.

`train` owns the workdir and finds its checkpoint: prepare -> restore_or_init -> run.
"""

import contextlib
import dataclasses
import itertools
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from clu import parameter_overview

from evqgan import evals
from evqgan.core import (
    build,
    cards,
    checkpoint,
    chips,
    cluster,
    files,
    last_good,
    mesh,
    progress,
    signals,
    stores,
    versions,
)
from evqgan.core.errors import InputError
from evqgan.core.metrics_writer import Writer
from evqgan.core.processes import tell
from evqgan.core.retention import Score
from evqgan.data import pipeline
from evqgan.training import (
    disk,
    initial_state,
    optim,
    profiling,
    resume_rules,
    step_flops,
    timing,
    watchdog,
    workdir_check,
)
from evqgan.training.prepare import prepare
from evqgan.training.reporting import Reporter, Taken
from evqgan.training.setup import Setup
from evqgan.training.stopping import Stopped, stop_now, stop_signal

MANY_SKIPPED = 0.01  # ours: the share of skipped steps of which the end of a run warns


def train(config: Any, workdir: str | os.PathLike, profile: int = 0) -> dict:
    """Train `config` in `workdir`, going on from its latest checkpoint; return the final state.

    The workdir is this run's while it lasts. State and data are functions of (seed, step): a run
    that was stopped or killed and started again ends with the same bits as one that was not.
    profile: how many steps to trace into the folder "profile" of the workdir.

    Raises InputError for what a user can mend, NonFinite when the loss is not finite, Stopped
    after a signal of `core.signals.SIGNALS`.
    """
    began = time.perf_counter()
    workdir_check.check(workdir, both=False)
    place, step = stores.path(workdir), checkpoint.latest(workdir)
    signals.note_saved(f"step {step:,} in {workdir}" if step else "")
    with files.owned(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
        last = checkpoint.latest(place)
        if is_searched := config.get("resume") == "last_good":
            last = cluster.by_first(lambda: last_good.find(place, tell))
        setup = prepare(config, place, last)
        cluster.by_first(lambda: disk.check(setup, last))
        if is_searched:  # only here: a run that is refused must not have changed the workdir
            cluster.by_first(lambda: last_good.set_aside(place, last, tell))
        checkpoints = checkpoint.Checkpoints(setup.workdir, setup.config.get("keep", 1))
        with progress.heartbeat("making the state that it begins with", tell):
            state, notes = restore_or_init(setup, checkpoints)
        if int(state["step"]) < setup.length.total:
            announce(setup, state, notes)
            state = run(setup, checkpoints, state, began, profile)
        else:
            for note in notes:
                tell(note)
            if line := nothing_left(setup, int(state["step"])):
                tell(line)
        checkpoints.close()
        step, total = int(state["step"]), setup.length.total
        tell(f"{setup.workdir}: trained to step {step:,} of {total:,}")
        if (line := many_skipped(int(state["skipped"][1]), step)) and jax.process_index() == 0:
            progress.warn(line)
        return optim.averaged(state)


def nothing_left(setup: Setup, step: int) -> str:
    """Return a line for a run that has taken all its `step` steps before this command, or "".

    It says where there are more of them than its duration is by now, and where the last one has no
    evaluation, as that was stopped or failed.
    """
    length = setup.length
    if step == length.total:
        has_numbers = any(evals.names_of(setup.evaluators).values())
        if not has_numbers or cards.file_of(setup.workdir, step).exists():
            return ""
        return (
            f"{setup.workdir}/training has no evaluation of step {step:,}, the last: "
            f"--mode=evaluate --workdir={shlex.quote(str(setup.workdir))} measures it"
        )
    return (
        f"config.duration = {setup.config.duration!r} of the {length.examples:,} images there are "
        f"now is {length.total:,} steps, and {step:,} are taken: nothing is left to do, and a "
        "longer duration goes on"
    )


def many_skipped(skipped: int, steps: int) -> str:
    """Return a line if many steps of a run were skipped as not finite, "" otherwise."""
    if skipped < max(1, MANY_SKIPPED * steps):
        return ""
    which = "every step was" if skipped == steps else f"{skipped:,} of {steps:,} steps were"
    return (
        f"{which} skipped, as the loss or a gradient was not finite, and taught nothing: train "
        "again with a lower learning rate, a longer warm-up, stronger gradient clipping or dtype "
        "float32"
    )


def restore_or_init(
    setup: Setup, checkpoints: checkpoint.Checkpoints
) -> tuple[dict, tuple[str, ...]]:
    """Return the state with which the run goes on or begins, and lines for the log about it.

    Claims the workdir for the config.
    """
    config, workdir = setup.config, setup.workdir
    saved = checkpoints.parts() if checkpoints.steps() else ()
    # Without a checkpoint nothing was trained yet. A checkpoint without "params" was converted from
    # a public model and holds its averaged weights alone: the run that takes them begins at step 0.
    fresh = "params" not in saved
    try:
        state, notes = initial_state.state(setup, checkpoints, saved)
    except InputError:
        checkpoints.close()
        raise
    # Only here: a run that cannot load what it begins with must not have changed the workdir.
    if not fresh and int(state["step"]) >= setup.length.total:
        config = resume_rules.without_step(workdir, config)
    if not fresh:
        notes = (*notes, *resume_rules.changes(workdir, config))
    resume_rules.claim(workdir, config, fresh)
    return state, notes


def announce(setup: Setup, state: dict, notes: tuple[str, ...]) -> None:
    """Log what is about to run, and note its parameters and software versions in the workdir."""
    params, step = setup.compiled.abstract_state["params"], int(state["step"])
    changed = ""
    if jax.process_index() == 0:
        with files.atomic(setup.workdir / "parameters.txt") as file:
            overview = parameter_overview.get_parameter_overview(params, include_stats=False)
            file.write(overview.encode())
        changed = versions.note(setup.workdir, step)
    number, length = sum(x.size for x in jax.tree.leaves(params)), setup.length
    tell(
        f"{setup.workdir}: {setup.config.stage}, {number:,} parameters, {length.examples:,} "
        f"images, batch {length.batch_size}, steps {step:,} to {length.total:,} on "
        f"{setup.device_mesh.size} x {jax.devices()[0].device_kind}"
    )
    notes = (setup.data, *notes, changed, *setup.stage.notes, setup.stage.updater.note)
    for note in filter(None, notes):
        tell(note)
    if each := setup.flops_at(step):
        peak = chips.of(jax.devices()[0].device_kind).flops
        tell(step_flops.in_words(each, setup.device_mesh.size, peak))
    if again := timing.lost(setup.workdir, step):
        tell(again)


def steps(
    setup: Setup, reporter: Reporter, batches: Iterator[dict], state: dict
) -> Iterator[Taken]:
    """Yield after each step to the end of the run: how many are done, the state, and metrics."""
    compiled: Any = None
    telling: Any = progress.heartbeat("reading the first batch", tell)
    for step in range(int(state["step"]) + 1, setup.length.total + 1):
        with reporter.progress.waiting(step - 1), telling:
            batch = mesh.put(next(batches), setup.device_mesh, setup.config.batch_size)
        telling = contextlib.nullcontext()
        update = setup.update_at(step - 1)
        take = update if update is compiled else reporter.compiling(step, update)
        state, metrics = take(state, batch)
        reporter.progress.ends.took(step, metrics["loss"])
        compiled = update
        yield step, state, metrics


def run(
    setup: Setup, checkpoints: checkpoint.Checkpoints, state: dict, began: float, profile: int
) -> dict:
    """Take the steps from `state` to the end of the run; return the final state.

    began: when the run did, by `time.perf_counter`. profile: see `train`.
    """
    config, start = setup.config, int(state["step"])
    data = setup.dataset, config.batch_size, config.seed, start, setup.rows
    with (
        contextlib.closing(pipeline.train_batches(*data)) as batches,
        Writer(setup.workdir, start, enabled=jax.process_index() == 0) as writer,
    ):
        pipeline.check_identity(batches, build.plain(config.data))
        reporter = Reporter(setup, writer, state, began)
        taken = steps(setup, reporter, batches, state)
        if profile:
            taken = profiling.traced(taken, start, profile, setup.workdir, reporter.progress)
        # The first step compiles: a signal still ends it at once, and the watchdog does not watch.
        first = next(taken)

        def end(stuck: str) -> None:
            batches.kill()
            watchdog.end_process(stuck)

        with (
            stop_signal(lambda: reporter.under_way) as stopping,
            watchdog.watching(reporter.progress, config.get("stall", 60.0), end, batches.awaited),
            contextlib.closing(reporter.progress),
        ):
            after = AfterStep(setup, checkpoints, reporter, batches.skipped, stopping)
            for step, state, metrics in itertools.chain([first], taken):
                after.do(step, state, metrics)
    return state


@dataclasses.dataclass(frozen=True, eq=False)
class AfterStep:
    """What a run does after each of its steps: it reports, evaluates, saves, and may stop.

    skipped: returns how many images could not be read so far.
    stopping: of `stopping.stop_signal`.
    """

    setup: Setup
    checkpoints: checkpoint.Checkpoints
    reporter: Reporter
    skipped: Callable[[], int]
    stopping: Callable[[], int | None]

    def do(self, step: int, state: dict, metrics: dict) -> None:
        """Do what is due after `step`, with the state and the metrics that it has given.

        Raises Stopped, once the state is saved, if a signal has come.
        """
        stop, due = stop_now(self.stopping, self.checkpoints, step), self.setup.due(step)
        is_last, score = step == self.setup.length.total, None
        if due or stop:
            metrics = self.reporter.fetch(step, metrics)
        if "log" in due:
            self.reporter.write(step, metrics, self.skipped())
        # After a skipped step nothing is saved, as its state may be bad, and would replace a good
        # checkpoint; but the last step and that at which a signal stops the run are.
        doubtful = due and metrics["train/skipped_in_a_row"] > 0 and not is_last
        state = optim.averaged(state)
        if "eval" in due:
            with contextlib.nullcontext() if doubtful else self._saved_if_raises(step, state):
                score = self.reporter.evaluate(step, state)
            stop = stop or self.stopping()  # it may have come meanwhile
        if stop or (due & {"checkpoint", "eval"} and not doubtful):
            self._save(step, state, score)
        if is_last:
            with self.reporter.progress.spend("save"):
                self.checkpoints.wait()
            tell(f"time: {self.reporter.progress.summary()}")
            stop = stop or self.stopping()  # the last moment to hear of one
        if stop:
            self.checkpoints.close()
            name, then = signal.Signals(stop).name, resume_hint(step, self.setup.length.total)
            tell(f"stopped by {name} at step {step:,}{then}")
            raise Stopped(step, stop)

    def _save(self, step: int, state: dict, score: Score | None) -> None:
        with self.reporter.progress.spend("save"):
            self.reporter.writer.flush()  # before the step that a run goes on from
            self.checkpoints.save(step, state, score)

    @contextlib.contextmanager
    def _saved_if_raises(self, step: int, state: dict) -> Iterator[None]:
        """Save a step, without a score, if its evaluation in the body raises; the run then ends."""
        try:
            yield
        except Exception:  # of any kind, and raised again below: nothing is swallowed
            # Each process has a part of the state: all have to fail alike.
            if cluster.met(f"evaluation_{step}", cluster.LEAVING):
                try:
                    self._save(step, state, None)
                    self.checkpoints.wait()
                    tell(f"the evaluation of step {step:,} failed; the step itself is saved")
                except InputError as unwritten:
                    progress.warn(str(unwritten))  # the error that ends the run says more
            raise


def resume_hint(step: int, total: int) -> str:
    """Return how the line of a signal goes on: where the same command goes on after `step`."""
    if step < total:
        return "; the same command goes on from there"
    return ", the last; this training is done, and the same command goes on after it"
