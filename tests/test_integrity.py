"""Files of a checkpoint that are missing, cut or changed: one line names the file, none follows."""

import os
import pathlib
import shutil

import pytest
import tensorstore
import workdirs

from evqgan import main
from evqgan.core import integrity

ALL = {"ema", "params", "opt", "tokenizer", "step", "skipped"}


@pytest.fixture(scope="module")
def checkpoint():
    """A checkpoint that nothing is wrong with."""
    return workdirs.trained() / "generator" / "checkpoints" / "6"


def gone(file):
    file.unlink()


def cut(file):
    os.truncate(file, 1)


def empty(file):
    os.truncate(file, 0)


def flipped(file):
    file.write_bytes(bytes(byte ^ 0x55 for byte in file.read_bytes()))


def needed(checkpoint):
    """The files that reading all of the state needs, relative to the checkpoint."""
    found = [path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file()]
    names = [path for path in found if "commit" not in path.name]
    return [path for path in names if path.parts[0] in ("state", "manifest")]


def test_of_every_file_that_is_missing_or_cut_the_name_is_said(checkpoint, tmp_path):
    copy, said = tmp_path / "6", set()
    shutil.copytree(checkpoint, copy)
    assert not integrity.damage(copy, "manifest") and not integrity.damage(copy, "state", ALL)
    for name in needed(checkpoint):
        for harm, words in (
            (gone, " is missing"),
            (cut, " is cut short"),
            (empty, " is cut short"),
        ):
            harm(copy / name)
            found = integrity.damage(copy, name.parts[0], ALL)
            assert not found or found.startswith(f"{name}{words}"), found
            said |= {name} if found else set()
            shutil.copy(checkpoint / name, copy / name)
    assert {pathlib.Path(x) for x in ("manifest/metadata", "state/manifest.ocdbt")} <= said
    largest = max(needed(checkpoint), key=lambda name: (checkpoint / name).stat().st_size)
    assert largest in said


def test_files_of_what_is_not_read_do_not_matter(checkpoint, tmp_path):
    copy = tmp_path / "6"
    shutil.copytree(checkpoint, copy)
    for path in [
        path for path in (copy / "state" / "ocdbt.process_0").rglob("*") if path.is_file()
    ]:
        path.unlink()
    assert integrity.damage(copy, "state", ALL).endswith("is missing")
    assert integrity.damage(copy, "state", {"step"}) == ""  # lies where its key does


def test_names_are_whole_in_a_database_of_many_nodes(tmp_path):
    """A node leaves out what all its keys begin with."""
    sizes = {"max_decoded_node_bytes": 300, "max_inline_value_bytes": 1}
    place = f"{tmp_path / 'state'}/"
    base = {"driver": "file", "path": place}
    spec = {"driver": "ocdbt", "base": base, "config": sizes}
    store = tensorstore.KvStore.open(spec).result()
    with tensorstore.Transaction() as transaction:
        for number in range(60):
            store.with_transaction(transaction)[f"params.layer{number}/0"] = b"0123456789"
    assert integrity.damage(tmp_path, "state", {"params"}) == ""
    (tmp_path / "state" / "keep").mkdir()
    for file in (tmp_path / "state" / "d").iterdir():
        kept = file.rename(tmp_path / "state" / "keep" / file.name)
        found = integrity.damage(tmp_path, "state", {"params"})
        assert found == f"state/d/{file.name} is missing"
        kept.rename(file)


def with_weights(folder):
    """A file of a checkpoint in which sampling reads; which they are is orbax's affair."""
    for file in sorted((folder / "state" / "ocdbt.process_0" / "d").iterdir()):
        elsewhere = file.rename(folder / file.name)
        found = integrity.damage(folder, "state", {"ema", "tokenizer"})
        elsewhere.rename(file)
        if found:
            return file
    raise AssertionError("all weights lie where their keys do")


@pytest.mark.parametrize("harm", [gone, cut, flipped])
def test_sampling_from_a_damaged_checkpoint_is_one_line(tmp_path, capfd, harm):
    place = workdirs.copy(tmp_path / "w")
    folder = place / "generator" / "checkpoints" / "6"
    harm(with_weights(folder))
    code = main.main(["main", "--mode=sample", f"--workdir={place}", "--num=1"])
    lines = capfd.readouterr().err.splitlines()
    assert code == 2 and len(lines) == 1, lines
    assert lines[0].startswith(f"error: checkpoint {folder} is damaged: ")
    assert lines[0].endswith(
        "; there is no earlier one: bring that back from a copy, or move this folder elsewhere and "
        "train again"
    )
    assert len(lines[0]) < 500 and not (place / "samples").exists()


def test_another_step_is_named_where_there_is_one(tmp_path, capfd):
    place = workdirs.copy(tmp_path / "w") / "tokenizer"
    shutil.copytree(place / "checkpoints" / "6", place / "checkpoints" / "4")
    gone(place / "checkpoints" / "6" / "manifest" / "metadata")
    image = next(place.parent.rglob("images/*/*.png"))
    args = ["--mode=reconstruct", f"--workdir={place}", f"--image={image}"]
    assert main.main(["main", *args]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "manifest/metadata is missing; move this folder elsewhere to use that of step 4" in line
    (place / "checkpoints" / "6").rename(place / "elsewhere")
    assert main.main(["main", *args]) == 0
