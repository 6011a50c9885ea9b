"""Paths on buckets, the lease of a folder, and files that grow: without any bucket.

Local folders stand for remote ones, as the libraries below read both; `test_buckets` has a server.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from evqgan.core import config_files, files, lease, metrics_writer, mirror, stores
from evqgan.core.errors import InputError
from evqgan.core.lease import Lease
from evqgan.main import main

HAS_GCSFS = importlib.util.find_spec("gcsfs") is not None


def test_a_local_path_is_pathlibs():
    for where in ("run", "/run", pathlib.Path("run"), "~/run", "C:/run", "a:b", "hf://user/name"):
        assert stores.path(where) == pathlib.Path(where) and not stores.is_remote(where)
        assert type(stores.path(where)) is type(pathlib.Path())


def test_an_absolute_path_has_no_dots_and_is_where_the_system_finds_it(tmp_path, monkeypatch):
    for folder in ("real/inner", "repo", "w"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    monkeypatch.chdir(tmp_path / "repo")
    assert stores.absolute("../w/run") == tmp_path.resolve() / "w" / "run"
    assert stores.absolute("run") == pathlib.Path.cwd() / "run"
    # What ".." follows is a link: the parent is that of the folder it leads to.
    (tmp_path / "link" / ".." / "here").touch()
    assert stores.absolute(tmp_path / "link" / ".." / "here") == tmp_path.resolve() / "real/here"
    assert (
        stores.absolute(tmp_path / "link" / "run") == tmp_path / "link" / "run"
    )  # as it was given


def test_files_below_a_path_with_dots_are_read(tmp_path, monkeypatch):
    (tmp_path / "repo").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("text")
    monkeypatch.chdir(tmp_path / "repo")
    assert stores.kvstore("../run").read("file").result().value == b"text"


@pytest.mark.skipif(not HAS_GCSFS, reason="there is no gcsfs: pip install gcsfs")
def test_a_url_stays_one_even_after_pathlib():
    for where in ("gs://bucket/run", pathlib.Path("gs://bucket/run"), "gs://bucket/run/"):
        place = stores.path(where)
        assert stores.is_remote(place) and os.fspath(place) == "gs://bucket/run"
        assert os.fspath(place / "a" / "b.json") == "gs://bucket/run/a/b.json"
        assert (place / "b.json").relative_to(place).as_posix() == "b.json"
    assert stores.same("gs://bucket/run/", pathlib.Path("gs://bucket/run"))
    assert not stores.same("gs://bucket/run", "bucket/run")


def test_links_that_form_a_loop_are_a_path_as_any_other(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to(tmp_path)
    assert stores.real(tmp_path / "a" / "x").name == "x" and stores.same(tmp_path, tmp_path / "c")
    assert not stores.same(tmp_path / "a", tmp_path)


def test_what_is_no_bucket_is_refused_and_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="expected a local path, or gs://BUCKET"):
        stores.path("http://host/run")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="`pip install gcsfs` installs it"):
        stores.path("gs://bucket/run")
    assert main(["", "--config=quickstart:tiny", "--workdir=gs://bucket/run"]) == 2
    assert "pip install gcsfs" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--image=gs://b/a.png", "--mask=s3://b/a.png", "--preset=gs://b"])
def test_a_flag_that_takes_a_local_file_says_so(flag, capsys):
    given = ["", "--mode=edit", "--workdir=drawings", flag]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert f"error: {flag}: expected a local path; copy it first" in said and len(said) < 200


def test_a_folder_of_images_on_a_bucket_is_refused():
    said = r"dataset\.folder = gs://bucket/images cannot be read: image files"
    for file in ("folder", "drawings_stage1"):
        config = config_files.read_file(file)
        with pytest.raises(InputError, match=said):
            config_files.override(config, ["--config.dataset.folder=gs://bucket/images"])


def test_what_a_store_refuses_comes_with_what_to_do():
    for said in ("Anonymous caller does not have storage.objects.list access, 401", "Forbidden: x"):
        assert "gcloud auth application-default login" in stores.reason(OSError(said), "gs://b")
    assert stores.reason(OSError("No space left on device"), "gs://b") == "No space left on device"


# The lease of a folder.


@pytest.fixture
def quick(monkeypatch):
    """Seconds become tens of milliseconds."""
    for name, value in (("RENEW_EVERY", 0.05), ("STALE", 3.0), ("LOOK", 0.02)):
        monkeypatch.setattr(lease, name, value)


def leased(folder, lost=None):
    return Lease(folder, lambda who: f"in use by {who}", lost)


def owner(folder):
    return json.loads((folder / lease.OWNER).read_text())


def test_a_folder_with_signs_of_life_is_another_s(tmp_path, quick, capsys, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 60.0)  # a busy machine; one heartbeat ends the wait
    first, second = leased(tmp_path), leased(tmp_path)
    first.take()
    with pytest.raises(InputError, match=f"in use by process {os.getpid()} on "):
        second.take()
    assert "waiting up to 60 s for a heartbeat" in capsys.readouterr().out
    first.release()
    first.release()
    assert not list(tmp_path.iterdir())
    second.take()
    second.release()
    assert not list(tmp_path.iterdir())


def test_a_folder_without_signs_of_life_is_taken_over(tmp_path, quick):
    away = {"process": 1, "host": "other", "machine": "other", "time": time.time(), "token": "x"}
    (tmp_path / lease.OWNER).write_text(json.dumps(away))
    began, taken = time.monotonic(), leased(tmp_path)
    taken.take()
    assert time.monotonic() - began >= 3 and owner(tmp_path)["process"] == os.getpid()
    taken.release()
    (tmp_path / lease.OWNER).write_text("no JSON")
    taken = leased(tmp_path)
    taken.take()
    taken.release()


@pytest.mark.parametrize("age", [0, 10_000])
def test_an_owner_that_was_killed_here_or_long_ago_is_not_waited_for(tmp_path, age, capsys):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=1)
    if not age and not lease.machine():
        pytest.skip("this system does not say which start of which machine it is")
    left = {"process": int(gone.stdout), "host": "h", "machine": lease.machine(), "token": "x"}
    left |= {"time": time.time() - age} | ({"machine": "other"} if age else {})
    (tmp_path / lease.OWNER).write_text(json.dumps(left))
    taken = leased(tmp_path)
    taken.take()
    assert "waiting" not in capsys.readouterr().out
    taken.release()


def test_of_many_that_want_an_abandoned_folder_one_gets_it(tmp_path, quick):
    away = {"process": 1, "host": "other", "machine": "other", "time": time.time(), "token": "x"}
    (tmp_path / lease.OWNER).write_text(json.dumps(away))
    ends, all_of_them = [], [leased(tmp_path) for _ in range(4)]

    def take(one):
        try:
            one.take()
            ends.append(one)
        except InputError as error:
            ends.append(error)

    threads = [threading.Thread(target=take, args=(one,)) for one in all_of_them]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [end for end in ends if isinstance(end, Lease)]
    assert len(ends) == 4
    winner.release()
    assert not list(tmp_path.iterdir())


def test_an_owner_whose_folder_was_taken_over_is_told_and_leaves_it(tmp_path, quick):
    told, first = threading.Event(), leased(tmp_path, lambda line: (lines.append(line), told.set()))
    lines = []
    first.take()
    other = {**owner(tmp_path), "token": "another"}
    for _ in range(100):  # a heartbeat may come between reading and writing
        (tmp_path / lease.OWNER).write_text(json.dumps(other))
        if told.wait(0.2):
            break
    assert "was taken over by another process" in lines[0]
    first.release()
    assert owner(tmp_path) == other


# Files that grow.


@pytest.fixture
def slow_mirror(tmp_path, monkeypatch):
    """Nothing is copied but by `flush`; local folders are made in tmp_path."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(mirror, "EVERY", 1e6)
    monkeypatch.setattr(stores, "is_remote", lambda where: "remote" in os.fspath(where))
    monkeypatch.setattr(stores, "path", pathlib.Path)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_copied_when_flushed_and_go_on_without_doubles(tmp_path, slow_mirror):
    place = tmp_path / "remote"
    place.mkdir()
    with metrics_writer.Writer(place) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": float(step)})
        assert not list(place.iterdir())  # nothing yet: the step does not wait for it
        writer.flush()
        assert [line["step"] for line in lines(place)] == [1, 2, 3]
        writer.write(4, {"loss": 4.0})
    assert [line["step"] for line in lines(place)] == [1, 2, 3, 4]
    assert not writer.folder.exists()
    with metrics_writer.Writer(place, resume_step=2) as writer:
        writer.write(3, {"loss": 3.5})
    assert [(x["step"], x["loss"]) for x in lines(place)] == [(1, 1.0), (2, 2.0), (3, 3.5)]
    assert len(list(place.glob("events.*"))) == 2


def test_events_are_cut_into_parts_so_that_little_is_copied_again(
    tmp_path, slow_mirror, monkeypatch
):
    monkeypatch.setattr(metrics_writer, "PART", 1_000)
    place, copied, put = tmp_path / "remote", [], stores.put
    place.mkdir()

    def noted(copy, file):
        copied.append((pathlib.Path(file).name, copy.stat().st_size))
        put(copy, file)

    monkeypatch.setattr(stores, "put", noted)
    with metrics_writer.Writer(place) as writer:
        for step in range(1, 101):
            writer.write(step, {"loss": 1.0, "accuracy": 0.5})
            if step % 10 == 0:
                writer.flush()
    events = [size for name, size in copied if name.startswith("events")]
    assert len(list(place.glob("events.*"))) > 5 and max(events) < 2_000
    assert len([name for name, _ in copied if name == "metrics.jsonl"]) == 10


def test_what_cannot_be_copied_is_kept_and_tried_again(tmp_path, slow_mirror, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "EVERY", 0.02)
    place, put, down = tmp_path / "remote", stores.put, threading.Event()
    place.mkdir()

    def failing(copy, file):
        if down.is_set():
            raise OSError("503 Service Unavailable")
        put(copy, file)

    monkeypatch.setattr(stores, "put", failing)
    with metrics_writer.Writer(place) as writer:
        down.set()
        writer.write(1, {"loss": 1.0})
        until = time.monotonic() + 10
        while "WARNING" not in (said := capsys.readouterr().out) and time.monotonic() < until:
            time.sleep(0.02)
        assert "503 Service Unavailable" in said and "tried again in" in said
        with pytest.raises(InputError, match=r"cannot write .*503 Service Unavailable"):
            writer.flush()
        down.clear()
        writer.flush()
        assert len(lines(place)) == 1
        down.set()
        writer.write(2, {"loss": 1.0})
        with (
            pytest.raises(InputError, match="; what was to be copied is kept in ") as caught,
            writer,
        ):
            pass
    kept = pathlib.Path(str(caught.value).rpartition(" ")[2])
    assert [line["step"] for line in lines(kept)] == [1, 2] and not writer.folder.exists()


def test_an_error_that_ends_a_run_is_not_hidden_by_a_store_that_is_down(
    tmp_path, slow_mirror, monkeypatch, capsys
):
    (tmp_path / "remote").mkdir()

    def failing(copy, file):
        raise OSError("503")

    monkeypatch.setattr(stores, "put", failing)
    with pytest.raises(KeyError), metrics_writer.Writer(tmp_path / "remote") as writer:
        writer.write(1, {"loss": 1.0})
        raise KeyError
    assert "503" in capsys.readouterr().out


def test_a_copy_that_is_read_lasts_as_long_as_the_body(tmp_path):
    (tmp_path / "a").write_text("text")
    with stores.as_file(tmp_path / "a") as file:
        assert file == tmp_path / "a"
    assert files.digest(tmp_path / "a") == files.digest(str(tmp_path / "a"))
