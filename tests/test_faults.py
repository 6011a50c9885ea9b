"""The benchmark of faults: what it does to runs, and that it sees what they end with."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import fault_runs, faults
from evqgan.benchmark.fault_runs import Case
from evqgan.core import schema


def a_process(code="import time; time.sleep(60)"):
    process = subprocess.Popen(
        [sys.executable, "-c", f"print(1, flush=True); {code}"], stdout=subprocess.PIPE
    )
    process.stdout.readline()  # it has begun
    return process


@pytest.mark.parametrize("stage", [1, 2])
def test_the_configs_are_whole(stage, tmp_path):
    case = fault_runs.made(stage, 1, tmp_path)
    schema.check(fault_runs.config_of(stage, case.place / "images"))
    assert len(list((case.place / "images").rglob("*.png"))) == fault_runs.IMAGES
    assert case.config.is_file() and fault_runs.made(stage, 1, tmp_path) == case


def test_processes_are_waited_for_and_none_is_left():
    quick, slow = a_process("raise SystemExit(3)"), a_process()
    began = time.monotonic()
    assert fault_runs.ends([quick, slow], 5.0) == [3, None]
    assert time.monotonic() - began < 30 and slow.poll() == -signal.SIGKILL
    assert faults.passed([quick, slow], 60.0)
    third = a_process()
    assert not faults.passed([third], 0.1)
    assert fault_runs.ends([third], 0.0) == [None]


@pytest.mark.parametrize("name, code", [("kill", -9), ("SIGTERM", -15), ("SIGHUP", -1)])
def test_a_signal_reaches_all_processes(name, code, tmp_path, foreground):
    started = [a_process(), a_process()]
    faults.FAULTS[name].strike(started, Case(1, 2, tmp_path), random.Random(0))
    assert fault_runs.ends(started, 30.0) == [code, code]


def test_a_full_disk_is_full_for_the_process_alone(tmp_path):
    code = (
        "import pathlib, sys; sys.stdin.readline();"
        f"pathlib.Path({str(tmp_path / 'x')!r}).write_text('a' * 999)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    faults.fill([process], Case(1, 1, tmp_path), random.Random(0))
    _, said = process.communicate("go\n", timeout=60)
    assert process.returncode == 1 and "File too large" in said
    (tmp_path / "y").write_text("a" * 999)


def test_one_process_that_is_stopped_goes_on_and_so_does_one_of_several_after_the_others(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(fault_runs, "STALL", 0.1)
    one = [a_process("raise SystemExit(0)")]
    faults.stop(one, Case(1, 1, tmp_path), random.Random(0))
    assert fault_runs.ends(one, 30.0) == [0]
    two = [a_process("import time; time.sleep(0.5)") for _ in range(2)]
    faults.stop(two, Case(1, 2, tmp_path), random.Random(0))
    assert sum(process.poll() is not None for process in two) >= 1
    assert fault_runs.ends(two, 30.0) == [0, 0]


def test_no_run_goes_on_when_the_command_is_stopped(tmp_path, monkeypatch):
    process = a_process()

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(Case, "start", lambda self, workdir, clock: [process])
    monkeypatch.setattr(faults, "passed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        faults.struck(Case(1, 1, tmp_path), "kill", tmp_path, 1.0, random.Random(0))
    assert process.poll() == -signal.SIGKILL


def test_one_of_several_is_lost(tmp_path):
    two = [a_process("import time; time.sleep(0.5)") for _ in range(2)]
    faults.lose(two, Case(1, 2, tmp_path), random.Random(0))
    assert sorted(fault_runs.ends(two, 30.0)) == [-signal.SIGKILL, 0]


def test_an_image_is_taken_away_and_brought_back(tmp_path):
    case = fault_runs.made(1, 1, tmp_path)
    before = {path: path.read_bytes() for path in (case.place / "images").rglob("*.png")}
    faults.hide([], case, random.Random(0))
    assert len(list((case.place / "images").rglob("*.png"))) == fault_runs.IMAGES - 1
    faults.bring_back(case)
    assert before == {path: path.read_bytes() for path in (case.place / "images").rglob("*.png")}
    faults.hide([], case, random.Random(1))  # and the command is ended before it is brought back
    fault_runs.made(1, 1, tmp_path)
    assert before == {path: path.read_bytes() for path in (case.place / "images").rglob("*.png")}


def workdir_of(place, checksum=7, loss=0.5):
    manifest = place / "checkpoints" / "60" / "manifest"
    manifest.mkdir(parents=True)
    (manifest / "metadata").write_text(json.dumps({"step": [[], checksum, "int32", {}]}))
    line = {"step": 60, "train/loss": loss, "perf/step_seconds": time.monotonic()}
    (place / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return place


def test_what_differs_is_told(tmp_path):
    case = Case(1, 1, tmp_path)
    workdir_of(case.straight)
    assert faults.differences(case, workdir_of(tmp_path / "a")) == []
    assert faults.differences(case, workdir_of(tmp_path / "b", checksum=8)) == ["other bits"]
    assert faults.differences(case, workdir_of(tmp_path / "c", loss=0.4)) == ["other metrics"]
    (tmp_path / "a" / ".grid.png.12.01234567.part").touch()
    assert faults.differences(case, tmp_path / "a") == ["left over: .grid.png.12.01234567.part"]
    shutil.rmtree(tmp_path / "c" / "checkpoints")
    assert faults.differences(case, tmp_path / "c") == ["other bits", "other metrics"]


def test_kills_come_ever_earlier_and_the_moments_are_those_of_the_seed():
    moments = [faults.moment_of("kill", n, 10.0, random.Random(n)) for n in range(50)]
    assert max(moments[30:]) < 2.0 < max(moments[:10]) <= 15.0
    assert moments == [faults.moment_of("kill", n, 10.0, random.Random(n)) for n in range(50)]
    assert all(2.0 <= faults.moment_of("disk", 0, 10.0, random.Random(n)) <= 9.0 for n in range(9))


@pytest.mark.parametrize(
    "flag, said",
    [
        ("--faults=flood", "expected some of kill, SIGTERM"),
        ("--stages=3", "expected 1, 2 or 1,2"),
        ("--processes=0", "expected numbers from 1 to 8"),
    ],
)
def test_wrong_flags_are_a_line(flag, said, tmp_path, capsys):
    assert benchmark.main(["faults", f"--out={tmp_path}", flag]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_runs_that_are_killed_stopped_and_hindered_end_with_the_same_bits(
    processes, tmp_path, capsys
):
    flags = [f"--out={tmp_path}", f"--processes={processes}", "--kills=3", "--times=1"]
    assert benchmark.main(["faults", *flags, f"--json={tmp_path / 'faults.json'}"]) == 0
    rows = json.loads((tmp_path / "faults.json").read_text())["rows"]
    assert len(rows) == 2 * (len(faults.FAULTS) - (processes == 1))
    assert {row["outcome"] for row in rows} == {"the same bits"}, rows
    assert all(row["longest"] < 60 for row in rows if row["fault"] in ("kill", "lost")), rows
