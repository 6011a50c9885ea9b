"""The lines of metrics.jsonl, as they are read."""

import json
import pathlib
from typing import Any

from evqgan.core.errors import InputError, of_system


def parsed(line: str) -> dict[str, Any] | None:
    """Return a line of metrics.jsonl; None where it is damaged: no JSON object with a step."""
    try:
        found: dict[str, Any] = json.loads(line)
        found["step"] = int(found["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return found


def texts(path: pathlib.Path) -> list[str]:
    """Return the lines of a metrics.jsonl, but for a last one that a run may be writing.

    Raises InputError where the file cannot be read.
    """
    try:
        found = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    except OSError as error:
        raise InputError(f"cannot read {path}: {of_system(error)}") from error
    return found if parsed(found[-1]) else found[:-1]


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; InputError where one of them is damaged."""
    found = []
    for number, text in enumerate(texts(path), 1):
        if (values := parsed(text)) is None:
            raise InputError(f"{path} line {number} is damaged: no JSON object with a step")
        found.append(values)
    return found
