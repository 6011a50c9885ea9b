"""Whether the files of a checkpoint are there and whole: asked before orbax reads them.

Orbax reads many arrays at once. Where one cannot be read, its message names the array and not the
file, and its other threads write tracebacks of their own.
"""

import contextlib
import json
import pathlib
import re
import sys
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import unquote

import tensorstore


def damage(folder: pathlib.Path, item: str, parts: Collection[str] = ()) -> str:
    """Return what is wrong with the files of a checkpoint's item, or "".

    folder: of the checkpoint, such as checkpoints/400.
    item: "state", whose arrays are checked, or another one, which is JSON.
    parts: the top-level keys of the state whose files are checked.
    """
    if item != "state":
        return _damage_of_json(folder, folder / item / "metadata")
    found = ""
    if (folder / item / "_METADATA").exists():  # orbax does without
        found = _damage_of_json(folder, folder / item / "_METADATA")
    return found or _damage_of_arrays(folder, folder / item, parts)


def _damage_of_json(folder: pathlib.Path, file: pathlib.Path) -> str:
    """Return what is wrong with a JSON file, or ""."""
    name = file.relative_to(folder)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{name} is missing"
    except ValueError:
        return f"{name} is cut short or changed"
    except OSError:  # what the system says, orbax is told, too
        return ""
    return "" if isinstance(found, dict) else f"{name} is changed"


def _damage_of_arrays(folder: pathlib.Path, place: pathlib.Path, parts: Collection[str]) -> str:
    """Return what is wrong with the files that hold the arrays of `parts`, or ""."""
    manifest = place / "manifest.ocdbt"
    if not manifest.is_file():
        return f"{manifest.relative_to(folder)} is missing"
    base = tensorstore.KvStore.open({"driver": "file", "path": f"{place.absolute()}/"}).result()
    try:
        versions = tensorstore.ocdbt.dump(base).result()["versions"]
    except ValueError:
        return f"{manifest.relative_to(folder)} is cut short or changed"
    nodes = [(version["root"]["location"], b"") for version in versions[-1:]]
    ends: dict[pathlib.Path, int] = {}  # of each file, as many bytes as it has at least
    while nodes:
        node, prefix = nodes.pop()  # of its keys
        file, end = _reference(place, node)
        if found := _cut(folder, file, end):
            return found
        try:
            entries = tensorstore.ocdbt.dump(base, node).result()["entries"]
        except ValueError:
            return f"{file.relative_to(folder)} is changed"
        for entry in entries:
            if "location" in entry:
                nodes.append((entry["location"], prefix + entry["subtree_common_prefix"]))
            elif "indirect_value" in entry and _part(prefix + entry["key"]) in parts:
                file, end = _reference(place, entry["indirect_value"])
                ends[file] = max(end, ends.get(file, 0))
    return next(filter(None, (_cut(folder, file, end) for file, end in ends.items())), "")


def _part(key: bytes) -> str:
    """Return the top-level key of the state to which a key of the database belongs."""
    return re.split("[./]", key.decode())[0]  # "params.mlp.kernel/0.0", "step/.zarray"


def _reference(place: pathlib.Path, location: str) -> tuple[pathlib.Path, int]:
    """Return the file of "type:folder:name:offset:length", and the byte at which that ends."""
    _, parent, name, offset, length = location.split(":")
    return place / unquote(parent) / unquote(name), int(offset) + int(length)


def _cut(folder: pathlib.Path, file: pathlib.Path, end: int) -> str:
    """Return what is said of a file that is missing or has fewer bytes than `end`, or ""."""
    if not file.is_file():
        return f"{file.relative_to(folder)} is missing"
    size = file.stat().st_size
    if size < end:
        return f"{file.relative_to(folder)} is cut short, {size:,} of at least {end:,} bytes"
    return ""


def changed_array(message: str) -> str:
    """Return what is said of the array that an error message of tensorstore names, or ""."""
    found = re.search(r'Error reading "([^"/]+)/', message)
    return f"{found[1].replace('.', '/')} is changed" if found else ""


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Keep what orbax's threads write after the body has failed: it has raised what they say.

    They find its event loop closed, at once or as late as the process ends.
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            before(found)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before
