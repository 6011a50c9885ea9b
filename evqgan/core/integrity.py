"""Whether the files of a checkpoint are there and whole: asked before orbax reads them.

Orbax reads many arrays at once. Where one cannot be read, its message names the array and not the
file, and its other threads write tracebacks of their own.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import sys
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import unquote

import orbax.checkpoint as ocp
import tensorstore
from etils import epath

from evqgan.core import output, stores
from evqgan.core.errors import InputError, of_system, system_number

# Files that describe the arrays, and what orbax looks for in them: it stands in its errors.
DESCRIBED = {
    "state/_METADATA": "tree_metadata|key_metadata|key_type|KeyType|'key'|value_metadata"
    "|value_type|skip_deserialize",
    "state/array_metadatas/*": "param_name|write_shape|chunk_shape",
}


class _Damaged(Exception):
    """What is wrong with a checkpoint's files, in words that name one."""


def unreadable(folder: pathlib.Path, error: BaseException | None = None) -> str:
    """Return why a checkpoint cannot be read though nothing is known of damage, or "".

    folder: the checkpoint's, which may have been renamed, or be on a drive that is away.
    error: what reading raised, of which the operating system's reason is told (no permission, a
      failing disk, too many open files), but for a single file that is not there.
    """
    try:
        if not folder.is_dir():
            return "its folder is gone: it was renamed, moved or removed, or its disk is away"
    except OSError as unseen:
        return of_system(unseen)
    number = system_number(error)
    return "" if number in (0, errno.ENOENT, errno.ENOTDIR) else os.strerror(number)


def check_readable(folder: pathlib.Path, error: BaseException | None = None) -> None:
    """Raise InputError, which does not speak of damage, where a checkpoint is `unreadable`."""
    if reason := unreadable(folder, error):
        raise InputError(f"cannot read checkpoint {folder}: {reason}") from error


def damage(folder: pathlib.Path, item: str, parts: Collection[str] = ()) -> str:
    """Return what is wrong with the files of a checkpoint's item, or "".

    folder: of the checkpoint, such as checkpoints/400.
    item: "state", whose arrays are checked, or another one, which is JSON.
    parts: the top-level keys of the state whose files are checked.

    Raises InputError where the files cannot be read for another reason (`unreadable`).
    """
    try:
        if item != "state":
            _check_json(folder, folder / item / "metadata")
            return ""
        # Orbax does without these, but not with broken ones.
        for file in (folder / item / "_METADATA", *(folder / item / "array_metadatas").glob("*")):
            if file.exists():
                _check_json(folder, file)
        ends: dict[pathlib.Path, int] = {}  # of each file, as many bytes as it has at least
        for key, file, end in _values(folder, folder / item):
            if re.split("[./]", key)[0] in parts:  # "params.mlp.kernel/0.0", "step/.zarray"
                ends[file] = max(end, ends.get(file, 0))
        for file, end in ends.items():
            _check_length(folder, file, end)
    except _Damaged as error:
        check_readable(folder, error.__cause__)
        return str(error)
    except OSError as error:
        check_readable(folder, error)
        raise
    return ""


def undescribed(folder: pathlib.Path) -> str:
    """Return what is wrong with orbax's description of a checkpoint as a whole, or "".

    Orbax reads that of every checkpoint, whichever is asked for. folder: such as checkpoints/400.
    """
    try:
        ocp.path.step.Metadata(int(folder.name), epath.Path(folder)).commit_timestamp  # noqa: B018
    except Exception as error:  # of many kinds, by what it does not understand
        check_readable(folder, error)
        return "_CHECKPOINT_METADATA is changed"
    return ""


def _check_json(folder: pathlib.Path, file: pathlib.Path) -> None:
    """Raise _Damaged unless a file of the checkpoint `folder` holds a JSON dict."""
    name = file.relative_to(folder)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Damaged(f"{name} is missing") from None
    except (ValueError, RecursionError):
        raise _Damaged(f"{name} is cut short or changed") from None
    except OSError:  # what the system says, orbax is told, too
        return
    if not isinstance(found, dict):
        raise _Damaged(f"{name} is changed")


def _values(folder: pathlib.Path, place: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, int]]:
    """Yield (key, file, byte at which it ends there) of what the database in `place` stores.

    Values that lie beside their keys, as small ones do, are left out. Raises _Damaged where the
    database itself cannot be read.
    """
    manifest = place / "manifest.ocdbt"
    if not manifest.is_file():
        raise _Damaged(f"{manifest.relative_to(folder)} is missing")
    base = stores.kvstore(place)
    try:
        versions = tensorstore.ocdbt.dump(base).result()["versions"]
    except ValueError as error:
        raise _Damaged(f"{manifest.relative_to(folder)} is cut short or changed") from error
    nodes = [(version["root"]["location"], b"") for version in versions[-1:]]
    while nodes:
        node, prefix = nodes.pop()  # of its keys
        file, end = _reference(place, node)
        _check_length(folder, file, end)
        try:
            entries = tensorstore.ocdbt.dump(base, node).result()["entries"]
        except ValueError as error:
            raise _Damaged(f"{file.relative_to(folder)} is changed") from error
        for entry in entries:
            if "location" in entry:
                nodes.append((entry["location"], prefix + entry["subtree_common_prefix"]))
            elif "indirect_value" in entry:
                key = (prefix + entry["key"]).decode()
                yield key, *_reference(place, entry["indirect_value"])


def array(place: pathlib.Path, name: str) -> Any:
    """Return an array of the database in `place` by its path in the state, as tensorstore's.

    Raises ValueError where there is none, or what describes it is changed.
    """
    base = stores.kvstore(place).spec().to_json()
    store = {"driver": "ocdbt", "base": base, "path": f"{name.replace('/', '.')}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": store}, open=True, read=True).result()


def _reference(place: pathlib.Path, location: str) -> tuple[pathlib.Path, int]:
    """Return the file of "type:folder:name:offset:length", and the byte at which that ends."""
    _, parent, name, offset, length = location.split(":")
    return place / unquote(parent) / unquote(name), int(offset) + int(length)


def _check_length(folder: pathlib.Path, file: pathlib.Path, end: int) -> None:
    """Raise _Damaged for a file that is missing or has fewer bytes than `end`; else OSError."""
    try:
        size = stores.stamp(file).size
    except (FileNotFoundError, NotADirectoryError):
        size = -1
    if size < 0 or not file.is_file():
        raise _Damaged(f"{file.relative_to(folder)} is missing")
    if size < end:
        what = f"is cut short, {size:,} of at least {end:,} bytes"
        raise _Damaged(f"{file.relative_to(folder)} {what}")


def changed(folder: pathlib.Path, message: str) -> str:
    """Return a message for a file that orbax or tensorstore names in an error, or ""."""
    if array := re.search(r'Error reading "([^"/]+)/', message):
        return changed_array(folder, array[1].replace(".", "/"))
    for names, words in DESCRIBED.items():
        if re.search(words, message):
            found = sorted(str(file.relative_to(folder)) for file in folder.glob(names))
            return f"{' or '.join(found)} is changed"
    return ""


def changed_array(folder: pathlib.Path, name: str) -> str:
    """Return a message for an array that is not what was saved: in which files it lies."""
    prefix, files = f"{name.replace('/', '.')}/", set[str]()
    with contextlib.suppress(_Damaged, OSError):  # was told before it came to this
        for key, file, _ in _values(folder, folder / "state"):
            if key.startswith(prefix):
                files.add(str(file.relative_to(folder)))
    return f"{name} in {' or '.join(sorted(files)) or 'state'} is not what was saved"


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Keep what orbax's threads write after the body has failed: it has raised what they say.

    They find its event loop closed, at once or as late as the process ends.
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if not output.is_of_an_ended_loop(found):
            before(found)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before
