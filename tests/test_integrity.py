"""Files of a checkpoint that are missing, cut or changed: one line names the file, none follows."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
import workdirs

from evqgan import main
from evqgan.core import checkpoint, integrity, last_good, manifests
from evqgan.core.errors import InputError

ALL = {"ema", "params", "opt", "tokenizer", "step", "skipped"}


@pytest.fixture(scope="module")
def trained():
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


def half(file):
    os.truncate(file, file.stat().st_size // 2)


def one_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def test_each_file_that_is_harmed_is_named_or_does_not_matter(tmp_path):
    """Of every file in a small checkpoint; what is restored is right or nothing."""
    rows = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    state = {"params": {"a": jnp.asarray(rows), "b": jnp.ones(3)}, "step": jnp.int32(3)}
    checkpoints = checkpoint.Checkpoints(tmp_path / "w")
    checkpoints.save(3, state)
    checkpoints.wait()
    folder, named = checkpoints.folder / "3", set()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, before = str(file.relative_to(folder)), file.read_bytes()
        for harm in (half, empty, gone, one_byte) if before else (gone,):
            harm(file)
            try:
                found = checkpoints.restore(state)
            except InputError as error:
                line = str(error)
                assert line.startswith(f"checkpoint {folder} is damaged: "), (name, harm)
                assert name in line and "\n" not in line, (name, harm, line)
                named.add((file.name, harm))
            else:
                jax.tree.map(np.testing.assert_array_equal, found, state)
            file.write_bytes(before)
    assert {("_METADATA", one_byte), ("process_0", half), ("process_0", empty)} <= named
    assert {(name, gone) for name in ("metadata", "manifest.ocdbt")} <= named
    assert len([name for name, harm in named if len(name) == 32 and harm == one_byte]) == 2
    checkpoints.close()


def test_files_of_what_is_not_read_do_not_matter(trained, tmp_path):
    copy = tmp_path / "6"
    shutil.copytree(trained, copy)
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
    table = place / "checkpoints" / "4" / "manifest" / "metadata"
    rows = json.loads(table.read_text())
    rows["step"][1] = manifests.crc32(np.int32(4))  # as if it had been saved in step 4
    table.write_text(json.dumps(rows))
    gone(place / "checkpoints" / "6" / "manifest" / "metadata")
    image = next(place.parent.rglob("images/*/*.png"))
    args = ["--mode=reconstruct", f"--workdir={place}", f"--image={image}"]
    assert main.main(["main", *args]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "manifest/metadata is missing; move this folder elsewhere to use that of step 4" in line
    (place / "checkpoints" / "6").rename(place / "elsewhere")
    assert main.main(["main", *args]) == 0


# The command of the arguments, during which a workdir is renamed before orbax reads its arrays.
RENAMED = """
import pathlib, sys
from evqgan import main
from evqgan.core import integrity
checked, place = integrity.damage, pathlib.Path(sys.argv[1])
def damage(folder, item, parts=()):
    found = checked(folder, item, parts)
    if item == "state":
        place.rename(place.with_name("renamed"))
    return found
integrity.damage = damage
sys.exit(main.main(["main", "--mode=sample", f"--workdir={place}", "--num=1"]))
"""


def test_a_workdir_that_is_renamed_while_it_is_read_is_gone_and_not_damaged(tmp_path):
    """In a process of its own: what orbax's threads find is written when that ends."""
    place = workdirs.copy(tmp_path / "w")
    command = [sys.executable, "-W", "ignore", "-c", RENAMED, str(place)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    folder = place / "generator" / "checkpoints" / "6"
    assert (found.returncode, found.stderr) == (
        2,
        f"error: cannot read checkpoint {folder}: its folder is gone: it was renamed, moved or "
        "removed, or its disk is away\n",
    )


def test_a_file_that_the_system_does_not_read_is_not_called_damaged(tmp_path):
    """A link to itself: what no permission, a failing disk or too many open files are alike to."""
    place = workdirs.copy(tmp_path / "w")
    folder = place / "generator" / "checkpoints" / "6"
    file = with_weights(folder)
    file.unlink()
    file.symlink_to(file)
    line = f"cannot read checkpoint {folder}: Too many levels of symbolic links"
    with pytest.raises(InputError) as told:
        integrity.damage(folder, "state", ALL)
    assert str(told.value) == line
    with pytest.raises(InputError) as told:  # and so it is not put aside
        last_good.damage(folder)
    assert str(told.value) == line


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(24, "Too many open files"), "Too many open files"),
        (ValueError("... [os_error_code='5' tensorstore_spec='']"), "Input/output error"),
        (FileNotFoundError(2, "No such file"), ""),
        (ValueError("... checksum ..."), ""),
    ],
)
def test_what_the_system_said_is_found_in_what_other_errors_were_raised_from(
    tmp_path, error, reason
):
    try:
        raise RuntimeError("orbax") from error
    except RuntimeError as raised:
        assert integrity.unreadable(tmp_path, raised) == reason
    assert "is gone" in integrity.unreadable(tmp_path / "none", error)
