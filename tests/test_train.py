"""The loop: exact resume after SIGTERM and kill -9, refusals, a stop on numbers not finite."""

import fnmatch
import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from ml_collections import ConfigDict
from test_configs import load

from evqgan import evals as evaluators
from evqgan.core import build, cards, checkpoint
from evqgan.core.errors import ContractError, InputError, NonFinite
from evqgan.evals import reconstruction
from evqgan.evals.provenance import Measured, ModelCard, Produced, Subject
from evqgan.plot import curves
from evqgan.training import loop, reporting, resume_rules, stopping
from evqgan.training.prepare import prepare
from evqgan.training.run_length import RunLength

ROOT = pathlib.Path(__file__).parent.parent


def config_of(stage, **changes):
    """A config small enough for tens of steps in a second.

    It has all that a state can hold: codebook, EMA, dropout.
    """
    config = load("quickstart", "tiny")["tokenizer" if stage == 1 else "generator"]
    config.update(
        {
            "batch_size": 8,
            "duration": "60",
            "log_every": "5",
            "eval_every": "30",
            "checkpoint_every": "20",
        }
    )
    if stage == 1:
        config.tokenizer.quantizer.update({"name": "ema", "decay": 0.9, "revive": 0.5})
        config.optimizer.accumulate = 2
        critic = {"name": "patchgan", "layers": 1, "width": 4}
        config.adversarial = {
            "critic": critic,
            "start": "10 steps",
            "optimizer": {"learning_rate": 1e-3},
        }
    else:
        config.tokenizer = {
            "weights": "random",
            "model": load("quickstart", "tiny").tokenizer.tokenizer,
        }
    config.update(changes)
    return config


def state_of(config, workdir):
    """All arrays of a workdir's latest checkpoint."""
    config = build.module("training", config.stage, "").resolve(config)
    stage = build.module("training", config.stage, "").make(config, config.dataset.num_examples)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(stage.init)
    checkpoints = checkpoint.Checkpoints(workdir)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    state = checkpoints.restore(like)
    checkpoints.close()
    return state


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("perf/")} for line in lines]


def start(config, workdir, folder=None):
    """Training as a process of its own; its config is written into `folder`."""
    file = (folder or workdir.parent) / f"{workdir.name}.json"
    file.write_text(config.to_json())
    code = (
        "import json, sys, pathlib; from ml_collections import ConfigDict;"
        "from evqgan.training import loop;"
        f"text = pathlib.Path({str(file)!r}).read_text();"
        f"loop.train(ConfigDict(json.loads(text)), {str(workdir)!r})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(process, workdir, step):
    """Returns when the run has logged `step`."""
    for _ in range(15_000):  # five minutes: a busy machine compiles slowly
        if process.poll() is not None:
            raise AssertionError(process.stdout.read())
        file = workdir / "metrics.jsonl"
        if file.exists() and f'"step": {step},' in file.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} never came")


@pytest.fixture(scope="module")
def trained_straight(tmp_path_factory):
    """What `straight` gives, of a stage: trained once, in whichever order tests ask for it."""

    @functools.cache
    def trained(stage):
        config = config_of(stage)
        workdir = tmp_path_factory.mktemp("straight") / "run"
        failed = config.copy_and_resolve_references()
        failed.optimizer.learning_rate = 0.5
        resume_rules.claim(workdir, failed)
        evaluate = reporting.Reporter.evaluate

        def evaluate_and_stop(self, step, state):
            if step == 60:
                os.kill(os.getpid(), signal.SIGTERM)
            return evaluate(self, step, state)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(stopping.Stopped) as stopped:
            patch.setattr(reporting.Reporter, "evaluate", evaluate_and_stop)
            loop.train(config.copy_and_resolve_references(), workdir)
        assert (stopped.value.code, stopped.value.step) == (143, 60)
        return config, workdir

    return trained


@pytest.fixture(params=[1, 2])
def straight(request, trained_straight):
    """A config and the workdir of a run of it that nothing interrupted before its last evaluation.

    A signal came in that one. Another run there failed before it had trained.
    """
    return trained_straight(request.param)


@pytest.mark.parametrize(
    "straight, with_signal",
    [
        (1, signal.SIGTERM),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((2, signal.SIGKILL), (1, signal.SIGKILL))
        ),
        pytest.param(2, signal.SIGTERM, marks=pytest.mark.slow),
    ],
    indirect=["straight"],
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(straight, tmp_path, with_signal, capfd):
    config, expected = straight
    workdir = tmp_path / "run"
    process = start(config, workdir)
    wait_for_step(process, workdir, 35)
    process.send_signal(with_signal)
    output, _ = process.communicate(timeout=300)
    if with_signal == signal.SIGTERM:
        assert process.returncode == 143, output
        assert "stopped by SIGTERM at step" in output
    else:
        assert process.returncode == -9
    loop.train(config.copy_and_resolve_references(), workdir)
    said = capfd.readouterr().out  # it went on, it did not begin again
    assert "to 60 on" in said and "steps 0 to" not in said
    a, b = state_of(config, expected), state_of(config, workdir)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert metrics_of(workdir) == metrics_of(expected)


@pytest.mark.slow
@pytest.mark.parametrize("straight", [1], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_reads_by_workers_may_go_on_by_threads(straight, tmp_path, number):
    """Its workers, signalled as well, say nothing and are gone with it."""
    config, expected = straight
    by_workers = config.copy_and_resolve_references()
    with by_workers.unlocked():
        by_workers.dataset.workers = 2
    workdir = tmp_path / "run"
    process = start(by_workers, workdir)
    wait_for_step(process, workdir, 25)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    for each in (process, *workers) if number != signal.SIGKILL else [process]:
        each.send_signal(number)
    output, _ = process.communicate(timeout=300)
    assert "Traceback" not in output
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    process = start(config, workdir)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0 and "steps 0 to" not in output, output
    a, b = (jax.tree.leaves(state_of(config, there)) for there in (expected, workdir))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert metrics_of(workdir) == metrics_of(expected)


def test_metrics_and_pictures_are_there(straight):
    config, workdir = straight
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = [line["step"] for line in lines if "train/loss" in line]
    assert logged == list(range(5, 61, 5))
    assert any("perf/images_per_second" in line for line in lines)
    name = "val/psnr" if config.stage == "stage1" else "val/cross_entropy@0.50"
    assert [line["step"] for line in lines if name in line] == [30, 60]
    assert (workdir / "parameters.txt").is_file() and list(workdir.glob("events*"))
    shown = {"stage1": ("codebook", "reconstructions"), "stage2": ("samples",)}[config.stage]
    names = sorted(path.name for path in (workdir / "training").glob("*.png"))
    assert names == [f"{name}_{step:07d}.png" for name in shown for step in (30, 60)]
    for step in (30, 60):  # every number with its card
        (there,) = (line for line in lines if line["step"] == step and name in line)
        file = workdir / "training" / f"evaluation_{step:07d}.json"
        found = json.loads(file.read_text())
        (card,) = found["protocols"].values()
        assert {f"val/{n}": x for n, x in found["numbers"].items()}.items() <= there.items()
        assert card["model"]["step"] == step and card["numbers"] == list(found["numbers"])


@pytest.mark.parametrize("straight", [1], indirect=True)  # which stage it is makes no difference
def test_a_finished_run_stays_as_it_is(straight, capsys):
    config, workdir = straight
    before = (workdir / "metrics.jsonl").read_text()
    loop.train(config.copy_and_resolve_references(), workdir)
    assert "trained to step 60 of 60" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("straight", [1], indirect=True)  # which stage it is makes no difference
def test_a_workdir_of_another_config_is_refused_once_it_has_a_checkpoint(straight):
    config, workdir = straight
    assert (
        f'"learning_rate": {config.optimizer.learning_rate}'
        in (workdir / "config.json").read_text()
    )
    other = config.copy_and_resolve_references()
    other.optimizer.learning_rate = 0.5
    before = (workdir / "config.json").read_text()
    with pytest.raises(
        InputError, match=r"another config, config.optimizer.learning_rate: [\d.]+ -> 0.5: give the"
    ):
        loop.train(other, workdir)
    assert (workdir / "config.json").read_text() == before


def test_signals_that_are_ignored_stay_ignored_and_the_others_are_noted():
    """nohup ignores SIGHUP, and a shell SIGINT for what it starts in the background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.stop_signal(str) as came:
            os.kill(os.getpid(), signal.SIGHUP)
            assert came() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert came() == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stopping.stop_signal(str) as came:
            os.kill(os.getpid(), signal.SIGHUP)
            assert came() == signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_how_a_run_is_watched_may_change(tmp_path):
    config = config_of(2)
    config.mesh = {"fsdp": 1}
    resume_rules.claim(tmp_path, config)
    config.log_every, config.mesh.fsdp = "7", 2
    config.tokenizer.weights = "random" if config.tokenizer.weights == "random" else "b"
    resume_rules.claim(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text())["mesh"] == {"fsdp": 2}
    was = config.tokenizer.model.quantizer.codes
    config.tokenizer.model.quantizer.codes = 2 * was
    with pytest.raises(
        InputError, match=rf"config.tokenizer.model.quantizer.codes: {was} -> {2 * was}"
    ):
        resume_rules.claim(tmp_path, config)


def test_a_data_set_may_move(tmp_path):
    """What config.data says of its images has to stay."""
    config = config_of(2)
    config.data = {"examples": 6, "list": "0123456789abcdef"}
    config.dataset = {"folder": "/first", "size": 32, "workers": 0}
    resume_rules.claim(tmp_path, config)
    config.dataset.folder, config.dataset.workers = "/moved", 4
    resume_rules.claim(tmp_path, config)
    kept = json.loads((tmp_path / "config.json").read_text())["dataset"]
    assert (kept["folder"], kept["workers"]) == ("/moved", 4)
    config.data.list = "fedcba9876543210"
    with pytest.raises(InputError, match="was trained on 6 examples, and others, as many, are"):
        resume_rules.claim(tmp_path, config)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path):
    config = config_of(1, checkpoint_every="5 steps")
    config.adversarial.weight = 0.0
    config.optimizer.update({"learning_rate": 1e30, "warmup": "0 steps", "clip": 0.0})
    with pytest.raises(NonFinite, match=r"stopped at step \d+: train/"):
        loop.train(config, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["metrics"]["train/loss"] in ("nan", "inf") and report["step"] == 15


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stage": "stage7"}, "config.stage is 'stage7': did you mean 'stage"),
        ({"stage": "comparison"}, "several systems: `python -m evqgan.benchmark comparison`"),
        ({"duration": "soon"}, "config.duration expects more than 0: a number of steps"),
        ({"mesh": {"fdsp": 2}}, "config.mesh has no key 'fdsp': did you mean 'fsdp'"),
        (
            {"eval_batch_size": 0},
            "config.eval_batch_size expects a whole number from 1 or None, got 0",
        ),
        (
            {"evals": {"reconstructoin": {}}},
            "config.evals names 'reconstructoin', no module with Evaluator",
        ),
        (
            {"dataset": {"name": "generated", "flipp": True}},
            "config.dataset has no key 'flipp': did you mean 'flip'",
        ),
        ({"dataset": {"folder": "/nowhere/at/all"}}, "/nowhere/at/all"),
    ],
)
def test_wrong_configs_are_named_before_anything_is_written(changes, message, tmp_path):
    config = config_of(1)
    for key, value in changes.items():
        config[key] = ConfigDict(value) if isinstance(value, dict) else value
    with pytest.raises(InputError) as error:
        loop.train(config, tmp_path / "run")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_misspelt_model_keys_are_named(tmp_path):
    config = config_of(1)
    config.tokenizer.encoder.widht = 3
    with pytest.raises(
        InputError, match="config.tokenizer.encoder has no key 'widht': did you mean 'width'"
    ):
        loop.train(config, tmp_path / "run")
    config = config_of(2)
    config.generator.windows = 3
    with pytest.raises(
        InputError, match=r"config.generator has no key 'windows': did you mean 'window'"
    ):
        loop.train(config, tmp_path / "run")


def test_a_generator_without_a_tokenizer_says_how_to_get_one(tmp_path):
    config = config_of(2)
    config.tokenizer = ConfigDict({"weights": str(tmp_path / "none"), "model": {}})
    with pytest.raises(InputError, match="is no tokenizer workdir .*: train one first"):
        loop.train(config, tmp_path / "run")
    config.tokenizer.weights = "drawingz"
    with pytest.raises(InputError, match="did you mean the model 'drawings'. Or train one first"):
        loop.train(config, tmp_path / "run")


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write .*file"):
        loop.train(config_of(1), tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    "stage, more, gone",
    [
        (1, {}, "psnr"),
        pytest.param(
            2,
            {"distribution": {"features": "pixels", "samples": 8}},
            "generation",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_numbers_that_nobody_gives_are_said_before_anything_is_written(
    stage, more, gone, tmp_path, capsys
):
    config = config_of(stage, duration="1")
    config.evals.update(more)
    for key, value in (("best", f"val/{gone}x"), ("alarm", {f"val/{gone}x": 0.5})):
        wrong = config.copy_and_resolve_references()
        wrong[key] = value
        with pytest.raises(InputError, match=f"config.{key}: no evaluator .* gives 'val/{gone}x'"):
            loop.train(wrong, tmp_path / "wrong")
        assert not list((tmp_path / "wrong").glob("*"))
    setup = prepare(config, tmp_path / "prepared")
    given = [f"val/{x}" for one in setup.evaluators.values() for x in one.names()]
    loop.train(config, tmp_path / "run")
    found = {name for line in metrics_of(tmp_path / "run") for name in line if "val/" in name}
    assert len(found) > 4
    unmatched = {x for x in found if not any(fnmatch.fnmatchcase(x, name) for name in given)}
    assert not unmatched and len(given) <= len(found)


class Given:
    """Stands in for an evaluator: gives some numbers, then fails."""

    def __init__(self, *numbers, error=None):
        self.numbers, self.error = numbers, error

    def run(self, _):
        yield from self.numbers
        if self.error:
            raise self.error

    def card(self):
        produced = Produced("reconstructions", 3, (8, 8))
        return Measured("reconstruction", produced)


def test_an_evaluator_that_fails_leaves_the_numbers_of_the_others(capsys):
    evals = {
        "first": Given(("mse", 1.0), error=InputError("no image decodes")),
        "second": Given(("psnr", 20.0)),
    }
    subject = Subject(ModelCard("run", 5, "", ""), "EMA", "float32", {})
    found, shown = evaluators.run_all(evals, {}, lambda: subject)
    assert found["numbers"] == {"psnr": 20.0} and not shown
    assert found["protocols"].keys() == {"second"}  # a number that has no card does not count
    assert capsys.readouterr().out == "no numbers of first: no image decodes\n"
    with pytest.raises(ValueError, match="a defect"):
        failing = {"first": Given(("mse", 1.0), error=ValueError("a defect"))}
        evaluators.run_all(failing, {}, lambda: subject)


@pytest.mark.parametrize(
    "value, number",
    [
        (lambda: jnp.float32(0.5), 0.5),  # of JAX, which must not start when this is imported
        (lambda: jnp.bfloat16(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.zeros((), np.int32), 0),
        (3, 3),
        (float("nan"), float("nan")),
    ],
)
def test_a_number_may_be_an_array_of_one(value, number):
    value = value() if callable(value) else value
    numbers, shown = evaluators.sorted_out("mine", [("mse", value)])
    assert numbers == pytest.approx({"mse": number}, nan_ok=True) and not shown
    assert type(numbers["mse"]) is type(number)


def test_a_picture_may_be_a_jax_array():
    numbers, shown = evaluators.sorted_out("mine", [("p", jnp.ones((4, 6, 3), jnp.uint8))])
    np.testing.assert_array_equal(shown["p"], np.ones((4, 6, 3), np.uint8))
    assert not numbers


@pytest.mark.parametrize(
    "given, got",
    [
        (("mse", np.zeros(8, np.float32)), r"mse as float32 \[8\]"),
        (("mse", None), "mse as object"),
        (("picture", np.zeros((4, 6, 3), np.float32)), r"picture as float32 \[4, 6, 3\]"),
        (("picture", np.zeros((4, 6, 1), np.uint8)), r"picture as uint8 \[4, 6, 1\]"),
        ("mse", "str 'mse'"),
        (0.5, "float '0.5'"),
    ],
)
def test_what_is_neither_number_nor_picture_is_named(given, got):
    with pytest.raises(ContractError, match=f"config.evals.mine gave {got}.*, expected"):
        evaluators.sorted_out("mine", [given])


def test_what_an_evaluator_gives_against_its_contract_ends_a_run(capsys):
    subject = Subject(ModelCard("run", 5, "", ""), "EMA", "float32", {})
    with pytest.raises(ContractError, match="config.evals.mine gave mse as float64"):
        evaluators.run_all({"mine": Given(("mse", np.zeros(3)))}, {}, lambda: subject)
    without = Given(("mse", 1.0))
    without.card = dict
    with pytest.raises(ContractError, match=r"card\(\) of config.evals.mine gave dict"):
        evaluators.run_all({"mine": without}, {}, lambda: subject)
    with pytest.raises(KeyError) as raised:
        evaluators.run_all({"mine": Given(error=KeyError("lpips"))}, {}, lambda: subject)
    assert raised.value.__notes__ == ["while config.evals.mine measured"]
    without.names = lambda: "mse"
    with pytest.raises(ContractError, match=r"names\(\) of config.evals.mine .* got 'mse'"):
        evaluators.check_names({"mine": without}, {})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"card": None}, "has no method card"),
        ({"names": None, "card": None}, "has no method names"),
        ({"stage": "stage3"}, "has stage = 'stage3': did you mean 'stage"),
    ],
)
def test_an_evaluator_without_its_contract_is_named_as_a_run_starts(
    changes, message, tmp_path, monkeypatch
):
    mine = types.ModuleType("evqgan.evals.mine")
    mine.Evaluator = type("Evaluator", (reconstruction.Evaluator,), changes)
    monkeypatch.setitem(sys.modules, mine.__name__, mine)
    config = config_of(1)
    config.evals = ConfigDict({"mine": {}})
    with pytest.raises(ContractError, match=f"the Evaluator of evqgan/evals/mine.py {message}"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_evaluators_do_not_give_numbers_or_pictures_of_one_name():
    subject = Subject(ModelCard("run", 5, "", ""), "EMA", "float32", {})
    picture = np.zeros((4, 6, 3), np.uint8)
    for value in (1.0, picture):
        both = {"ours": Given(("mse", 1.0), ("p", picture)), "mine": Given(("p", value))}
        message = "config.evals.ours and config.evals.mine both give 'p': leave one of them out"
        with pytest.raises(ContractError, match=message):
            evaluators.run_all(both, {}, lambda: subject)
    for ours, mine, name in (("a@*", "a@0.5", "a@*"), ("a@0.5", "a@*", "a@0.5"), ("b", "b", "b")):
        both = {"ours": Given(), "mine": Given()}
        both["ours"].names, both["mine"].names = lambda n=ours: ["x", n], lambda n=mine: [n, "y"]
        with pytest.raises(ContractError, match=f"both give '{re.escape(name)}'"):
            evaluators.check_apart(both)
    both["mine"].names = lambda: ["y"]
    evaluators.check_apart(both)


@pytest.mark.parametrize("says, saved", [("psnr", 0), ("of_mine", 2)])
def test_an_evaluator_that_takes_the_name_of_anothers_number_is_refused(
    says, saved, tmp_path, monkeypatch
):
    """Before the run if it says so, and else by its first evaluation, whose step is saved."""

    class Mine(reconstruction.Evaluator):
        def names(self):
            return [says]

        def run(self, state):
            yield "psnr", 1.0

    mine = types.ModuleType("evqgan.evals.mine")
    mine.Evaluator = Mine
    monkeypatch.setitem(sys.modules, mine.__name__, mine)
    config = config_of(1, duration="4", eval_every="2")
    config.adversarial = None
    config.evals.mine = {}
    message = "config.evals.mine and config.evals.reconstruction both give 'psnr'"
    with pytest.raises(ContractError, match=message):
        loop.train(config.copy_and_resolve_references(), tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run") == saved
    if not saved:
        assert not list((tmp_path / "run").glob("*"))


PSNR = {2: 20.0, 4: 30.0, 6: 10.0}  # by step: the highest is the best


def test_a_failed_evaluation_loses_no_step_and_the_highest_psnr_is_kept(
    tmp_path, monkeypatch, capsys
):
    config = config_of(1, duration="6", log_every="1", eval_every="2", best="val/psnr")
    config.adversarial = None
    failing = []

    def run(self, state):
        step = int(state["step"])
        if step in failing:
            raise KeyError("lpips")
        yield "psnr", jnp.float32(PSNR[step])

    monkeypatch.setattr(reconstruction.Evaluator, "run", run)
    monkeypatch.setattr(reconstruction.Evaluator, "card", Given.card)
    loop.train(config.copy_and_resolve_references(), tmp_path / "straight")
    kept = checkpoint.Checkpoints(tmp_path / "straight")
    how = cards.measurements(cards.of_step(tmp_path / "straight", 4))["val/psnr"]
    assert kept.kept.scores == {4: (-30.0, "val/psnr", how), 6: (-10.0, "val/psnr", how)}
    kept.close()

    failing += [2, 6]
    for step in failing:
        with pytest.raises(KeyError, match="lpips"):
            loop.train(config.copy_and_resolve_references(), tmp_path / "failing")
        assert checkpoint.latest(tmp_path / "failing") == step
        said = capsys.readouterr().out
        assert f"the evaluation of step {step} failed; the step itself is saved" in said
    kept = checkpoint.Checkpoints(tmp_path / "failing")
    assert kept.kept.scores == {4: (-30.0, "val/psnr", how), 6: None}
    kept.close()
    missing = "/failing/training has no evaluation of step 6, the last: --mode=evaluate --workdir="
    states = []
    for name in ("straight", "failing"):
        loop.train(config.copy_and_resolve_references(), tmp_path / name)  # the same command again
        states.append(state_of(config, tmp_path / name))
        assert (missing in capsys.readouterr().out) == (name == "failing")
    jax.tree.map(np.testing.assert_array_equal, *states)
    straight, failed = (metrics_of(tmp_path / name) for name in ("straight", "failing"))
    left_out = [x for x in straight if not ("val/psnr" in x and x["step"] in failing)]
    assert left_out == failed != straight


def test_numbers_that_are_measured_otherwise_are_not_compared(tmp_path, monkeypatch, capsys):
    """A finished run goes on with another key of an evaluator: best, alarm and curve begin anew."""
    given = {2: 30.0, 4: 20.0, 6: 5.0, 8: 4.0, 10: 1.0}  # all of the later ones are worse

    def run(self, state):
        yield "psnr", given[int(state["step"])]

    def card(self):
        return Measured("reconstruction", Produced("reconstructions", self.batches.size, (8, 8)))

    monkeypatch.setattr(reconstruction.Evaluator, "run", run)
    monkeypatch.setattr(reconstruction.Evaluator, "card", card)
    config = config_of(1, duration="4", log_every="2", eval_every="2", best="val/psnr", keep=1)
    config.adversarial = None
    with config.unlocked():
        config.alarm, config.eval_batch_size = ConfigDict({"val/psnr": 0.5}), 8
    loop.train(config.copy_and_resolve_references(), tmp_path)
    assert checkpoint.steps_in(tmp_path) == [2, 4]
    assert "otherwise" not in capsys.readouterr().out
    config.update({"duration": "10", "eval_batch_size": 4})
    loop.train(config, tmp_path)
    said = capsys.readouterr().out
    assert said.count("config.eval_batch_size: 8 -> 4: numbers that this changes are not") == 1
    line = "measured otherwise than at step 4, and not compared with that,"
    assert re.findall(f"{line}.*", said) == [
        f"{line} for the best or an alarm: val/psnr (produced.count: 8 -> 4)"
    ]
    assert re.findall("ALARM.*", said) == ["ALARM at step 10: val/psnr fell to 1, it was 5"]
    assert checkpoint.steps_in(tmp_path) == [2, 6, 10]
    (drawn,) = curves.read([str(tmp_path)])
    assert drawn.breaks == {"val/psnr": [6]} and [*drawn.values["val/psnr"]] == [2, 4, 6, 8, 10]


def test_the_end_of_a_run_says_that_many_steps_were_skipped(tmp_path, capsys):
    config = config_of(1, duration="4", log_every="1", eval_every="4")
    config.adversarial = None
    config.evals = ConfigDict({})
    config.update({"best": "", "alarm": {}})
    config.optimizer.update({"learning_rate": 1e30, "warmup": "0 steps", "clip": 0.0})
    loop.train(config, tmp_path)
    assert "WARNING 3 of 4 steps were skipped" in capsys.readouterr().out.splitlines()[-1]
    assert loop.many_skipped(4, 4).startswith("every step was skipped")
    assert loop.many_skipped(0, 4) == loop.many_skipped(9, 1000) == ""


def test_a_run_that_has_taken_more_steps_than_it_has_now_says_so():
    """Images were removed, and its duration is in epochs."""
    config = ConfigDict({"duration": "2 epochs"})
    setup = types.SimpleNamespace(config=config, length=RunLength(17, 2, 17), evaluators={})
    assert loop.nothing_left(setup, 17) == ""
    assert loop.nothing_left(setup, 18).startswith(
        "config.duration = '2 epochs' of the 17 images there are now is 17 steps, and 18 are taken"
    )
