"""A signal before a run takes steps: a line, the folder let go, the exit code of the signal."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from evqgan.core import ending, signals

ROOT = pathlib.Path(__file__).parent.parent
AGAIN = "stopped by SIGTERM; give the same command again"
NOTHING = "stopped by SIGTERM; nothing is saved yet: the same command begins anew"

pytestmark = pytest.mark.usefixtures("foreground")


def script(folder, body, patience=60.0):
    """A process that owns `folder` and does `body`."""
    code = f"""
import hashlib, sys, time
from evqgan.core import cli, files, signals
signals.PATIENCE = signals.CLEARING = {patience}

def run(argv):
    with files.owned({str(folder)!r}):
        print("ready", flush=True)
        {body}

sys.exit(signals.leave(cli.main([], run, str)))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, text=True, **pipes)
    # Not by readline, which would take from `communicate` what has come by then.
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
        line += byte
    assert line == b"ready\n"
    return process


@pytest.mark.parametrize(
    "body, patience",
    [
        ("time.sleep(100)", 60.0),
        # As XLA does, this lets the process do nothing else in its main thread.
        ("hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)", 0.1),
        # Python ignores what is raised in a finalizer.
        ("type('A', (), {'__del__': lambda self: time.sleep(100)})(); time.sleep(100)", 0.1),
        # A thread that Python's own end would wait for, as for XLA's.
        (
            "import threading as t; t.Thread(target=time.sleep, args=(99,)).start(); time.sleep(9)",
            60.0,
        ),
    ],
)
def test_a_process_that_is_stopped_says_so_and_lets_its_folder_go(tmp_path, body, patience):
    process = script(tmp_path / "run", body, patience)
    assert (tmp_path / "run" / ".owner").is_file()
    time.sleep(0.5)  # until it is in the body
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and output == f"{AGAIN}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("program", ["main", "benchmark.__main__", "convert.__main__"])
def test_a_signal_while_modules_are_imported_is_a_line(program):
    """The finder sends Ctrl-C to the process where a traceback would show the import."""
    code = f"""
import os, runpy, signal, sys

class Finder:
    def find_spec(name, *_):
        if name == {"absl" if program == "main" else "jax"!r}:
            os.kill(os.getpid(), signal.SIGINT)
            os.abort()  # as an extension does

sys.meta_path.insert(0, Finder)
sys.argv[1:] = ["device"]
runpy.run_module("evqgan.{program}", run_name="__main__", alter_sys=True)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    line = f"{AGAIN.replace('SIGTERM', 'SIGINT')}\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", line)


def test_training_that_is_stopped_before_its_first_step_leaves_no_lock(tmp_path):
    run = tmp_path / "run"
    given = ["--config=configs/imagenet_stage1.py:tiny", f"--workdir={run}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    process = subprocess.Popen([sys.executable, "-m", "evqgan.main", *given], **pipes)
    for line in process.stdout:
        if line.startswith("reading "):
            break
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and output.splitlines()[-1] == NOTHING
    assert "Traceback" not in output
    assert not [path for path in run.rglob("*") if path.name in (".lock", ".owner")]


def test_the_ends_of_the_body_are_as_ever():
    before = signal.getsignal(signal.SIGTERM)
    with signals.ending_in_order():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before and not ending._removals
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt) as caught, signals.ending_in_order():
            os.kill(os.getpid(), number)
            time.sleep(10)
        assert caught.value.number == number
    with pytest.raises(ValueError, match="a defect"), signals.ending_in_order():
        raise ValueError("a defect")
    found = []

    def elsewhere():
        with signals.ending_in_order():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]


def test_what_is_saved_is_said_and_forgotten_by_the_next_command(capsys):
    for noted, said in (
        ([], "give the same command again"),
        ([""], "nothing is saved yet: the same command begins anew"),
        (["", "step 3 in w"], "the same command goes on from step 3 in w"),
        (["step 3 in w", ""], "the same command goes on from step 3 in w"),
    ):
        with signals.ending_in_order():
            for what in noted:
                signals.note_saved(what)
            for _ in range(2):  # the main thread and the watching one: one line
                signals.print_stopped(signal.SIGTERM)
        assert capsys.readouterr().err == f"stopped by SIGTERM; {said}\n"


def test_the_line_of_a_part_names_the_whole(capsys):
    def said(*noted):
        with signals.ending_in_order():
            signals.note_work("table7", "python -m evqgan.benchmark table7")
            for note, what in noted:
                note(what)
            signals.print_stopped(signal.SIGTERM)
        return capsys.readouterr().err.removeprefix("stopped by SIGTERM")

    first = signals.note_done, "1 of 3 trainings in w"
    go_on = "; go on: python -m evqgan.benchmark table7\n"
    inner = signals.note_saved, "step 5 in w/generator"
    assert said(first, inner) == f" in table7; kept: {first[1]}, and {inner[1]}{go_on}"
    last = signals.note_done, "2 of 3 trainings in w"
    assert said(first, inner, last) == f" in table7; kept: {last[1]}{go_on}"
    assert said() == "; give the same command again\n"  # nothing of it is done in parts


def test_a_signal_that_waits_is_answered_at_once_and_a_second_one_ends(tmp_path):
    """Also while the main thread is busy outside of Python, as in XLA."""
    body = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    process = script(tmp_path / "run", f"with signals.noted(lambda: 'step 3'): {body}")
    time.sleep(0.5)  # until it is in the body
    process.send_signal(signal.SIGTERM)
    waits = "stopping after step 3, which is then saved; a second signal ends at once"
    assert process.stdout.readline() == f"SIGTERM: {waits}\n"
    time.sleep(1.2 * signals.AGAIN)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and output == f"{AGAIN.replace('SIGTERM', 'SIGINT')}\n"
    assert not (tmp_path / "run").exists()


def test_a_handler_within_is_asked_first_and_is_not_waited_for():
    """As in training, which notes the signal and saves: that may take longer than PATIENCE."""
    came = []
    with signals.ending_in_order():
        with signals.handled(came.append):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            assert signal.set_wakeup_fd(-1) == -1  # nobody else hears of it
        assert came == [signal.SIGTERM]


def test_a_signal_that_was_lost_on_its_way_is_raised_where_one_would_wait():
    """As in XLA's compiler, whose callbacks drop what Python raises."""
    with signals.ending_in_order():
        with contextlib.suppress(signals.Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        with pytest.raises(signals.Interrupted) as caught, signals.noted(lambda: "step 1"):
            pass
        assert caught.value.number == signal.SIGTERM
    with signals.noted(lambda: "step 1") as came:  # a later call in this process
        assert came() is None


def test_a_signal_while_jax_compiles_ends_at_once(tmp_path):
    """An exception that crosses XLA is lost, or aborts the process."""
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    file = os.path.join("site-packages", "jax", "_src", "compiler.py")
    body = f"exec(compile({code!r}, {file!r}, 'exec'), {{}})"
    process = script(tmp_path / "run", f"try: {body}\n        finally: print('unwound')")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and output == f"{AGAIN}\n"
    assert not (tmp_path / "run").exists()
