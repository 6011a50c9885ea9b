"""The exceptions that end a run in one line; and what others say, in a line."""

import errno
import os
import pathlib
import re
from collections.abc import Sequence

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # what XLA's message begins with
LESS_MEMORY = (
    "take fewer images at a time (--batch_size, config.eval_batch_size), or train with "
    "config.generator.remat=True or config.tokenizer.encoder.remat=True, which a run that goes on "
    "may change, too; for a new run also config.optimizer.accumulate or a smaller "
    "config.batch_size; XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 in the environment gives JAX more of a "
    "GPU than three quarters; --compile_only says what fits"
)


class InputError(ValueError):
    """What a user typed or supplied cannot be used.

    The message is one line: what was expected, what came, and what to do. A command line prints it
    without a traceback and exits with code 2; other exceptions are defects and show theirs.
    """

    def __init__(self, message: str = "") -> None:
        """message: what it says; lines of it are joined."""
        super().__init__(re.sub(r"\s*\n\s*", " ", message))


class NoModule(InputError):
    """A config names a module of this package that is not there. file: the path of that module."""

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


class ContractError(InputError):
    """A module that was added does not give what its folder asks of it; the message says what."""


class NonFinite(RuntimeError):
    """Metrics were NaN or infinite for many steps in a row: training cannot go on. Exit code 1."""


class DoesNotFit(RuntimeError):
    """A program that was only compiled needs more memory than a device has. Exit code 1."""


class OutOfMemory(InputError):
    """A device has not enough memory for so many images at a time. Exit code 1."""


class Unfit(DoesNotFit):
    """A machine has failed checks of what is asked of it. Exit code 1."""


def shown(value: object) -> str:
    """Return what somebody gave, as a message shows it: as in Python, at most 200 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def cut(text: str, letters: int) -> str:
    """Return a text in at most so many letters: of a longer one the beginning, and "..."."""
    return text if len(text) <= letters else f"{text[: letters - 3]}..."


def size_text(size: Sequence[int]) -> str:
    """Return a size (H, W) as messages have it, width first: "64x64", "64x32 (width x height)"."""
    height, width = size
    return f"{width}x{height}" + ("" if width == height else " (width x height)")


def of_system(error: OSError) -> str:
    """Return what the operating system says, in words: a file in the way of a folder is named."""
    reason, path = error.strerror or str(error) or type(error).__name__, error.filename2
    path = path or error.filename
    if not isinstance(path, str | os.PathLike):
        return reason
    path = pathlib.Path(path)
    if link := leads_nowhere(path):
        return link
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        there = next((place for place in (path, *path.parents) if place.exists()), path)
        return reason if there.is_dir() else f"expected a folder, but {there} is a file"
    return f"expected a file, but {path} is a folder" if error.errno == errno.EISDIR else reason


def leads_nowhere(path: str | os.PathLike[str]) -> str:
    """Return "PATH is a link to ..., which is not there" of a local path that is one, or in one.

    Else "". Of links that form a loop it says so.
    """
    places = (pathlib.Path(path), *pathlib.Path(path).parents)
    link = next((x for x in places if os.path.islink(x) and not os.path.exists(x)), None)
    if link is None:
        return ""
    ends = "which is not there"
    try:
        link.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            ends = "and so on in a loop"
        elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return ""  # it may be there: the system says what keeps from it
    return f"{link} is a link to {os.readlink(link)}, {ends}"


def system_number(error: BaseException | None) -> int:
    """Return the operating system's number of an error, or of what it was raised from; else 0.

    TensorStore's exceptions have that number in their text alone.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(found[1])
        error = error.__cause__
    return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether XLA says that a program, or an array, does not fit a device."""
    return str(error).startswith(OUT_OF_MEMORY) and isinstance(error, RuntimeError)


def out_of_memory(reason: str = "") -> str:
    """Return the line that says what to do where a device's memory is full. reason: XLA's."""
    why = f" ({reason})" if reason else ""
    return f"a device has not enough memory for this{why}: {LESS_MEMORY}"


def first_line(error: BaseException) -> str:
    """Return the first line that an exception of another library says, and its last cause.

    The cause is that of `raise ... from cause`. Each has at most 300 characters, and of a
    `KeyError` is not in quotes; of an exception that says nothing it is the name.
    """
    said, cause = _first_line(error), error
    while cause.__cause__ is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    why = _first_line(cause)
    return said if why in said else f"{said}: {why}"


def _first_line(error: BaseException) -> str:
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return (lines[0].rstrip(":") if lines else type(error).__name__)[:300]
