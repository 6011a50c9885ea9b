"""A signal before a run takes steps: a line, the folder let go, the exit code of the signal."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_train import config_of, start

from evqgan.core import files, interrupts

ROOT = pathlib.Path(__file__).parent.parent
LINE = "stopped by SIGTERM; the same command goes on from what is saved"


def script(folder, body, patience=60.0):
    """A process that owns `folder` and does `body`."""
    code = f"""
import hashlib, sys, time
from evqgan.core import files, interrupts
interrupts.PATIENCE = {patience}
with interrupts.in_order(), files.owned({str(folder)!r}):
    print("ready", flush=True)
    {body}
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    "body, patience",
    [
        ("time.sleep(100)", 60.0),
        # As XLA does, this lets the process do nothing else in its main thread.
        ("hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)", 0.1),
    ],
)
def test_a_process_that_is_stopped_says_so_and_lets_its_folder_go(tmp_path, body, patience):
    process = script(tmp_path / "run", body, patience)
    assert (tmp_path / "run" / ".owner").is_file()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and output == f"{LINE}\n"
    assert not (tmp_path / "run").exists()


def test_training_that_is_stopped_before_its_first_step_leaves_no_lock(tmp_path):
    process = start(config_of(2), tmp_path / "run")
    for line in process.stdout:
        if line.startswith("reading "):
            break
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and output.splitlines()[-1] == LINE
    assert "Traceback" not in output
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name in (".lock", ".owner")]


def test_the_ends_of_the_body_are_as_ever():
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.in_order():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before and not files._held
    with pytest.raises(KeyboardInterrupt), interrupts.in_order():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    with pytest.raises(ValueError, match="a defect"), interrupts.in_order():
        raise ValueError("a defect")
    found = []

    def elsewhere():
        with interrupts.in_order():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]


def test_one_line_tells_of_a_signal_in_both_of_two(capsys):
    with pytest.raises(SystemExit) as caught, interrupts.in_order(), interrupts.in_order():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert caught.value.code == 143 and capsys.readouterr().out == f"{LINE}\n"
