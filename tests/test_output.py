"""What a command line prints where an output lacks letters, and what it leaves unprinted."""

import asyncio
import os
import subprocess
import sys
import types

from evqgan.core import output


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


def test_hooks_of_others_stay(monkeypatch):
    def own(found): ...

    monkeypatch.setattr(output.sys, "unraisablehook", own)
    output.begin()
    assert sys.unraisablehook is own
    monkeypatch.setattr(output.sys, "unraisablehook", sys.__unraisablehook__)
    output.begin()
    assert sys.unraisablehook is output._unless_of_an_ended_loop
