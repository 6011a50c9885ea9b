"""Two processes, as Slurm starts them, train as one.

A lost process, and workdirs that are not shared, end all. The children are this file in processes
of their own.
"""

import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_stage2
from test_train import metrics_of, state_of

from evqgan import main
from evqgan.core import checkpoint, cli, cluster, mesh, slurm, versions
from evqgan.core.errors import InputError
from evqgan.data import generated, pipeline
from evqgan.evals import generation
from evqgan.training import loop, reporting, stopping

TESTS = pathlib.Path(__file__).parent
STEPS, SAVED = 6, 2
AS_TEXT = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
# Of the devices of two processes with two each.
ORDERS = {"in turn": [0, 2, 1, 3], "together": [0, 1, 2, 3]}
MESHES = (
    {"data": 4},
    {"data": 2, "tensor": 2},
    {"data": 1, "tensor": 4},
    {"data": 1, "fsdp": 2, "tensor": 2},
)


def config_of(**changes):
    """A small generator that is evaluated at its end only."""
    config = test_stage2.config_of()
    config.generator.layers = 1
    config.loss.targets = 1
    config.update({"batch_size": 8, "log_every": "1 step", "checkpoint_every": f"{SAVED} steps"})
    config.update({"duration": f"{STEPS} steps", "eval_every": f"{STEPS} steps", **changes})
    return config


def run(config, workdir):
    """A child: the command line on a config file."""
    return main.main(["main", f"--config={config}", f"--workdir={workdir}"])


def run_second(config, workdir):
    """A child: the same, but what the first process writes must not be read."""

    def highest(*_):
        raise RuntimeError("metrics.jsonl may just be written")

    reporting.highest = highest
    return run(config, workdir)


def run_until_killed(config, workdir):
    """A child: the same, but it is killed when the second checkpoint is due, and the first there.

    A checkpoint is there when all processes have written theirs, in the background.
    """
    save, first = checkpoint.Checkpoints.save, pathlib.Path(workdir, "checkpoints", str(SAVED))

    def save_or_die(self, step, *args):
        if step > SAVED:
            while not first.is_dir():
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return save(self, step, *args)

    checkpoint.Checkpoints.save = save_or_die
    return run_second(config, workdir)


def run_until_stuck(config, workdir):
    """A child: the same, but no data come for step 4."""
    take = pipeline.Batches.__next__
    taken = []

    def take_or_wait(self):
        taken.append(1)
        while len(taken) > 3:
            time.sleep(1)
        return take(self)

    pipeline.Batches.__next__ = take_or_wait
    return run_second(config, workdir)


def run_with_other_libraries(config, workdir):
    """A child: the same, with another version of a library."""
    versions.LIBRARIES = ("jax", "pytest")
    return run(config, workdir)


def run_otherwise(config, workdir):
    """A child: another command than the first process'."""
    return main.main(["main", f"--config={config}", f"--workdir={workdir}", "--config.seed=7"])


def run_misspelt(config, workdir):
    """A child: a command line with a wrong key."""
    return main.main(["main", f"--config={config}", f"--workdir={workdir}", "--config.sede=7"])


def run_apart(config, workdir):
    """A child: batches over two processes, and a run in a workdir that only this one has."""
    check, cluster.SEEING = cluster.check_shared, 1

    def check_after_batches(folder):
        for sizes in MESHES:
            for order in ORDERS.values():
                check_batch(mesh.make(**sizes, devices=[jax.devices()[i] for i in order]))
        print("batches are whole", flush=True)
        check(folder)

    cluster.check_shared = check_after_batches
    return run(config, workdir)


def check_batch(devices):
    """Asserts that the rows which the processes read make up the batch."""
    whole = {"ids": np.arange(24, dtype=np.uint16).reshape(8, 3), "valid": np.arange(8) % 3 == 0}
    rows = mesh.rows(devices, 8)
    placed = mesh.put({name: x[rows] for name, x in whole.items()}, devices, 8)
    for name, x in placed.items():
        assert x.shape == whole[name].shape and x.dtype == whole[name].dtype
        everywhere = jax.jit(lambda x: x, out_shardings=mesh.replicated(devices))(x)
        np.testing.assert_array_equal(everywhere.addressable_data(0), whole[name])
    if len(rows) < 8:
        with pytest.raises(ValueError, match="rows of a batch of|cannot be split"):
            # These are not the whole batch.
            mesh.put({name: x[rows] for name, x in whole.items()}, devices)


def write(config, place):
    """Write a config as the file config.py of a folder."""
    (place / "config.py").write_text(
        "import json\nfrom ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict(json.loads({config.to_json()!r}))\n"
    )


def pair(config, place, functions, folders=("run", "run"), devices=1):
    """Two processes, as Slurm names them to JAX -> them.

    Each runs its function on the config in its own folder.
    """
    write(config, place)
    code = "import sys, test_cluster as t\nsys.exit(getattr(t, sys.argv[1])(*sys.argv[2:]))"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags, started = os.environ.get("XLA_FLAGS", ""), []
    for i, (function, folder) in enumerate(zip(functions, folders, strict=True)):
        slurm = {
            "JOB_ID": 1,
            "STEP_NODELIST": "127.0.0.1",
            "NTASKS": 2,
            "PROCID": i,
            "LOCALID": i,
            "STEP_NUM_NODES": 1,
        }
        environment = {
            **os.environ,
            **{f"SLURM_{name}": str(value) for name, value in slurm.items()},
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_COORDINATOR_BIND_ADDRESS": address,
            "JAX_PLATFORMS": "cpu",
            "EVQGAN_DISTRIBUTED": "1",
            "PYTHONPATH": str(TESTS.parent),
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        }
        workdir = folder if "://" in folder else str(place / folder)
        arguments = [function.__name__, str(place / "config.py"), workdir]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *arguments], cwd=TESTS, env=environment, **AS_TEXT
            )
        )
    return started


def ends(started, timeout=900):
    """-> exit codes, outputs."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [process.returncode for process in started], outputs


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run on the axis data whose second process is killed in step 4.

    Return its place, exit codes, outputs, and the seconds that the first process went on.
    """
    place = tmp_path_factory.mktemp("killed")
    started = pair(config_of(evals={}, mesh={"data": 2}), place, (run, run_until_killed))
    started[1].wait(900)
    began = time.monotonic()
    codes, outputs = ends(started, 120)
    return place, codes, outputs, time.monotonic() - began


@pytest.fixture(scope="module")
def resumed(killed):
    """The same run, started again on the axis tensor -> its workdir, exit codes, outputs."""
    place, _, outputs, _ = killed
    if not (place / "run" / "checkpoints" / str(SAVED)).is_dir():
        raise AssertionError("\n".join(outputs))
    codes, outputs = ends(pair(config_of(mesh={"tensor": 2}), place, (run, run_second)))
    return place / "run", codes, outputs


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The workdir of the same run in one process that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    loop.train(config_of(), workdir)
    return workdir


def test_a_process_that_lost_the_other_ends_within_a_minute_with_a_line(killed):
    _, codes, (first, second), seconds = killed
    assert codes[1] == -signal.SIGKILL, second
    assert codes[0] != 0 and seconds < 60, first
    assert "step 4/6" in first and re.search("another (process|task)", first), first
    assert "Traceback" not in first


@pytest.mark.slow
def test_a_process_that_is_stuck_ends_all_within_a_minute_and_is_named(tmp_path):
    config = config_of(evals={}, mesh={"data": 2}, stall=5.0)
    started = pair(config, tmp_path, (run, run_until_stuck))
    lines = []
    for line in started[0].stdout:
        lines.append(line)
        if line.startswith("step 3/6"):
            break
    began = time.monotonic()
    codes, (first, second) = ends(started, 120)
    assert time.monotonic() - began < 60 and 0 not in codes, first + second
    said = r"process 1 \(on \S+\) is waiting for data after step 3"
    # By either: the other may find first that the one is gone.
    both = first + second
    assert re.search(f"stuck: no step has ended for .*{said}", both), "".join(lines) + both
    assert "take_or_wait" in second, second  # where it is stuck, in its stacks


def test_two_processes_train_a_generator_as_one(killed, resumed, alone):
    workdir, codes, outputs = resumed
    assert codes == [0, 0], outputs
    assert f"steps {SAVED} to {STEPS} on 2 x" in outputs[0] and "step " not in outputs[1].replace(
        "step=", ""
    )
    ours, theirs = metrics_of(workdir), metrics_of(alone)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            # Which code is likeliest hangs on rounding.
            near = {"abs": 0.05} if "accuracy" in name else {"rel": 1e-4}
            assert one[name] == pytest.approx(other[name], **near), name
    assert any("val/cross_entropy" in line for line in ours)
    rows = json.loads((workdir / "checkpoints" / str(STEPS) / "manifest" / "metadata").read_text())
    # What both processes hold, whole or in part.
    split = [row[3] for row in rows.values() if row[1] is None]
    assert {len(parts) for parts in split} == {1, 2} and all(
        all(parts.values()) for parts in split
    ), split


def test_weights_of_a_tensor_axis_over_processes_are_those_of_one(resumed, alone):
    config = config_of()
    ours, theirs = state_of(config, resumed[0]), state_of(config, alone)
    rate = config.optimizer.learning_rate
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, atol=STEPS * rate)
        # Adam takes a gradient of nothing but rounding for one.
        assert np.mean(np.abs(x - y) > 1e-4) < 0.01


def test_workdirs_that_processes_do_not_share_end_both_in_one_line(tmp_path):
    config = config_of(mesh={"data": 2, "tensor": 2})
    codes, outputs = ends(pair(config, tmp_path, (run_apart, run_apart), ("one", "two"), devices=2))
    assert codes == [2, 2], outputs
    for output in outputs:
        assert "batches are whole" in output
        lines = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in output and "compiled in" not in output, output
        assert re.search(
            r"process 1 \(on .+\) cannot see the files of process 0 .*share, by the same path$",
            lines[0],
        )
    assert not list(tmp_path.glob("*/*"))


def test_processes_with_different_configs_all_end_in_a_line_that_names_the_other_one(tmp_path):
    codes, outputs = ends(pair(config_of(), tmp_path, (run, run_otherwise)), 120)
    assert codes == [2, 2], outputs
    for output in outputs:
        said = (
            r"error: process 1 \(on .+\) has another config than process 0 \(on .+\): "
            "give all processes of a run"
        )
        assert re.search(said, output) and "Traceback" not in output, output
    assert not (tmp_path / "run").exists()


def test_processes_with_different_libraries_all_end_in_a_line_that_names_the_other_one(tmp_path):
    codes, outputs = ends(pair(config_of(), tmp_path, (run, run_with_other_libraries)), 120)
    assert codes == [2, 2], outputs
    for output in outputs:
        assert re.search(r"error: process 1 \(on .+\) has another set of library versions", output)


def test_a_process_that_cannot_parse_its_command_line_ends_all_within_seconds(tmp_path):
    began = time.monotonic()
    codes, (first, second) = ends(pair(config_of(), tmp_path, (run, run_misspelt)), 120)
    assert codes == [2, 2] and time.monotonic() - began < 100, first + second
    said = [
        [line for line in text.splitlines() if line.startswith("error: ")]
        for text in (first, second)
    ]
    assert said[0] == ["error: process 1 of this run stopped: its own message says why"], first
    assert len(said[1]) == 1 and "config has no key 'sede': did you mean 'seed'?" in said[1][0], (
        second
    )
    assert "Traceback" not in first + second and not (tmp_path / "run").exists()


def test_what_most_processes_have_is_taken_for_right(monkeypatch):
    cluster.check_alike(config="of a process alone")
    sent = []
    monkeypatch.setattr(cluster, "several", lambda: True)
    monkeypatch.setattr(
        cluster.multihost_utils,
        "process_allgather",
        lambda x: sent.append(x) or [y[None] for y in x],
    )
    for code in ("b", "a", "a"):
        cluster.check_alike(config="same", code=code)
    together = [np.stack(parts) for parts in zip(*sent, strict=True)]
    monkeypatch.setattr(cluster.multihost_utils, "process_allgather", lambda _: together)
    with pytest.raises(
        InputError, match=r"process 0 \(on \S+\) has another code than process 1 \(on \S+\): "
    ):
        cluster.check_alike(config="same", code="a")


@pytest.mark.parametrize(
    "environment, address",
    [
        ({}, None),
        ({"SLURM_JOB_ID": "4097", "SLURM_STEP_NUM_NODES": "2"}, None),
        ({"SLURM_JOB_ID": "4097", "SLURM_STEP_NUM_NODES": "1"}, "127.0.0.1:61441"),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1234"}, "localhost:1234"),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
                "SLURM_JOB_ID": "1",
                "SLURM_STEP_NUM_NODES": "1",
            },
            None,
        ),
    ],
)
def test_the_coordinator_of_one_host_listens_on_loopback_alone(environment, address):
    found = cluster.loopback(environment)
    assert found == (
        {"coordinator_address": address, "coordinator_bind_address": address} if address else {}
    )


EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}


@pytest.mark.parametrize(
    "tasks, changes, ids",
    [
        ("1", EIGHT, []),
        ("2,1", {**EIGHT, "SLURM_NODEID": "1", "SLURM_LOCALID": "0"}, []),
        ("8(x2)", EIGHT, [1]),
        ("1,2(x3)", {**EIGHT, "SLURM_NODEID": "3"}, [4, 5, 6, 7]),
        ("2", {"SLURM_GPUS_ON_NODE": "4"}, [2, 3]),
        # Slurm shows each task its own.
        ("2", {"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "2"}, []),
        ("2", {**EIGHT, "SLURM_GPUS_PER_TASK": "8"}, []),
        ("2", {"CUDA_VISIBLE_DEVICES": "0"}, []),
        ("2", {}, None),
        ("2", {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ("", EIGHT, None),
        ("1", {**EIGHT, "JAX_LOCAL_DEVICE_IDS": "3"}, None),
    ],
)
def test_tasks_of_a_node_share_its_gpus(tasks, changes, ids):
    """By JAX alone a task takes one, though it may be the only task of its node."""
    environment = {"SLURM_NODEID": "0", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": tasks}
    expected = {} if ids is None else {"local_device_ids": ids}
    assert slurm.gpus(environment | changes) == expected


def test_tasks_that_cannot_share_gpus_alike_are_refused():
    environment = {"SLURM_NODEID": "0", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "3"}
    with pytest.raises(InputError, match="3 tasks cannot share the 8 GPUs of their node alike"):
        slurm.gpus(environment | EIGHT)
    two = {"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1"}  # all of the node
    with pytest.raises(InputError, match="3 tasks cannot share the 2 GPUs of their node alike"):
        slurm.gpus(environment | two)


ONE_TASK = """
import jax
from evqgan.core import cluster
cluster.start()
print(jax.config.read("jax_cuda_visible_devices"), jax.process_count())
"""


@pytest.mark.parametrize("tasks, ids", [("1", "all"), ("", "0")])
def test_the_only_task_of_a_node_has_all_its_gpus(tasks, ids):
    """Where Slurm says how many tasks a node has; otherwise it is as JAX has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    known = {"JOB_ID": "1", "STEP_NODELIST": "n1", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    known |= {"NODEID": "0", "STEP_TASKS_PER_NODE": tasks}
    environment = {**os.environ, **{f"SLURM_{name}": x for name, x in known.items()}}
    environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ONE_TASK]
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, **AS_TEXT, timeout=120)
    assert done.stdout.splitlines()[-1] == f"{ids} 1", done.stdout


GIVEN = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


def test_processes_are_named_by_variables():
    assert cluster.named({}) == {} == cluster.named({"JAX_COORDINATOR_ADDRESS": "a:1"})
    found = cluster.named(GIVEN)
    assert found == {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"JAX_NUM_PROCESSES": ""}, "without JAX_NUM_PROCESSES: give each process JAX_COORD"),
        ({"JAX_COORDINATOR_ADDRESS": "", "JAX_PROCESS_ID": ""}, "without JAX_COORDINATOR_ADDRESS "),
        ({"JAX_COORDINATOR_ADDRESS": "a"}, "JAX_COORDINATOR_ADDRESS=a: expected HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: expected a whole number"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2: they are counted from 0, and the last of "),
    ],
)
def test_variables_that_name_no_process_are_told(change, message):
    with pytest.raises(InputError, match=message):
        cluster.named(GIVEN | change)


def by_variables(config, place, **changes):
    """The command line in two processes, which variables alone name -> exit codes, outputs."""
    write(config, place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    plain = {name: x for name, x in os.environ.items() if not name.startswith("SLURM_")}
    given = {"EVQGAN_DISTRIBUTED": "1", "JAX_COORDINATOR_ADDRESS": address, **changes}
    command = [sys.executable, "-m", "evqgan.main"]
    command += [f"--config={place / 'config.py'}", f"--workdir={place / 'run'}"]
    return ends(
        [
            subprocess.Popen(
                command,
                cwd=TESTS.parent,
                env={**plain, "JAX_PLATFORMS": "cpu", **given, "JAX_PROCESS_ID": str(i)},
                **AS_TEXT,
            )
            for i in range(2)
        ],
        300,
    )


@pytest.mark.slow
def test_two_processes_that_variables_name_train_as_one(tmp_path):
    config = config_of(evals={}, mesh={"data": 2}, duration="1 step", eval_every="1 step")
    codes, outputs = by_variables(config, tmp_path, JAX_NUM_PROCESSES="2")
    assert codes == [0, 0], outputs
    assert "on 2" in outputs[0] and checkpoint.latest(tmp_path / "run") == 1


def test_processes_that_nothing_names_end_in_a_line_that_names_the_variables(tmp_path):
    codes, outputs = by_variables(config_of(), tmp_path)
    assert codes == [2, 2]
    for output in outputs:
        assert output.startswith("error: JAX cannot start with ") and output.count("\n") == 1
        assert "without JAX_NUM_PROCESSES: give each process JAX_COORD" in output
    codes, outputs = by_variables(config_of(), tmp_path, JAX_COORDINATOR_ADDRESS="")
    assert codes == [2, 2] and not (tmp_path / "run").exists()


def test_a_process_alone_shares_its_workdir(tmp_path):
    cluster.check_shared(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SEEING", 0)
    assert not cluster.appears(tmp_path / "none" / "file")
    (tmp_path / "file").touch()
    assert cluster.appears(tmp_path / "file")


SAID = (  # by Gloo, and by the coordination service of jaxlib 0.10, NCCL 2.27
    "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] "
    "Read error [127.0.0.1]:9449: Connection reset by peer",
    "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] "
    "Connection closed by peer [127.0.0.1]:8865",
    "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\n"
    "The tasks have crashed.",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or "
    "there was a network error.",
)
OTHERS = (
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte"),
    TypeError("a task of barrier"),
)


def test_what_is_said_of_a_lost_process_is_known(monkeypatch, capsys):
    assert not cluster.several() and not any(cluster.lost(ValueError(text)) for text in SAID)
    with pytest.raises(TypeError):  # a defect, of a process alone
        cli.report(OTHERS[1], debug=False)
    monkeypatch.setattr(cluster, "several", lambda: True)
    assert not any(cluster.lost(error) for error in OTHERS)
    for text in SAID:
        assert cli.report(InputError(f"cannot write checkpoints: {text}"), debug=False) == 1
        said = capsys.readouterr().err
        assert (
            said.startswith("error: another process of this run has ended")
            and said.count("\n") == 1
        )
    # A defect, of one process of several: the others are not waited for.
    assert cli.report(OTHERS[1], debug=False) == 1
    assert "TypeError: a task of barrier" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_of_several_that_a_signal_has_stopped_ends_with_the_code_of_that_signal(
    number, monkeypatch
):
    def train(argv):
        raise stopping.Stopped(7, number)

    codes = []
    monkeypatch.setattr(cluster, "leave", codes.append)
    with pytest.raises(SystemExit):
        cli.main([], train, str)
    assert codes == [128 + number]


def test_what_does_not_fit_a_device_is_a_line(capsys):
    with pytest.raises(RuntimeError) as found:
        jax.block_until_ready(jax.jit(lambda x: jnp.zeros((1 << 46,), jnp.uint8) + x)(np.uint8(1)))
    assert cli.report(found.value, debug=False) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: a device has not enough memory") and said.count("\n") == 1
    assert "config.optimizer.accumulate" in said and "--compile_only" in said


def raising(config, workdir, evaluate):
    """The command line, with another function for the run of an evaluator of predictions."""
    generation.Evaluator.run = evaluate(generation.Evaluator.run)
    return run(config, workdir)


def run_whose_evaluation_fails(config, workdir):
    """A child: its evaluator raises once it has done all that the processes compute together."""

    def evaluate(usual):
        def failing(self, state):
            yield from usual(self, state)
            raise RuntimeError("no number")

        return failing

    return raising(config, workdir, evaluate)


def run_that_cannot_read_held_out_images(config, workdir):
    """A child: an image to evaluate cannot be read, in the first of the batches."""
    generated.Generated.__getitem__ = unreadable(generated.Generated.__getitem__)
    return run(config, workdir)


def unreadable(usual):
    """Reading that fails while a run evaluates."""
    evaluates = reporting.Reporter.evaluate

    def read(self, index):
        if reading:
            raise InputError("cannot read a held-out image: gone")
        return usual(self, index)

    def evaluate(self, *given):
        reading.append(1)
        return evaluates(self, *given)

    reading = []
    reporting.Reporter.evaluate = evaluate
    return read


FAILING = {
    "all": (run_whose_evaluation_fails, run_whose_evaluation_fails, "no number"),
    "one": (run, run_whose_evaluation_fails, "no number"),
    "one that reads": (run, run_that_cannot_read_held_out_images, "held-out image: gone"),
}


@pytest.mark.slow
@pytest.mark.parametrize("which", FAILING)
def test_a_step_is_saved_by_all_where_its_evaluation_fails_in_some(which, tmp_path):
    first, second, why = FAILING[which]
    config = config_of(duration="1 step", eval_every="1 step", mesh={"data": 2})
    config.dataset.max_bad = 0.0
    codes, (one, other) = ends(pair(config, tmp_path, (first, second)), 300)
    assert 0 not in codes and why in other, one + other
    assert "the evaluation of step 1 failed; the step itself is saved" in one, one + other
    assert which == "all" or "process 1 of this run stopped: its own message says" in one
    assert checkpoint.steps_in(tmp_path / "run") == [1]
    if which != "one":
        return
    codes, outputs = ends(pair(config, tmp_path, (run, run_second)))
    assert codes == [0, 0] and "trained to step 1 of 1" in outputs[0], outputs


class Client:
    """What `cluster` takes of JAX's client of several processes, here threads."""

    def __init__(self, number):
        self.values, self.barrier = {}, threading.Barrier(number)

    def key_value_set(self, key, value):
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [pair for pair in self.values.items() if pair[0].startswith(f"{folder}/")]

    def wait_at_barrier(self, name, milliseconds):
        try:
            self.barrier.wait(milliseconds / 1000)
        except threading.BrokenBarrierError:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED") from None


def threads_as_processes(monkeypatch, number, work):
    """What work(index) raised in each of so many threads, each of which is a process to JAX."""
    own, raised = threading.local(), [None] * number

    def start(index):
        own.index = index
        try:
            work(index)
        except Exception as error:
            raised[index] = error

    monkeypatch.setattr(cluster, "several", lambda: True)
    monkeypatch.setattr(cluster, "_meetings", itertools.repeat(0))  # one, of all of them
    monkeypatch.setattr(cluster.distributed.global_state, "client", Client(number))
    monkeypatch.setattr(jax, "process_index", lambda: own.index)
    threads = [threading.Thread(target=start, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised


@pytest.mark.parametrize("failing", [(), (1,), (0, 2)])
def test_where_a_body_fails_in_one_process_it_fails_in_all(failing, monkeypatch):
    def work(index):
        with cluster.failing_together():
            if index in failing:
                raise KeyError(index)

    raised = threads_as_processes(monkeypatch, 3, work)
    for index, error in enumerate(raised):
        if index in failing:
            assert isinstance(error, KeyError)
        elif failing:
            assert str(error).startswith(f"process {failing[0]} of this run stopped: its own")
        else:
            assert error is None


def test_a_process_that_failed_does_not_wait_for_one_that_never_comes(monkeypatch):
    monkeypatch.setattr(cluster, "LEAVING", 0.1)
    left = threading.Event()

    def work(index):
        try:
            with cluster.failing_together():
                if index == 0:
                    raise KeyError("of mine")
                assert left.wait(30)  # in an exchange with the other one, until that has ended
        finally:
            left.set()

    raised = threads_as_processes(monkeypatch, 2, work)
    assert isinstance(raised[0], KeyError)
    assert "process 0 of this run stopped" in str(raised[1])
