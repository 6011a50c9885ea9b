"""THE training loop: batches -> stage.update -> log -> evaluate -> checkpoint. It knows no stage."""

import contextlib
import functools
import pathlib
import signal
import time

import jax
import numpy as np
from clu import parameter_overview

from evqgan import evals
from evqgan.core import build, checkpoint, cluster, files, mesh, pictures, room, versions
from evqgan.core.errors import InputError, NonFinite
from evqgan.core.log import Writer, alarms, check_skipped, highest
from evqgan.core.progress import StepTimer
from evqgan.data import pipeline
from evqgan.training import claims, initial_state, optim
from evqgan.training import stage as stages

SKIPS = 10  # ours: updates in a row that were not finite before a run gives up


NAMES = ("SIGTERM", "SIGINT", "SIGHUP")  # a scheduler's, Ctrl-C, a terminal that is gone, which Windows has not
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Stopped(SystemExit):
    """The run was asked to stop by a signal, and has saved its state. The exit code is the shell's for that signal."""

    def __init__(self, step, number=signal.SIGTERM):
        super().__init__(128 + number)
        self.step = step


@contextlib.contextmanager
def stop_signal():
    """Yields a function that gives the signal of SIGNALS that has come since, or None.

    The second one ends the process at once, as if there were no handler. What was ignored before, as SIGHUP is under
    nohup, stays so. In a run of many processes JAX listens for SIGTERM (`stop_now`), and a handler of ours would take
    the signal away from it.
    """
    if jax.process_count() > 1:
        yield lambda: None
        return
    came = []
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def note(number, _):
        came.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def jitted(stage, device_mesh, rules=mesh.RULES):
    """-> abstract state (shapes with shardings), init, update, all compiled over the mesh; update donates its state."""
    shapes = jax.eval_shape(stage.init)
    shardings = mesh.shardings(shapes, device_mesh, rules)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    # astype takes weak types away, with which update would be compiled twice: for the first step, and for all others.
    init = jax.jit(lambda: jax.tree.map(lambda x: x.astype(x.dtype), stage.init()), out_shardings=shardings)
    whole = mesh.replicated(device_mesh)
    update = jax.jit(stage.update, donate_argnums=0, out_shardings=(shardings, whole))
    return like, init, update


def check_step(update, like, dataset, source, config, device_mesh):
    """InputError for a step that cannot be built, or whose state or batch is larger than the memory there is.

    What `update` is given is traced here as the first step will trace it, so that nothing is traced twice.
    """
    height, width = dataset.shape
    held = sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(like))
    room.require(
        held, "config.tokenizer, .generator and the like: the weights and the optimizer's state", room.of_device()
    )
    spread = mesh.batch_sharding(device_mesh)
    example = {"ids": source.load(0)["ids"].shape} if dataset.codes else {"image": (height, width, 3)}
    batch = {
        name: jax.ShapeDtypeStruct(
            (config.batch_size, *shape), np.int32 if name == "ids" else np.uint8, sharding=spread
        )
        for name, shape in example.items()
    }
    batch["label"] = jax.ShapeDtypeStruct((config.batch_size,), np.int32, sharding=spread)
    update.eval_shape(like, batch)


def train(config, workdir):
    """Trains `config` in `workdir`, which is this run's while it lasts; see `run` -> the final state."""
    with files.owned(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
        return run(config, workdir)


def run(config, workdir):
    """Trains `config` in `workdir`, going on from its latest checkpoint -> the final state.

    State and data are functions of (seed, step): a run that was stopped or killed and started again ends with the
    same bits as one that was not. Raises InputError for what a user can mend, NonFinite when the loss is not finite,
    Stopped after a signal of SIGNALS.
    """
    workdir = pathlib.Path(workdir)
    module = stages.module(config)
    config = module.resolve(config)
    initial_state.check_init(config, workdir)
    module.make(config)  # all that is wrong with the config is said before anything is read
    dataset = build.call(pipeline.Dataset, config.dataset, "config.dataset")
    height, width = dataset.shape
    images = f"config.batch_size = {config.batch_size} images of {width}x{height}"
    room.require(config.batch_size * height * width * 3, images)
    chief = jax.process_index() == 0
    say = functools.partial(print, flush=True) if chief else (lambda _: None)
    say(f"reading {dataset.codes or dataset.folder or dataset.name}")
    pipeline.prepare(dataset)
    source = pipeline.open_split(dataset, dataset.train)
    about = pipeline.summary(dataset, source)
    with config.unlocked():
        config.class_names = list(source.class_names)  # so that samples can be asked for by name
        config.data = pipeline.identity(source)
        config.began = initial_state.of_this_leg(config, workdir, len(source))
    config = module.resolve(config, len(source.class_names))
    cluster.check_alike(list_of_training_images=[config.class_names, config.data], place_in_the_run=config.began)
    stage = module.make(config, len(source), len(source.class_names))
    total = optim.to_steps(config.duration, len(source), config.batch_size)
    if not total:
        raise InputError(
            f"config.duration = {config.duration!r} of {len(source)} images is less than a step of config.batch_size = "
            f"{config.batch_size}: train longer, or with smaller batches"
        )
    every = {
        k: max(1, optim.to_steps(config[f"{k}_every"], len(source), config.batch_size, total))
        for k in ("log", "eval", "checkpoint")
    }
    device_mesh = build.call(mesh.make, config.get("mesh", {}), "config.mesh")
    rows = mesh.rows(device_mesh, config.batch_size)
    cluster.check_shared(workdir)

    say("building the model and what it begins with")
    with build.one_line("no training step can be built from this config"):
        like, init, update = jitted(stage, device_mesh)
        check_step(update, like, dataset, source, config, device_mesh)
    evaluators = evals.build_all(config, stage.model, dataset, device_mesh)
    checkpoints = checkpoint.Checkpoints(workdir, config.get("keep", 1))
    saved = checkpoints.parts() if checkpoints.steps() else ()
    # Without a checkpoint nothing was trained; with averaged weights alone, of a public one, a new run begins.
    anew = "params" not in saved
    if not anew:
        claims.check_claim(workdir, config)
    try:
        state, notes = initial_state.state(config, module, stage, like, init, checkpoints, saved)
    except InputError:
        checkpoints.close()
        raise
    # Now, as a run that cannot load what it begins with leaves the workdir as it was.
    claims.claim(workdir, config, anew)
    start, told = int(state["step"]), int(state["skipped"][1])
    if start >= total:
        say(f"{workdir}: trained to step {start:,} of {total:,}")
        checkpoints.close()
        return state
    if chief:
        with files.atomic(workdir / "parameters.txt") as file:
            file.write(parameter_overview.get_parameter_overview(like["params"], include_stats=False).encode())
    parameters = sum(x.size for x in jax.tree.leaves(like["params"]))
    say(
        f"{workdir}: {config.stage}, {parameters:,} parameters, {len(source):,} images, batch {config.batch_size}, "
        f"steps {start:,} to {total:,} on {device_mesh.size} x {jax.devices()[0].device_kind}"
    )
    if chief and (changed := versions.note(workdir, start)):
        notes = (*notes, changed)
    for note in (about, *notes, *stage.notes, "compiling the training step"):
        say(note)

    batches = pipeline.train_batches(dataset, config.batch_size, config.seed, start, rows)
    progress = StepTimer(total, config.batch_size)
    began = time.perf_counter()
    with contextlib.closing(batches), Writer(workdir, start, enabled=chief) as writer, stop_signal() as stopping:
        watched = build.plain(config.get("alarm", {}))
        best = highest(workdir, watched) if chief else {}  # the chief alone says alarms, and may just mend that file
        for step in range(start, total):
            batch = mesh.put(next(batches), device_mesh, config.batch_size)
            state, metrics = update(state, batch)
            done = step + 1
            stop = stop_now(stopping, checkpoints, done)
            due = {name: done % n == 0 or done == total for name, n in every.items()}
            if step == start:  # the first step compiles; rates are counted from the second
                jax.block_until_ready(metrics)
                progress.start(done)
                say(f"compiled in {time.perf_counter() - began:.0f} s")
            if due["log"] or due["eval"] or due["checkpoint"] or stop:
                first = [name for name in ("loss", *stage.shown) if name in metrics]
                host = {f"train/{k}": float(metrics[k]) for k in [*first, *(k for k in metrics if k not in first)]}
                told = give_up_or_say(done, host, told, workdir, say)
                doubtful = host["train/skipped_in_a_row"] > 0 and not stop and done < total
            if due["log"]:
                say(progress.line(done, host))
                writer.write(done, {**host, **progress.perf(done), "perf/skipped_images": batches.skipped()})
            score = float("inf")
            if due["eval"]:
                if evaluators:
                    say("evaluating")
                with progress.pause():
                    eval_began = time.perf_counter()
                    numbers, shown = evals.run_all(evaluators, state)
                    score = numbers.get(config.get("best", ""), score)
                    if config.get("best") and config.best not in numbers:
                        hint = build.nearest(config.best, numbers)
                        say(f"config.best is {config.best!r}, which no evaluator gives: {hint}")
                    writer.write(done, {**numbers, "perf/evaluation_seconds": time.perf_counter() - eval_began})
                    writer.images(done, shown)
                    if chief:
                        for name, picture in shown.items():
                            pictures.save_png(workdir / "training" / f"{name.split('/')[-1]}_{done:07d}.png", picture)
                    say("  " + "  ".join(f"{k} {v:.4g}" for k, v in numbers.items()))
                    for line in alarms(done, numbers, best, watched):
                        say(line)
            if (due["checkpoint"] or due["eval"] or stop) and not doubtful:  # what led here must not replace a good one
                with progress.pause():
                    checkpoints.save(done, state, score)
            if stop and done < total:
                checkpoints.close()
                name = signal.Signals(stop).name
                say(f"stopped by {name} at step {done:,}; the same command goes on from there")
                raise Stopped(done, stop)
    checkpoints.close()
    return state


def give_up_or_say(step, metrics, told, workdir, say):
    """Says that steps were skipped, beyond the `told` ones; if SKIPS were in a row writes nonfinite.json and raises."""
    try:
        line = check_skipped(step, metrics, told, SKIPS)
    except NonFinite:
        if jax.process_index() == 0:
            report = {"step": step, "metrics": {name: str(value) for name, value in metrics.items()}}
            files.save_json(workdir / "nonfinite.json", report)
        raise
    if line:
        say(line)
    return int(metrics["train/skipped"])


def stop_now(stopping, checkpoints, step):
    """The signal by which this process, or any other of the run, was asked to stop; all answer alike for one step."""
    if jax.process_count() == 1:
        return stopping()
    return signal.SIGTERM if checkpoints.manager.reached_preemption(step) else None
