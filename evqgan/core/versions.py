"""What a run was made with, kept beside its config.

It is this code, Python, and the libraries that decide its numbers.
"""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess

from evqgan.core import files, stores
from evqgan.core.errors import InputError

PACKAGE = pathlib.Path(__file__).parent.parent
# Ours: what can matter.
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
UNREADABLE = (InputError, KeyError, TypeError, ValueError, IndexError)


def code() -> str:
    """Return a hash of the package's Python files, 12 hex digits, wherever it lies."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_bytes().replace(b"\r\n", b"\n")  # git may have written Windows' line ends
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def commit() -> str:
    """Return the commit of the clone that the package lies in, or "".

    An example is "3da3a48", or "3da3a48-dirty" where files were changed since.
    """
    if not (PACKAGE.parent / ".git").exists():
        return ""
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):  # no git, or a slow disk: `code` tells as much
        return ""


def now() -> dict[str, str]:
    """Return {name: version} of the code and of all that is named above."""
    found = {"code": code(), "commit": commit(), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def note(workdir: str | os.PathLike[str], step: int) -> str:
    """Note in versions.json what a run is made with from `step` on.

    The file holds a list under "legs", which gets a row whenever a version has changed. Returns a
    line for the log if one has, else "".
    """
    file, here = stores.path(workdir) / "versions.json", now()
    try:
        legs = files.read_json(file)["legs"] if file.exists() else []
        before = dict(legs[-1]) if legs else here
    except UNREADABLE:  # nothing depends on the file: it starts again
        legs, before = [], here
    changes = [
        f"{name} {before.get(name) or 'unknown'}, now {x}"
        for name, x in here.items()
        if before.get(name) != x
    ]
    if not legs or changes:
        files.save_json(file, {"legs": [*legs, {"step": step, **here}]})
    return f"goes on under other versions than before: {'; '.join(changes)}" if changes else ""
