"""Whole files or none: what is written here appears under its name complete, or not at all."""

import contextlib
import json
import os
import pathlib

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


def save_json(path, value):
    """`value` (dicts, lists, strings, finite numbers) as indented JSON under `path`; ValueError on NaN or infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path) as file:
        file.write(text.encode())


def save_npz(path, **arrays):
    """Named arrays as a compressed `.npz` under `path`; object arrays raise ValueError (no pickle)."""
    with atomic(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
