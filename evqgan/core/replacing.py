"""What a command may write over: what the same kind of command wrote before, and nothing else.

A PNG says which one that was by "mode" in its record (`png_records`), JSON by "name", or, of
numbers of another program's samples, by their card, weights by "network", statistics of real images
by their card.
"""

import contextlib
import os
import zipfile
from typing import Any

import safetensors

from evqgan.core import files, npz, png_records, stores
from evqgan.core.errors import InputError


def check(path: str | os.PathLike[str], maker: str, flag: str = "--out") -> None:
    """Raise InputError, before work begins, for a file that `maker` did not write.

    maker: the mode, or the command, that is to write `path`. flag: which one names it.
    """
    with files.writable(path):
        there = stores.path(path).exists()
    if there and maker_of(path) != maker:
        raise InputError(
            f"{path} is there and was not written by {maker}: move it away, or give another {flag}"
        )


def begin(path: str | os.PathLike[str], maker: str, flag: str = "--out") -> None:
    """Do `check`, and try to write into the folder of `path`, too; raise InputError otherwise."""
    check(path, maker, flag)
    files.tried(stores.path(path).absolute().parent)


def maker_of(path: str | os.PathLike[str]) -> str | None:
    """Return which mode or command wrote a file, None if none of ours did."""
    damaged = ValueError, AttributeError, zipfile.BadZipFile, safetensors.SafetensorError
    with contextlib.suppress(InputError, OSError, *damaged), stores.as_file(path) as file:
        if file.suffix.lower() == ".png":
            return png_records.read(file).get("mode")
        if file.suffix == ".npz":
            with npz.opened(file) as archive:
                return "reference" if "card" in archive else None
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="np") as stored:
                return (stored.metadata() or {}).get("network")
        return _of_json(files.read_json(file))
    return None


def _of_json(found: dict[str, Any]) -> str | None:
    """Return the command that wrote a JSON file, None if none did that says so."""
    cards = None if "name" in found else found.get("protocols")
    if isinstance(cards, dict) and [*cards] == ["distribution"]:
        model = cards["distribution"].get("model")
        is_another = isinstance(model, dict) and "step" not in model  # those of ours have one
        return "distribution" if is_another else None
    return found.get("name")
