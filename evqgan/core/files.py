"""Whole files or none: what is written here appears under its name complete, or not at all."""

import contextlib
import json
import os
import pathlib
import socket

import filelock
import numpy as np

from evqgan.core.errors import InputError


@contextlib.contextmanager
def writable(path):
    """An OSError of the body (full disk, read-only folder, a file in the way) becomes InputError naming `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"cannot write {path}: {reason}; free space there or give another folder") from error


@contextlib.contextmanager
def atomic(path):
    """A binary file to write; it takes the name `path` when the body ends, and vanishes if the body raises.

    The folder of `path` is made. An OSError becomes InputError; what stood under `path` before is then untouched.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):  # gone after the replacement; on a failing disk the first error counts
                part.unlink()


@contextlib.contextmanager
def owned(folder):
    """`folder`, made if need be, is this process's while the body runs; InputError if it is another's.

    The lock is the operating system's: it ends with its process, however that ends. What is left empty is removed.
    """
    folder = pathlib.Path(folder)
    there, lock, owner = folder.is_dir(), filelock.FileLock(folder / ".lock", blocking=False), folder / ".owner"
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout:
            who = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
            alone = os.environ.get("EVQGAN_DISTRIBUTED") != "1" and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
            hint = ", or set EVQGAN_DISTRIBUTED=1 to make the tasks of this Slurm step one run" if alone else ""
            raise InputError(f"{folder} is in use by {who}: wait, stop it, or give another --workdir{hint}") from None
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    try:
        yield
    finally:
        for file in (owner, pathlib.Path(lock.lock_file)):
            with contextlib.suppress(OSError):
                file.unlink()
        lock.release()
        if not there:
            with contextlib.suppress(OSError):  # there is something in it
                folder.rmdir()


def save_json(path, value):
    """`value` (dicts, lists, strings, finite numbers) as indented JSON under `path`; ValueError on NaN or infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path) as file:
        file.write(text.encode())


def read_json(path, what="the JSON that training writes"):
    """The dict in a JSON file; InputError where it is none, cut short, of another encoding, or nested without end."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a wrong encoding is a ValueError, too
        raise InputError(f"{path} is not {what}: {str(error) or type(error).__name__}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is not {what}: expected a dict, got {type(found).__name__}")
    return found


def save_npz(path, **arrays):
    """Named arrays as a compressed `.npz` under `path`; object arrays raise ValueError (no pickle)."""
    with atomic(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
