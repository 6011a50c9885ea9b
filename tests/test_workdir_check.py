"""A run is refused, before anything is written, in a folder that holds something else."""

import json
import shutil

import numpy as np
import pytest
import workdirs
from PIL import Image
from test_configs import load

from evqgan import main, quickstart
from evqgan.core import exported, files
from evqgan.core.errors import InputError
from evqgan.training import loop, workdir_check


def contents(folder):
    """{path: bytes} of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures."""
    place, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(place / f"{k}.png")
    return place


def made(folder, kind):
    """Make a folder of a kind, as commands of this package leave it."""
    if kind == "of both":
        return workdirs.copy(folder)
    if kind == "of both, begun":
        files.save_json(folder / "plan.json", {})
    elif kind == "of one":
        return workdirs.copy(folder.parent / "whole") / "tokenizer"
    elif kind == "exported":
        folder.mkdir()
        (folder / exported.WEIGHTS).touch()
    else:
        names = {
            "samples": "samples.npz",
            "stopped samples": "candidates/00000000.npz",
            "candidates": "00000000.npz",
            "ids": "train-00000-of-00001.npy",
            "data": "dataset_info.json",
        }
        (folder / names[kind]).parent.mkdir(parents=True)
        (folder / names[kind]).touch()
    return folder


OTHERS = {
    "exported": "is an exported model",
    "samples": "holds samples",
    "stopped samples": "holds samples",
    "candidates": "holds samples that are not finished",
    "ids": "holds encoded ids",
    "data": "holds a data set",
}
OF_BOTH = {"of both": r"its parts are .*tokenizer, .*generator\)", "of both, begun": "of both st"}


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        *[("one", kind, message) for kind, message in {**OTHERS, **OF_BOTH}.items()],
        *[(x, "of one", "a run of one stage") for x in ("folder", "quickstart:tiny")],
        *[("folder", kind, message) for kind, message in OTHERS.items()],
        *[("quickstart:tiny", kind, message) for kind, message in OTHERS.items()],
    ],
)
def test_a_command_refuses_a_folder_of_something_else(
    config, kind, message, tmp_path, pictures, capsys, monkeypatch
):
    place = made(tmp_path / "place", kind)
    monkeypatch.setattr("evqgan.training.loop.prepare", None)  # nothing gets as far
    before = contents(tmp_path)
    file = "folder_stage1:tiny" if config == "one" else config
    command = ["evqgan", f"--config={file}", f"--workdir={place}"]
    command += [f"--config.dataset.folder={pictures}"] * (config != "quickstart:tiny")
    assert main.main(command) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and said.endswith("give another --workdir")
    with pytest.raises(InputError, match=message) as caught:
        workdir_check.check(place, config != "one")
    assert str(caught.value) in said and contents(tmp_path) == before


def test_python_refuses_it_too(tmp_path):
    both, one = made(tmp_path / "both", "of both"), made(tmp_path / "one", "of one")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="holds a run of both stages"):
        loop.train(load("quickstart", "tiny").tokenizer, both)
    with pytest.raises(InputError, match="holds a run of one stage"):
        quickstart.run(load("quickstart", "tiny"), one)
    assert contents(tmp_path) == before


def test_a_run_of_the_same_kind_goes_on(tmp_path):
    both, one = made(tmp_path / "both", "of both"), made(tmp_path / "one", "of one")
    for place in (both, tmp_path / "new", made(tmp_path / "begun", "of both, begun")):
        workdir_check.check(place, both=True)
    (one / "samples.npz").touch()  # --out=WORKDIR
    for place in (one, both / "tokenizer", both / "generator", tmp_path / "new"):
        workdir_check.check(place, both=False)
    assert json.loads((one / "config.json").read_text())["stage"] == "stage1"


@pytest.mark.parametrize("part", ["", "generator"])
def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(part, tmp_path):
    """Its numbers would be dropped; one that was killed before its first save has the folder."""
    place = made(tmp_path / "place", "of both" if part else "of one")
    run, config = place / part, load("quickstart", "tiny")
    train = (quickstart.run, config) if part else (loop.train, config.tokenizer)
    (run / "metrics.jsonl").write_text('{"step": 2}\n')
    shutil.rmtree(run / "checkpoints")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"checkpoints is gone, .*metrics.jsonl is of a run") as e:
        train[0](train[1], place)
    assert "put it back to go on" in str(e.value) and contents(tmp_path) == before
    (run / "checkpoints").mkdir()
    workdir_check.check(place, both=bool(part))
    (run / "checkpoints").rmdir()
    (run / "metrics.jsonl").unlink()
    workdir_check.check(place, both=bool(part))


@pytest.mark.parametrize("config", ["folder", "quickstart:tiny"])
def test_what_is_in_the_way_of_results_is_told_before_training(
    config, tmp_path, pictures, capsys, monkeypatch
):
    monkeypatch.setattr("evqgan.training.loop.prepare", None)  # nothing gets as far
    place = tmp_path / "place"
    command = ["evqgan", f"--config={config}", f"--workdir={place}"]
    command += [f"--config.dataset.folder={pictures}"] * (config == "folder")
    folders, written = workdir_check.LATER
    for name in (*folders, *written):
        inner = place / name
        inner.parent.mkdir(parents=True, exist_ok=True)
        inner.touch() if name in folders else inner.mkdir()
        assert main.main(command) == 2
        said = capsys.readouterr().err
        assert f"{inner} is a {'file' if name in folders else 'folder'}, and this run" in said
        assert said.endswith(" of that name: move it away, or give another --workdir\n")
        inner.unlink() if name in folders else inner.rmdir()
    (place / "samples").rmdir()
    (place / "samples").symlink_to("nowhere")
    assert main.main(command) == 2
    assert "samples is a link to nowhere, which is not there: move" in capsys.readouterr().err
