"""The shell command that makes what a tab of the page has made."""

import hashlib
import shlex
from collections.abc import Mapping
from typing import Any

from evqgan.core import exported

PROGRAM = "python -m evqgan.main"


def command(workdir: str, mode: str, flags: Mapping[str, Any], *more: str) -> str:
    """Return a command line.

    flags: {name: value}; one that is None is left out. more: whole arguments.

    Its --out is a folder for these settings alone, so that nothing else is replaced.
    """
    given = {"workdir": workdir, "mode": mode, **flags}
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    words += [word for word in more if word]
    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
    out = exported.results(workdir) / f"page_{digest}"
    return " ".join([PROGRAM, *map(shlex.quote, [*words, f"--out={out}"])])


def settings(changes: Mapping[str, Any]) -> list[str]:
    """Return changes to config.sample as arguments."""
    return [f"--config.sample.{key}={value}" for key, value in changes.items()]
