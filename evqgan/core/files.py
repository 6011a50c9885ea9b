"""Whole files or none: what is written here appears under its name complete, or not at all.

Paths may be local or of a bucket (`core.stores`), where objects appear so by themselves.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import filelock

from evqgan.core import ending, scratch, space, stores
from evqgan.core.errors import InputError, of_system
from evqgan.core.lease import Lease, runs_here

# The name under which `atomic` writes; one host's process may have the number of another's.
PART = re.compile(r"\..+\.(\d+)\.[0-9a-f]{8}\.part")
ABANDONED = 60.0  # ours: seconds after which a file that nobody writes is left over


@contextlib.contextmanager
def writable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of the body (full disk, file in the way) into InputError naming `path`.

    So are a store's exceptions, if it is a path in one.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not stores.is_failure(error):
            raise
        raise InputError(f"cannot write {path}: {space.why_unwritten(error, path)}") from error


def tried(folder: str | os.PathLike[str]) -> None:
    """Try to write into `folder` before long work begins; raise InputError if that fails.

    A folder made for it is removed again.
    """
    folder = stores.path(folder)
    if stores.is_remote(folder):
        probe = folder / f".{os.urandom(8).hex()}"
        with writable(folder):
            probe.write_bytes(b"a line")
            probe.unlink()
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    with writable(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"a line")
                file.flush()
        finally:
            with contextlib.suppress(OSError):  # another process is at work there
                for path in new:
                    path.rmdir()


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary file to write, which takes the name `path` when the body ends.

    It vanishes if the body raises. The folder of `path` is made. An OSError becomes InputError;
    what stood under `path` before is then untouched.
    """
    path = stores.path(path)
    if stores.is_remote(path):
        with writable(path), scratch.folder() as own:
            with open(own / path.name, "w+b") as copy:
                yield copy
            stores.put(own / path.name, path)
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            # Gone after the replacement; on a failing disk the first error counts.
            with contextlib.suppress(OSError):
                part.unlink()


@contextlib.contextmanager
def owned(folder: str | os.PathLike[str], instead: str = "another --workdir") -> Iterator[None]:
    """Make `folder` this process's while the body runs; InputError if it is another's.

    It is made if need be, and removed if it is left empty. The lock is the operating system's: it
    ends with its process, however that ends. On a bucket it is a `lease.Lease`.

    instead: what the error says to give.
    """
    folder = stores.path(folder)
    if stores.is_remote(folder):
        lease = Lease(folder, lambda who: _in_use(folder, who, instead))
        lease.take()
        with ending.removing(lease.release):
            try:
                yield
            finally:
                lease.release()
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    # Of all threads: `ending.let_go` is called in another one.
    lock = filelock.FileLock(folder / ".lock", blocking=False, thread_local=False)
    owner = folder / ".owner"

    def clear() -> None:
        if lock.is_locked:
            for file in (owner, pathlib.Path(lock.lock_file)):
                with contextlib.suppress(OSError):
                    file.unlink()
        with contextlib.suppress(OSError):  # there is something in it
            for path in new:
                path.rmdir()

    with ending.removing(clear):
        try:
            with writable(folder):
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    lock.acquire()
                except filelock.Timeout:
                    is_told = owner.is_file()
                    who = owner.read_text(encoding="utf-8") if is_told else "another process"
                    raise InputError(_in_use(folder, who, instead)) from None
                owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
            remove_parts(folder)
            yield
        finally:
            clear()
            lock.release()


def remove_parts(folder: pathlib.Path) -> None:
    """Remove what `atomic` was writing in `folder`, or one folder below, when it was killed.

    What may still be written stays: files of the last minute, and those of processes that run here.
    """
    for pattern in (".*.part", "*/.*.part"):
        for part in folder.glob(pattern):
            found = PART.fullmatch(part.name)
            with contextlib.suppress(OSError):  # gone meanwhile
                is_old = time.time() - part.stat().st_mtime > ABANDONED
                if found and is_old and not runs_here(int(found[1])):
                    part.unlink()


def _in_use(folder: pathlib.Path, who: str, instead: str) -> str:
    """Return the message for a folder in use; who: its owner, in words."""
    several = os.environ.get("EVQGAN_DISTRIBUTED") == "1"
    of_slurm = os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    hint = ", or set EVQGAN_DISTRIBUTED=1 to make the tasks of this Slurm step one run"
    wait = f"wait, stop it, or give {instead}{hint if of_slurm and not several else ''}"
    return f"{folder} is in use by {who}: {wait}"


def digest(path: str | os.PathLike[str]) -> str:
    """Return the first 16 hexadecimal digits of a file's sha256: enough to tell files apart."""
    with stores.as_file(path) as local, open(local, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` (dicts, lists, strings, finite numbers) as indented JSON under `path`.

    Raises ValueError on NaN or infinity.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path) as file:
        file.write(text.encode())


# What to do without the config.json of a workdir.
ANEW = "give the command that made the run again, which writes one"


def read_json(
    path: str | os.PathLike[str],
    what: str = "the config that training writes",
    advice: str = f"replace it by a copy, or move it away and {ANEW}",
) -> dict[str, Any]:
    """Return the dict in a JSON file, which is `what` in words.

    Raises InputError, which ends in `advice`, where it is none, empty, cut short, of another
    encoding, or nested without end.
    """
    try:
        text = stores.path(path).read_text(encoding="utf-8")
        found = json.loads(text)
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; {advice}") from error
    except OSError as error:
        raise InputError(f"{path} is not {what}: {of_system(error)}; {advice}") from error
    except (ValueError, RecursionError) as error:  # a wrong encoding is a ValueError, too
        reason = "it is nested without end"
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no text in UTF-8"
        elif isinstance(error, json.JSONDecodeError):
            place = f"line {error.lineno}, column {error.colno}: {error.msg}"
            reason = f"it is cut short or changed at {place}" if text.strip() else "it is empty"
        raise InputError(f"{path} is not {what}: {reason}; {advice}") from error
    if not isinstance(found, dict):
        reason = f"expected a JSON object, {{...}}, got {text.strip()[:20]!r}"
        raise InputError(f"{path} is not {what}: {reason}; {advice}")
    return found


def check_elsewhere(folder: str | os.PathLike[str]) -> None:
    """Raise InputError for the current folder, in whose place no folder can be put as a whole."""
    if stores.real(folder) == pathlib.Path.cwd():
        raise InputError(f"{folder} is the current folder: give the name of a new one")


@contextlib.contextmanager
def swapped(folder: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yield an empty folder to write into, which takes the place of `folder` when the body ends.

    All that was in `folder` goes. If the body raises, or `ending.let_go` is called, the new one
    vanishes, and `folder` stays as it was; if the process is killed, the next call sees to that.
    On a bucket files are replaced one by one (`stores.put_folder`).
    """
    folder = stores.path(folder)
    if stores.is_remote(folder):
        with _copied(folder, lambda name: True) as new:
            yield new
        return
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    ends = threading.Lock()  # held by what decides whether the new one vanishes or is swapped in

    def clear() -> None:
        ends.acquire()  # and keeps it: the process is about to end
        shutil.rmtree(new, ignore_errors=True)

    with writable(folder):
        if old.exists() and not folder.exists():  # of a call that was killed, as is what goes
            old.rename(folder)
        for rest in (new, old):
            shutil.rmtree(rest, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            with ending.removing(clear):
                yield new
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        with ends:
            if is_there := folder.exists():
                folder.rename(old)
            new.rename(folder)
            if is_there:
                old.rename(new)  # where nothing comes back from
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def exchanged(
    folder: str | os.PathLike[str], stale: Callable[[str], bool]
) -> Iterator[pathlib.Path]:
    """Yield an empty folder to write files into; they move to `folder` when the body ends.

    All of them move, or none.

    folder: made if need be. Files that have other names stay, but those that are stale.
    stale: says of a name in `folder` whether it is an earlier call's file, which goes.

    If the body raises, or a move fails, `folder` is as it was. If the process is killed, or a file
    cannot be moved back, the next call moves what it finds of the earlier files. On a bucket files
    are replaced one by one (`stores.put_folder`).
    """
    folder = stores.path(folder)
    if stores.is_remote(folder):
        with _copied(folder, stale) as new:
            yield new
        return
    new, old, there = folder / ".new.part", folder / ".old.part", folder.is_dir()
    with writable(folder):
        for file in [*old.iterdir()] if old.is_dir() else []:  # of a call that was killed
            if not (folder / file.name).exists():
                file.rename(folder / file.name)
        for rest in (new, old):
            shutil.rmtree(rest, ignore_errors=True)
        try:
            new.mkdir(parents=True)
            yield new
            old.mkdir()
            _exchange(folder, new, old, stale)
            new.rmdir()
            old.rename(new)  # where nothing comes back from
        finally:
            shutil.rmtree(new, ignore_errors=True)
            with contextlib.suppress(OSError):  # there is what could not be moved back
                old.rmdir()
            if not there:
                with contextlib.suppress(OSError):  # there is something in it
                    folder.rmdir()


@contextlib.contextmanager
def _copied(folder: pathlib.Path, stale: Callable[[str], bool]) -> Iterator[pathlib.Path]:
    """Yield an empty local folder, whose files are copied into one on a bucket at the end."""
    with writable(folder), scratch.folder() as new:
        yield new
        stores.put_folder(new, folder, stale)


def _exchange(
    folder: pathlib.Path, new: pathlib.Path, old: pathlib.Path, stale: Callable[[str], bool]
) -> None:
    """Move the files of `new` into `folder`, and those they replace, and stale ones, into `old`."""
    coming = sorted(path.name for path in new.iterdir())
    going = [path.name for path in folder.iterdir() if path.name in coming or stale(path.name)]
    moved: list[tuple[pathlib.Path, pathlib.Path]] = []
    try:
        for names, source, target in ((going, folder, old), (coming, new, folder)):
            for name in names:
                (source / name).rename(target / name)
                moved.append((source / name, target / name))
    except BaseException:
        for before, after in reversed(moved):
            with contextlib.suppress(OSError):  # on a failing disk the first error counts
                after.rename(before)
        raise
