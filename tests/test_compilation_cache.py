"""Compiled programs on disk: what a cut-off write has left is removed and written anew."""

import os
import subprocess
import sys
import types
import warnings
import zlib

import pytest

from evqgan.core import compilation_cache

STEP = """
from evqgan.core import compilation_cache
compilation_cache.enable()
import jax, jax.numpy as jnp
def step(x):
    return jnp.sin(x) @ jnp.cos(x)
print(float(jax.jit(step)(jnp.ones((4, 4)))[0, 0]))
"""
LINE = "the kept program jit_step in {} was cut off when it was written: it is removed, and "
CANNOT = "WARNING compiled programs cannot be kept in"


def start(folder, program=STEP, limit=""):
    """A first start on the folder: what it prints. limit: a shell's ulimit, as of a full disk."""
    plain = {name: x for name, x in os.environ.items() if not name.startswith("JAX_")}
    environment = {**plain, "JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
    command = ["bash", "-c", f'{limit}exec "$@"', "bash", sys.executable, "-c", program]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    return made.stdout + made.stderr


def entries(folder):
    return {path.name: path.read_bytes() for path in folder.glob("jit_step-*-cache")}


def test_an_entry_that_was_cut_off_is_removed_and_written_anew(tmp_path):
    start(tmp_path)
    ((name, whole),) = entries(tmp_path).items()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    made = start(tmp_path)
    assert LINE.format(tmp_path) in made and "UserWarning" not in made
    assert not any(map(compilation_cache.is_damaged, entries(tmp_path).values()))
    assert [*entries(tmp_path)] == [name]
    assert "cut off" not in start(tmp_path)


def test_a_disk_that_is_full_leaves_nothing_cut_off_and_is_told_once(tmp_path):
    made = start(tmp_path, limit="ulimit -f 1; ")
    assert made.count(CANNOT) == 1 and "UserWarning" not in made
    assert not entries(tmp_path)
    assert "cut off" not in start(tmp_path) and len(entries(tmp_path)) == 1


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path):
    (tmp_path / "file").touch()
    made = start(tmp_path / "file" / "cache")
    assert "WARNING compiled programs cannot be" in made and "UserWarning" not in made
    assert len(made.splitlines()) == 2  # and the number


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """What other warnings are, while the folder is watched."""
    found = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: found.append(message))
    compilation_cache.watch("/another folder")
    compilation_cache.watch(str(tmp_path))  # replaces it
    return found


def say(text):
    warnings.showwarning(UserWarning(text), UserWarning, "compiler.py", 1)


def test_other_warnings_are_shown_as_ever_and_whole_entries_stay(shown, tmp_path, capsys):
    say("something else")
    assert [str(x) for x in shown] == ["something else"]
    (tmp_path / "jit_f-ab-cache").write_bytes(zlib.compress(b"a program"))
    (tmp_path / "jit_g-ab-cache").write_bytes(b"")
    say("Error reading persistent compilation cache entry for 'jit_f': ValueError: no such device")
    assert (
        len([*tmp_path.iterdir()]) == 2 and "ValueError: no such device" in capsys.readouterr()[0]
    )
    say("Error reading persistent compilation cache entry for 'jit_g': error: Error -5 while")
    assert [path.name for path in tmp_path.iterdir()] == ["jit_f-ab-cache"]
    assert len(shown) == 1 and "jit_g" in capsys.readouterr().out


def test_an_entry_of_zstandard_is_told_from_a_damaged_one():
    zstandard = pytest.importorskip("zstandard", reason="JAX takes zlib where it is absent")
    entry = zstandard.ZstdCompressor().compress(bytes(1000))
    assert not compilation_cache.is_damaged(entry) and compilation_cache.is_damaged(entry[:-1])


def test_an_entry_of_zstandard_is_read_by_it_where_it_is_installed(monkeypatch):
    """By a stand-in, whose entries end with "!"."""

    class Decompressor:
        def decompress(self, entry):
            if not entry.endswith(b"!"):
                raise EOFError

    stand_in = types.SimpleNamespace(ZstdDecompressor=Decompressor, ZstdError=EOFError)
    monkeypatch.setitem(sys.modules, "zstandard", stand_in)
    entry = compilation_cache.ZSTD + b"!"
    assert not compilation_cache.is_damaged(entry) and compilation_cache.is_damaged(entry[:-1])
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert not compilation_cache.is_damaged(entry[:-1])  # JAX does not look at it either
