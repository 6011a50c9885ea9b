"""JAX's persistent compilation cache: where it lies, and what removes entries cut off in writing.

JAX writes an entry in place and never writes one that is there: without this, a full disk or a kill
would leave a truncated entry that every later start warns of, and compiles in vain.
"""

import dataclasses
import os
import pathlib
import re
import warnings
import zlib
from collections.abc import Callable
from typing import Any

from evqgan.core import progress, stores

CACHE = "~/.cache/evqgan/jax"  # ours: where compiled programs are kept
# What `jax/_src/compiler.py` warns of: the reading comes before it compiles and writes anew.
MESSAGE = r"Error (reading|writing) persistent compilation cache entry for '(.*?)': (.*)"
ZSTD = b"\x28\xb5\x2f\xfd"  # how the entries begin that JAX writes where zstandard is installed


def enable() -> None:
    """Keep compiled programs on disk: in JAX_COMPILATION_CACHE_DIR, or CACHE."""
    import jax

    folder = os.path.expanduser(os.environ.get("JAX_COMPILATION_CACHE_DIR", CACHE))
    jax.config.update("jax_compilation_cache_dir", folder)
    # JAX keeps what took a second; a state is drawn by hundreds that take less.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    watch(folder)


def watch(folder: str) -> None:
    """Have what JAX warns of the programs that it keeps in a folder be mended, and said in a line.

    It lasts as long as the process, or until the next call.
    """
    warnings.filterwarnings("always", message=MESSAGE.partition("(")[0])
    show = warnings.showwarning
    warnings.showwarning = _Watch(folder, show.show if isinstance(show, _Watch) else show)


@dataclasses.dataclass
class _Watch:
    """Stands in for `warnings.showwarning`: all other warnings go to `show`."""

    folder: str
    show: Callable[..., None]
    told: set[str] = dataclasses.field(default_factory=set)

    def __call__(self, message: Warning | str, *where: Any, **more: Any) -> None:
        found = re.match(MESSAGE, str(message), re.DOTALL)
        if not found or stores.is_remote(self.folder):
            self.show(message, *where, **more)
            return
        task, name, why = found.groups()
        removed = remove_damaged(pathlib.Path(self.folder), name)
        if task == "reading" and removed:
            text = f"the kept program {name} in {self.folder} was cut off when it was written"
            progress.say(f"{text}: it is removed, and compiled and kept anew")
            return
        kept = "read or kept" if task == "reading" else "kept"
        reason = " ".join(why.split())[:200]
        text = f"compiled programs cannot be {kept} in {self.folder} ({reason})"
        advice = "each start compiles them; JAX_COMPILATION_CACHE_DIR=DIR keeps them elsewhere"
        if task not in self.told:  # of a full disk there would be hundreds
            progress.warn(f"{text}: {advice}")
        self.told.add(task)


def remove_damaged(folder: pathlib.Path, name: str) -> int:
    """Remove the truncated entries of a program; return how many they were.

    name: of the program, "jit_step" for the files jit_step-HASH-cache.
    """
    removed = 0
    try:
        for file in folder.iterdir():
            ours = file.name.startswith(f"{name}-") and file.name.endswith("-cache")
            if ours and is_damaged(file.read_bytes()):
                file.unlink()
                removed += 1
    except OSError:  # another process has removed it, or the folder cannot be written
        return removed
    return removed


def is_damaged(entry: bytes) -> bool:
    """Return whether an entry cannot be decompressed to its end."""
    if entry.startswith(ZSTD):
        try:
            import zstandard
        except ImportError:  # JAX neither reads nor writes such entries here
            return False
        try:
            zstandard.ZstdDecompressor().decompress(entry)
        except zstandard.ZstdError:
            return True
        return False
    try:
        zlib.decompress(entry)
    except zlib.error:
        return True
    return False
