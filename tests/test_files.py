"""Files appear whole or not at all."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from evqgan.core import ending, files, npz, space
from evqgan.core.errors import InputError
from evqgan.core.files import atomic, save_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    save_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(KeyError), atomic(tmp_path / "a.json") as file:
        file.write(b"half")
        raise KeyError
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_two_processes_of_one_number_write_one_file_at_once(tmp_path):
    with atomic(tmp_path / "a") as first:  # on two hosts: containers have the same numbers
        first.write(b"first")
        with atomic(tmp_path / "a") as second:
            second.write(b"2")
        assert (tmp_path / "a").read_bytes() == b"2"
    assert (tmp_path / "a").read_bytes() == b"first" and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_one_line_that_names_the_path(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(InputError, match=r"cannot write .*b\.npz: No space left") as caught,
        atomic(tmp_path / "b.npz"),
    ):
        raise full
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match="cannot write .*: expected a folder, but .*file is a file"
    ):
        save_json(tmp_path / "file" / "a.json", {})


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "file").touch()
    (tmp_path / "through").symlink_to(tmp_path / "file" / "inner")
    for name, told in (
        ("gone", "gone is a link to nowhere, which is not there;"),
        ("gone/inner", "gone is a link to nowhere, which is not there;"),
        ("round", "round is a link to round, and so on in a loop;"),
        ("round/inner", "round is a link to round, and so on in a loop;"),
        ("through", "through is a link to .*inner, which is not there;"),
    ):
        with pytest.raises(InputError, match=f"cannot write .*{name}: .*{told}"):
            files.tried(tmp_path / name)
        with (
            pytest.raises(InputError, match=f"cannot write .*{name}: .*{told}"),
            files.owned(tmp_path / name),
        ):
            pass
    assert sorted(os.listdir(tmp_path)) == ["file", "gone", "round", "through"]


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    owned = "from evqgan.core import files\nwith files.owned(r'{}'): pass"
    command = [sys.executable, "-c", owned.format(tmp_path / "run")]
    with files.owned(tmp_path / "run"):
        other = subprocess.run(command, capture_output=True, text=True)
        assert f"run is in use by process {os.getpid()} on " in other.stderr and other.returncode
    assert not (tmp_path / "run").exists()  # nothing was left in it
    assert subprocess.run(command).returncode == 0
    (tmp_path / "run").mkdir()
    with files.owned(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["kept"]


def test_tasks_of_slurm_that_are_not_told_of_each_other_do_not_share_a_folder(tmp_path):
    """As `srun -n 2` starts them without EVQGAN_DISTRIBUTED: each takes itself for the only one."""
    code = (
        "import sys\nfrom evqgan.core import files\n"
        f"with files.owned(r'{tmp_path / 'run'}'):\n"
        "    print('owns', flush=True)\n    sys.stdin.read()"
    )
    tasks = {"SLURM_STEP_NUM_TASKS": "2", "EVQGAN_DISTRIBUTED": ""}
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    command, environment = [sys.executable, "-c", code], {**os.environ, **tasks}
    first = subprocess.Popen(command, env={**environment, "SLURM_PROCID": "0"}, **pipes)
    try:
        assert first.stdout.readline() == "owns\n"
        second = subprocess.run(
            command, env={**environment, "SLURM_PROCID": "1"}, capture_output=True, text=True
        )
        assert second.returncode and not second.stdout
        assert f"in use by process {first.pid} on " in second.stderr
        assert (
            "set EVQGAN_DISTRIBUTED=1 to make the tasks of this Slurm step one run" in second.stderr
        )
    finally:
        first.communicate("")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{\n"a": ', "it is cut short or changed at line 2, column 6: Expecting value"),
        (b"[1]", "expected a JSON object, {...}, got '[1]'"),
        (b"\xff\xfe{", "it is no text in UTF-8"),
        (b'{"a":' * 2000, "it is "),  # nested without end, or cut short: as Python reads it
        (b"NaN", "expected a JSON object, {...}, got 'NaN'"),
    ],
)
def test_what_is_no_json_of_ours_is_one_line(tmp_path, content, reason):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        files.read_json(tmp_path / "config.json")
    line = str(caught.value)
    assert f"config.json is not the config that training writes: {reason}" in line
    assert line.endswith(f"; replace it by a copy, or move it away and {files.ANEW}")
    assert "\n" not in line


def test_json_and_npz_come_back_as_they_went(tmp_path):
    value = {"psnr": 25.5, "names": ["null", "ä"], "none": None}
    save_json(tmp_path / "new" / "e.json", value)
    assert json.loads((tmp_path / "new" / "e.json").read_text(encoding="utf-8")) == value
    images = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    npz.save(tmp_path / "s.npz", images=images, labels=np.array([3], np.int32))
    with np.load(tmp_path / "s.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["images"], images)
        assert stored["images"].dtype == np.uint8 and stored["labels"].dtype == np.int32


def test_nan_and_objects_are_refused(tmp_path):
    with pytest.raises(ValueError):
        save_json(tmp_path / "e.json", {"psnr": float("nan")})
    with pytest.raises(ValueError):
        npz.save(tmp_path / "s.npz", images=np.array([{}], object))
    assert os.listdir(tmp_path) == []


def test_what_comes_in_pieces_is_written_as_if_it_were_whole(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    rest = {"labels": np.arange(5, dtype=np.int32), "step": 6, "names": ("ant", "bee")}
    pieces = npz.Pieces(images.shape, np.uint8, (images[i : i + 2] for i in range(0, 5, 2)))
    npz.save(tmp_path / "pieces.npz", images=pieces, **rest)
    npz.save(tmp_path / "whole.npz", images=images, **rest)
    np.savez_compressed(tmp_path / "numpy.npz", images=images, **rest)
    contents = {path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert len(contents) == 1


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    files.tried(tmp_path / "there")
    files.tried(tmp_path / "not" / "there" / "yet")
    assert sorted(tmp_path.rglob("*")) == before
    for wrong in (
        tmp_path / "there" / "x",
        tmp_path / "there" / "x" / "y",
        "/dev/null/y",
        "/proc/1/y",
    ):
        with pytest.raises(InputError, match=f"cannot write {wrong}: .*; give another folder"):
            files.tried(wrong)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    for content in ("one", "two"):
        with files.swapped(tmp_path / "here") as folder:
            (folder / content).touch()
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["two"]
    with pytest.raises(KeyError), files.swapped(tmp_path / "here") as folder:
        (folder / "three").touch()
        raise KeyError
    with pytest.raises(KeyError), files.swapped(tmp_path / "here") as folder:
        (folder / "four").touch()
        ending.let_go()  # as in a process that a signal ends in the midst of a compilation
        assert not folder.exists()
        raise KeyError
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "here",
        "here/two",
    ]


def test_a_folder_that_a_killed_call_had_put_aside_comes_back(tmp_path):
    (tmp_path / ".here.old").mkdir()
    (tmp_path / ".here.old" / "one").touch()
    with pytest.raises(KeyError), files.swapped(tmp_path / "here") as folder:
        (folder / "two").touch()
        raise KeyError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "one"]


def test_files_are_exchanged_all_or_none(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "out"

    def write(*names, stale=lambda name: False):
        with files.exchanged(folder, stale) as new:
            for name in names:
                (new / name).write_text(f"{len(names)} files")

    with pytest.raises(KeyboardInterrupt), files.exchanged(folder, bool) as new:
        (new / "x").touch()
        raise KeyboardInterrupt
    assert not folder.exists()
    write("1", "2", "3")
    (folder / "mine").touch()
    write("1", "2", stale=lambda name: name == "3")
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "mine"]
    assert (folder / "1").read_text() == "2 files"
    rename = pathlib.Path.rename

    def failing(path, target):
        if path.name == "2" and path.parent.name == ".new.part":
            raise OSError("no space")
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", failing)
    with pytest.raises(InputError, match="cannot write .*out: "):
        write("0", "1", "2", "3")
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "mine"]
    assert (folder / "1").read_text() == (folder / "2").read_text() == "2 files"


def test_files_that_a_call_could_not_move_back_are_moved_by_the_next(tmp_path, monkeypatch):
    for name in ("1", "2", "3"):
        (tmp_path / name).write_text("old")
    rename = pathlib.Path.rename

    def failing(path, target):
        if path.name == "2" and path.parent.name in (".new.part", ".old.part"):
            raise OSError("no space")
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", failing)
    with pytest.raises(InputError, match="no space"), files.exchanged(tmp_path, "3".__eq__) as new:
        for name in ("1", "2"):
            (new / name).write_text("new")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert names == [".old.part", ".old.part/2", "1", "3"]  # 3, too, is as it was
    monkeypatch.undo()
    (tmp_path / ".old.part" / "1").write_text("of a killed call, and 1 was written since")
    with pytest.raises(KeyError), files.exchanged(tmp_path, bool):
        raise KeyError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "1": "old",
        "2": "old",
        "3": "old",
    }
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with files.exchanged(tmp_path, "3".__eq__) as new:
        (new / "1").write_text("new")
    monkeypatch.undo()  # as if it was killed when it had moved all
    with pytest.raises(KeyError), files.exchanged(tmp_path, bool):
        raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free space"),
        (OSError("224000 requested and 96192 written"), "No space left on device; free space"),
        (
            ValueError("RESOURCE_EXHAUSTED: x\nwrite: No space left on device [OS error 28]"),
            "No sp",
        ),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied; give another folder"),
        (ValueError(f"Failed to write 9 {'x' * 400}: no [os_error_code='28']"), "No space left on"),
        (ValueError("Failed to write 9: no [os_error_code='27']"), "File too large; raise the"),
        (ValueError("Failed to open: no [os_error_code='13']"), "Permission denied; give another"),
        (ValueError("one line\nand another"), "one line; give another folder"),
    ],
)
def test_a_full_disk_is_told_whoever_tells_it(error, words):
    assert space.why_unwritten(error).startswith(words)


def test_what_a_killed_process_was_writing_goes_when_its_folder_is_used_again(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    end = f"{dead.pid}.01234567.part"
    names = [f".a.npz.{end}", f"images/.0.png.{end}"]
    mine, young, other = f".b.{os.getpid()}.89abcdef.part", f".c.{end}", ".d.part"
    for name in (*names, mine, young, other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    for name in (*names, mine):
        os.utime(tmp_path / name, (0, 0))
    with files.owned(tmp_path):
        there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.part")}
    assert there == {mine, young, other}
