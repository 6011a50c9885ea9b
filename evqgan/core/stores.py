"""Object stores: gs:// in the place of a folder, as a path with the methods of pathlib's.

A store has objects, which appear whole or not at all, and no folders, renames or locks. What that
changes is here and in `core.lease`, `core.mirror` and `core.bucket_retries`; all else takes a
`path` of either kind. The libraries below retry what fails for a moment (429, 5xx, a dropped
connection), with longer and longer waits.
"""

import contextlib
import datetime
import functools
import importlib.util
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from evqgan.core import bucket_retries, scratch
from evqgan.core.errors import InputError, first_line

Where = str | os.PathLike[str]
SCHEME, PACKAGE = "gs", "gcsfs"  # the store that orbax writes checkpoints into; what reads it
URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")  # of two slashes pathlib drops one
NAMES = "hf"  # no store, but names of models, which `exported.find` looks up
# Packages whose exceptions say that a store cannot be reached, or refuses.
LIBRARIES = ("gcsfs", "google", "aiohttp")
# What TensorStore, whose exceptions are Python's own, says when it has given up.
GAVE_UP = re.compile(r"\bUNAVAILABLE\b|retry attempts failed")
REFUSED = re.compile(r"\b40[13]\b|[Ff]orbidden|[Aa]nonymous|[Cc]redential|Access ?Denied")
LOGIN = (
    "log in by `gcloud auth application-default login`, or give the machine's account the roles "
    "storage.objectUser and storage.legacyBucketReader of the bucket"
)


def is_remote(where: Where) -> bool:
    """Return whether a path is a URL, such as gs://bucket/run, and no local path or name."""
    found = URL.match(os.fspath(where))
    return found is not None and found[1] != NAMES


def path(where: Where) -> pathlib.Path:
    """Return a path: a pathlib.Path, or of a bucket an epath.Path, which has its methods.

    Raises InputError for a URL of another kind, and where the package that reads it is missing.
    """
    found = URL.match(os.fspath(where))
    if not found or found[1] == NAMES:
        return pathlib.Path(where)
    scheme, rest = found.groups()
    if scheme != SCHEME or not rest:
        known = f"{SCHEME}://BUCKET/..."
        raise InputError(f"{scheme}://{rest} cannot be used: expected a local path, or {known}")
    if importlib.util.find_spec(PACKAGE) is None:
        raise InputError(
            f"{scheme}://{rest} needs the package {PACKAGE}, which is not installed: "
            f"`pip install {PACKAGE}` installs it"
        )
    from etils import epath  # here, as --help can do without

    _prepare()
    return cast(pathlib.Path, epath.Path(f"{scheme}://{rest}".rstrip("/")))


def absolute(where: Where) -> pathlib.Path:
    """Return a path from the root on, without "..", which TensorStore and orbax refuse.

    Where ".." follows a link to a folder it is the parent of that folder, as for the system.
    """
    if is_remote(where):
        return path(where)
    found = pathlib.Path(where).absolute()
    return real(found) if ".." in found.parts else found


def beginning(where: Where) -> str:
    """Return what a message adds on a relative path that is not there, to what it is relative.

    "" of any other path. A config keeps a path as it was given, as all may move together.
    """
    if not os.fspath(where) or is_remote(where) or os.path.isabs(os.path.expanduser(where)):
        return ""
    here = f"in {os.getcwd()}, where this command was given and relative paths begin"
    return f" {here} (a run goes on in the folder where it was started)"


def real(where: str | os.PathLike[str]) -> pathlib.Path:
    """Return a local path, absolute and without links. Where links form a loop it keeps them.

    `Path.resolve` raises RuntimeError there before Python 3.13, which nobody expects of a path.
    """
    return pathlib.Path(os.path.realpath(where))


def same(one: Where, other: Where) -> bool:
    """Return whether two paths are the same place."""
    if is_remote(one) or is_remote(other):
        return is_remote(one) and is_remote(other) and path(one) == path(other)
    return real(one) == real(other)


@functools.cache
def _prepare() -> None:
    """Have the libraries list a bucket anew each time, and use its plain interface.

    They keep what they have listed for ever, and other processes write there, too.
    """
    import fsspec

    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # would ask by gRPC first
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it logs, it raises, too
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    bucket_retries.outlast()


def require_bucket(where: Where) -> None:
    """Raise InputError for a remote path whose bucket is not there."""
    if is_remote(where) and not path(f"{SCHEME}://{bucket_of(where)}").exists():
        raise InputError(f"{os.fspath(path(where))}: {no_bucket(where)}")


def no_bucket(where: Where) -> str:
    """Return what is said of a remote path whose bucket is not there."""
    name = f"{SCHEME}://{bucket_of(where)}"
    return f"there is no bucket {name}; `gcloud storage buckets create {name}` makes it"


def bucket_of(where: Where) -> str:
    """Return the name of the bucket of a remote path."""
    return os.fspath(where).partition(":")[2].strip("/").partition("/")[0]


def system(where: Where) -> Any:
    """Return the fsspec file system of a remote path."""
    import fsspec

    return fsspec.core.url_to_fs(os.fspath(path(where)))[0]


def kvstore(folder: Where) -> Any:
    """Return the TensorStore key-value store of the files below a folder, local or remote."""
    import tensorstore

    if is_remote(folder):
        return tensorstore.KvStore.open(f"{os.fspath(path(folder))}/").result()
    return tensorstore.KvStore.open({"driver": "file", "path": f"{absolute(folder)}/"}).result()


def is_saved(checkpoint: pathlib.Path) -> bool:
    """Return whether orbax has finished to save a checkpoint, which has its final name."""
    # It is renamed to that name, but on a bucket, where a file is put into it last.
    return not is_remote(checkpoint) or (checkpoint / "commit_success.txt").is_file()


def move(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Move a folder to a place where there is none, on a bucket file by file."""
    if is_remote(folder):
        system(folder).mv(os.fspath(folder), os.fspath(target), recursive=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)


@contextlib.contextmanager
def as_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a folder to write into: the given one, or of a bucket one that is copied at the end."""
    if not is_remote(folder):
        yield folder
        return
    with scratch.folder() as copy:
        yield copy
        for file in copy.rglob("*"):
            if file.is_file():
                put(file, folder / file.relative_to(copy).as_posix())


class Stamp(NamedTuple):
    """The size of a file in bytes, and when it was changed, in seconds."""

    size: int
    time: float


def stamp(file: Where) -> Stamp:
    """Return size and time of a file; OSError if there is none."""
    if not is_remote(file):
        found = os.stat(file)
        return Stamp(found.st_size, found.st_mtime)
    about = system(file).info(os.fspath(file))
    changed = about.get("mtime")  # a folder has none
    is_date = isinstance(changed, datetime.datetime)
    return Stamp(about["size"] or 0, changed.timestamp() if is_date else 0.0)


@contextlib.contextmanager
def as_file(file: Where) -> Iterator[pathlib.Path]:
    """Yield a local file: the given one, or of a bucket a copy that lasts as long as the body."""
    if not is_remote(file):
        yield pathlib.Path(file)
        return
    with scratch.folder() as folder:
        copy = folder / path(file).name
        fetch(file, copy)
        yield copy


def fetch(file: Where, copy: pathlib.Path) -> None:
    """Copy a remote file to a local one; OSError if there is none."""
    system(file).get_file(os.fspath(path(file)), os.fspath(copy))


def put(copy: pathlib.Path, file: Where) -> None:
    """Copy a local file to a remote one, which appears whole or not at all."""
    system(file).put_file(os.fspath(copy), os.fspath(path(file)))


def put_folder(copy: pathlib.Path, folder: Where, stale: Callable[[str], bool]) -> None:
    """Copy the files of a local folder to a remote one, many at a time; then remove others there.

    It is done object by object: who reads meanwhile sees some of the new files and some old ones.
    stale: says of the name of another file there whether it goes.
    """
    there, target = system(folder), os.fspath(path(folder))
    names = sorted(file.name for file in copy.iterdir())
    before = [x.name for x in path(folder).iterdir()] if path(folder).is_dir() else []
    if names:
        there.put([f"{copy}/{name}" for name in names], [f"{target}/{name}" for name in names])
    if old := [name for name in before if name not in names and stale(name)]:
        there.rm([f"{target}/{name}" for name in old])


def is_failure(error: BaseException) -> bool:
    """Return whether an exception is of a library that talks to a store."""
    return type(error).__module__.split(".")[0] in LIBRARIES


def reason(error: BaseException, where: Where) -> str:
    """Return in words what a store said, and what to do where it refuses."""
    if isinstance(error, FileNotFoundError) and is_remote(where):  # of a file that is written
        return no_bucket(where)
    said = first_line(error)
    return f"{said}; {LOGIN}" if REFUSED.search(said) and is_remote(where) else said


def is_outage(error: BaseException) -> bool:
    """Return whether a bucket that does not answer is behind an exception, and no refusal.

    The same command goes on when the bucket is back: there is nothing for the user to mend.
    """
    if PACKAGE not in sys.modules:  # no bucket was asked
        return False
    import requests
    from gcsfs.retry import is_retriable

    found: BaseException | None = error
    while found:  # ours, and orbax's, say in their words what a library has said
        said = str(found)
        of_download = isinstance(found, requests.RequestException)  # of a file that is no bucket's
        is_silent = is_retriable(found) and not (of_download or REFUSED.search(said))
        if is_silent or isinstance(found, TimeoutError) or GAVE_UP.search(said):
            return True
        found = found.__cause__
    return False
