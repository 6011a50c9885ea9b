"""What a command line prints where an output lacks letters, and what it leaves unprinted."""

import asyncio
import os
import pathlib
import shlex
import subprocess
import sys
import types

import pytest

from evqgan.core import cli, files, output
from evqgan.core.errors import InputError


def test_letters_that_an_output_lacks_are_escaped(tmp_path):
    given = ["--mode=sample", f"--workdir={tmp_path / 'Blätter'}"]
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "evqgan.main", *given],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=100,
    )
    assert found.returncode == 2 and found.stderr.count(b"\n") == 1
    assert rb"Bl\xe4tter is no workdir" in found.stderr


IN_CLOSED = """
import os, sys
from evqgan.core import output
output.begin()
with open(sys.argv[1], "w") as file:
    os.write(1, b"of a library"), os.write(2, b"of a library")
    print("one"), print("two", file=sys.stderr)
    file.write(f"{sys.stdin.read()}{output.fault()}")
"""


def test_where_outputs_are_closed_all_goes_nowhere_and_no_file_gets_it(tmp_path):
    run = [sys.executable, "-c", IN_CLOSED, str(tmp_path / "file")]
    closed = f"exec {shlex.join(run)} <&- >&- 2>&-"
    found = subprocess.run(["bash", "-c", closed], cwd=pathlib.Path(__file__).parent.parent)
    assert found.returncode == 0 and (tmp_path / "file").read_text() == "0"


def test_a_folder_that_is_gone_is_named_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    error = FileNotFoundError(2, "No such file or directory")
    assert cli.report(error, debug=False) == 2 and "given" not in capsys.readouterr().err
    (tmp_path / "gone").rmdir()
    assert cli.report(error, debug=False) == 2
    assert "the folder where this command was given no longer exists" in capsys.readouterr().err
    with pytest.raises(InputError, match="the folder where .* no longer exists: change to another"):
        files.tried("workdirs/quickstart")


def unraisable(error):
    return types.SimpleNamespace(exc_value=error, exc_traceback=error.__traceback__)


def raised(function):
    try:
        function()
    except RuntimeError as error:
        return unraisable(error)


def test_a_save_that_has_ended_prints_no_traceback_of_its_event_loop(monkeypatch):
    """What TensorStore does in a thread of its own, where a file could not be written."""
    shown = []
    monkeypatch.setattr(output.sys, "__unraisablehook__", shown.append)
    loop = asyncio.new_event_loop()
    loop.close()
    output._unless_of_an_ended_loop(raised(lambda: loop.call_soon_threadsafe(print)))
    assert not shown

    def fails():
        raise RuntimeError("another")

    others = [raised(fails), unraisable(RuntimeError("of no function"))]
    for other in others:
        output._unless_of_an_ended_loop(other)
    assert shown == others


OUTLIVES = """
import sys, time
from evqgan.core import output
with output.outlived():
    for n in range(4):
        print(n, flush=True)
        print("problem", n, file=sys.stderr, flush=True)
        time.sleep(0.3)
"""


def test_a_run_outlives_what_reads_its_output():
    """As `| head -1` and `| tee`, which a Ctrl-C ends first. Without it Python ends by an error."""
    run = [sys.executable, "-c", OUTLIVES]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "0\n"
        child.stdout.close()
        said = child.stderr.read()
        assert child.wait(60) == 0
    assert said.count("WARNING what read the output") == 1 and "Error" not in said
    assert said.count("problem") == 4
    both = subprocess.run(
        f"{' '.join(map(shlex.quote, run))} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        timeout=60,
    )
    assert both.returncode == 0 and both.stdout == b"0\n" and not both.stderr


def test_hooks_of_others_stay(monkeypatch):
    def own(found): ...

    monkeypatch.setattr(output.sys, "unraisablehook", own)
    output.begin()
    assert sys.unraisablehook is own
    monkeypatch.setattr(output.sys, "unraisablehook", sys.__unraisablehook__)
    output.begin()
    assert sys.unraisablehook is output._unless_of_an_ended_loop
