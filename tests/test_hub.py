"""Models of the Hugging Face Hub, against one on loopback: fetched, pinned, refused, pushed.

huggingface_hub is in requirements-test.txt; without it only its absence is tested.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import hub_server
import numpy as np
import pytest

import evqgan
from evqgan import main
from evqgan.core import exported, hub, pictures
from evqgan.core.errors import InputError
from evqgan.export import __main__ as export

NAME = "user/small"
PLACE = f"hf://{NAME}"
MADE = ("--mode=reconstruct", "--image=in.png")
ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize(
    "text, name, revision",
    [
        ("hf://user/name", "user/name", ""),
        ("hf:/user/name", "user/name", ""),  # as pathlib has it
        ("hf://user/na.me-1@v1.0", "user/na.me-1", "v1.0"),
        ("hf://user/name@refs/pr/3", "user/name", "refs/pr/3"),
    ],
)
def test_a_name_of_the_hub_is_told_by_its_form(text, name, revision):
    assert hub.is_named(text) and hub.parse(text) == (name, revision)
    assert hub.parse(hub.parse(text).place) == (name, revision)


@pytest.mark.parametrize("text", ["hf://user", "hf://user/name/more", "hf://", "user/name", "hf:x"])
def test_another_form_is_one_line(text):
    with pytest.raises(
        InputError, match="expected hf://USER/NAME, or hf://USER/NAME@REVISION, got"
    ):
        hub.parse(text)


def test_without_the_library_a_line_says_how_to_install_it(monkeypatch, capsys):
    find = importlib.util.find_spec
    absent = lambda name, *more: None if name == "huggingface_hub" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert main.main(["main", f"--workdir={PLACE}", "--mode=sample"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'not installed: python -m pip install "huggingface_hub>=1"' in line
    assert export.main(["drawings", f"--push={PLACE}"]) == 2
    assert "huggingface_hub>=1" in capsys.readouterr().err


def test_a_path_that_is_not_there_may_have_been_meant_for_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "hf://user/name" in exported.no_workdir(pathlib.Path("user/name"))
    for path in ("/user/name", "workdirs/name", "../name", "name", "a/b/c"):
        assert "hf://" not in exported.no_workdir(pathlib.Path(path))


@pytest.fixture
def library(monkeypatch, tmp_path):
    """The constants of huggingface_hub, with a cache of its own and nobody logged in."""
    reason = "the extra `hub` is not installed"
    found = pytest.importorskip("huggingface_hub.constants", reason=reason)
    monkeypatch.setattr(found, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(found, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(found, "HF_HUB_DISABLE_XET", True)  # which a server on loopback lacks
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its tries
    hub.fetch.cache_clear()
    yield found
    hub.fetch.cache_clear()


@pytest.fixture
def served(library, monkeypatch):
    """The Hub, which has the model that ships as NAME."""
    with hub_server.running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        found.commit(NAME, files_of(exported.EXAMPLES / "drawings"))
        yield found


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def message(place=PLACE):
    hub.fetch.cache_clear()
    with pytest.raises(InputError) as caught:
        exported.find(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_is_fetched_whole_once_and_no_other_file(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    served.commits[NAME][-1]["files"] |= {"evil.py": b"raise", "pictures/a.png": b"x"}
    model, ours = evqgan.load(PLACE), evqgan.load("drawings")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(model.encode(images), ours.encode(images))
    folder = exported.find(PLACE)
    assert folder == model.workdir and tmp_path / "cache" in folder.parents
    assert {path.name for path in folder.iterdir()} <= set(exported.FILES)
    assert exported.results(PLACE) == exported.results(folder) == pathlib.Path("workdirs", NAME)
    before = len(served.requests)
    hub.fetch.cache_clear()
    assert exported.find(PLACE) == folder
    again = [path for method, path in served.requests[before:] if method == "GET"]
    assert again and not [path for path in again if "resolve" in path]


def test_a_folder_of_that_name_comes_first(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("hf:/user").mkdir(parents=True)
    shutil.copytree(exported.EXAMPLES / "drawings", pathlib.Path("hf:", NAME))
    assert exported.find(PLACE) == pathlib.Path("hf:", NAME) and not served.requests


def test_a_revision_is_pinned(served):
    first = served.commits[NAME][0]["sha"]
    config = json.loads(served.commits[NAME][0]["files"]["config.json"])
    trained = config["steps"]["generator"]
    config["steps"] = {"tokenizer": 1, "generator": 2}
    second = {**served.commits[NAME][0]["files"], "config.json": json.dumps(config).encode()}
    served.commit(NAME, second)
    assert exported.step_of(exported.find(PLACE), "generator") == 2
    assert exported.step_of(exported.find(f"{PLACE}@{first}"), "generator") == trained
    assert "has no revision 'v9'" in message(f"{PLACE}@v9")


def test_without_a_connection_the_cache_serves(served, monkeypatch, capsys):
    folder = exported.find(PLACE)
    nowhere = "http://127.0.0.1:9"  # the port that discards
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    hub.fetch.cache_clear()
    assert exported.find(PLACE) == folder
    assert f"no connection to {nowhere}: {PLACE} as the cache has it" in capsys.readouterr().out
    assert "is not in the Hub's cache: give the command again" in message("hf://user/other")


def test_who_is_not_let_in_is_told_how(served, monkeypatch):
    served.private.add(NAME)
    assert "shows no model user/small: log in with `hf auth login`" in message()
    assert "shows no model user/none" in message("hf://user/none")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "shows no model user/small" in message()
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    assert exported.find(PLACE).is_dir()


def test_a_download_that_breaks_goes_on(served):
    served.cut[exported.WEIGHTS] = 2
    folder, data = exported.find(PLACE), served.commits[NAME][-1]["files"][exported.WEIGHTS]
    assert (folder / exported.WEIGHTS).read_bytes() == data
    assert served.requests.count(("GET", f"{NAME}/resolve/{folder.name}/{exported.WEIGHTS}")) == 3


def test_a_download_that_is_cut_for_good_leaves_nothing_that_is_used(served):
    served.gone.add(exported.WEIGHTS)
    assert f"cannot go on with {PLACE}" in message()
    served.gone.clear()
    hub.fetch.cache_clear()
    assert evqgan.load(PLACE).size == (64, 64)


def test_other_bytes_than_those_that_were_written_are_refused(served):
    files = served.commits[NAME][-1]["files"]
    whole = files[exported.WEIGHTS]
    files[exported.WEIGHTS] = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    with pytest.raises(InputError, match="damaged: its bytes are not those .*; remove (.*), and"):
        evqgan.load(PLACE)
    files[exported.WEIGHTS] = whole
    shutil.rmtree(exported.find(PLACE).parents[1])
    hub.fetch.cache_clear()
    assert evqgan.load(PLACE).size == (64, 64)


@pytest.mark.parametrize(
    "files, why",
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "pytorch_model.bin is a pickle, which"),
        ({"README.md": b"x"}, "it has no config.json"),
        ({"config.json": b"{}", "model.safetensors": b"x"}, "its config.json is another"),
        ({"config.json": b"{", "model.safetensors": b"x"}, "its config.json is another"),
    ],
)
def test_another_kind_of_model_is_refused_before_its_weights_come(served, files, why):
    served.commit("user/other", files)
    said = message("hf://user/other")
    assert "is no model that evqgan.export has written: " in said and why in said
    assert not [path for _, path in served.requests if path.endswith((".bin", "tensors"))]


def test_a_model_is_pushed_in_one_commit_and_read_again(served, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    folder = shutil.copytree(exported.EXAMPLES / "drawings", tmp_path / "mine")
    (folder / ".env").write_text("secret")
    assert export.main([str(folder), "--push=hf://user/mine"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("uploading 7 files, 4,6") and "a new private repository" in out[0]
    assert f"to {served.url}/user/mine" in out[0] and "  model.safetensors  4,625,822" in out
    assert out[-1].endswith('evqgan.load("hf://user/mine")')
    assert "user/mine" in served.private and len(served.commits["user/mine"]) == 2
    files = served.commits["user/mine"][-1]["files"]
    assert (
        ".env" not in files and files[exported.WEIGHTS] == (folder / exported.WEIGHTS).read_bytes()
    )
    assert evqgan.load("hf://user/mine").size == (64, 64)
    (folder / exported.EVALUATION).unlink()
    assert export.main([str(folder), "--push=user/mine"]) == 2
    assert "expected hf://USER/NAME" in capsys.readouterr().err
    assert export.main([str(folder), "--push=hf://user/mine", "--public"]) == 2
    assert "is private already: leave out --public" in capsys.readouterr().err
    assert export.main([str(folder), "--push=hf://user/mine"]) == 0
    assert exported.EVALUATION not in served.commits["user/mine"][-1]["files"]
    assert export.main([str(folder), "--push=hf://user/open", "--public"]) == 0
    assert "user/open" not in served.private


def test_what_is_not_pushed(served, monkeypatch, tmp_path, capsys):
    def refused(folder, place=PLACE, *flags):
        before = json.dumps(sorted(served.commits))
        assert export.main([str(folder), f"--push={place}", *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert json.dumps(sorted(served.commits)) == before
        return line

    assert "nobody is logged in: log in with `hf auth login`" in refused("drawings")
    dest = tmp_path / "dest"  # refused before it is written, or the next try would find it there
    assert export.main(["drawings", str(dest), f"--push={PLACE}"]) == 2 and not dest.exists()
    assert "nobody is logged in" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "answers 401 to hf://user/small: log in with" in refused("drawings")
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    (tmp_path / "photos").mkdir()
    assert "is no exported model, and nothing else is uploaded" in refused(tmp_path / "photos")
    folder = shutil.copytree(exported.EXAMPLES / "drawings", tmp_path / "mine")
    (folder / "optimizer.pt").write_bytes(b"x")
    assert "optimizer.pt is a pickle by its name" in refused(folder)
    served.commit("user/theirs", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    line = refused("drawings", "hf://user/theirs", "--public")
    assert "is no model that evqgan.export has written" in line
    assert "is public already: give --public" in refused("drawings")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot go on with hf://user/small" in refused("drawings")


def test_what_changes_on_the_hub_while_a_model_is_exported_is_seen(
    served, monkeypatch, tmp_path, capsys
):
    """What is asked for before the export and before the upload, and what comes even later."""
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    served.private.add(NAME)
    command, write = [f"--push={PLACE}"], export.write

    def opened(*given):
        write(*given)
        served.private.clear()

    monkeypatch.setattr(export, "write", opened)
    assert export.main(["drawings", str(tmp_path / "mine"), *command]) == 2
    captured = capsys.readouterr()
    assert "is public already: give --public" in captured.err and "uploading" not in captured.out
    served.private.add(NAME)
    theirs = {**served.commits[NAME][-1]["files"], "README.md": b"theirs"}
    served.meanwhile = lambda: served.commit(NAME, theirs)
    before = len(served.commits[NAME])
    assert export.main([str(tmp_path / "mine"), *command]) == 2  # what was exported is not lost
    assert "answers 412 to hf://user/small" in capsys.readouterr().err
    assert len(served.commits[NAME]) == before + 1
    assert served.commits[NAME][-1]["files"]["README.md"] == b"theirs"
    assert export.main([str(tmp_path / "mine"), *command]) == 0
    assert len(served.commits[NAME]) == before + 2


@pytest.mark.slow
def test_the_command_line_takes_it_in_a_process_of_its_own(served, tmp_path):
    pictures.save_png(tmp_path / "in.png", np.zeros((64, 64, 3), np.uint8))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": served.url}
    done = subprocess.run(
        [sys.executable, "-m", "evqgan.main", f"--workdir={PLACE}", *MADE],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "workdirs" / NAME / "reconstructions" / "in.png").is_file()
