"""How a run of both stages was begun: by which config file, and with which of its keys.

Its workdir has a config for each stage, and none of both. So that it goes on by its workdir alone,
as a run of one stage does, quickstart.json there says {"config": FILE, "keys": [...]}.
"""

import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from evqgan.core import config_files, exported, files, stores
from evqgan.core.errors import InputError

# How the run was begun, and what was proposed for a folder of images (`evqgan.own_images`).
FILE, PLAN = exported.BOTH
# Keys of one command, not of the run.
OF_ONE = re.compile(r"--config\.((tokenizer|generator)\.)?(changed_data|resume)=")
LENGTH = re.compile(r"--config\.((tokenizer|generator)\.)?duration=")


class Command(NamedTuple):
    """The config file of a run, as --config names it, and keys, as "--config.KEY=VALUE"."""

    file: str
    keys: tuple[str, ...]

    def with_keys(self, keys: Sequence[str]) -> "Command":
        """Return it with further keys, in the place of those of their names."""
        names = {key.partition("=")[0] for key in keys}
        others = [key for key in self.keys if key.partition("=")[0] not in names]
        return self._replace(keys=(*others, *keys))

    def config(self, workdir: pathlib.Path) -> ConfigDict:
        """Return the config, with the durations that the stages in `workdir` have by now.

        Raises InputError for a file that does not ship: a workdir may come from somebody else, and
        reading it runs no code but the package's own.
        """
        if not ships(self.file):
            given = shlex.join([f"--config={self.file}", *self.keys])
            raise InputError(
                f"{workdir} was begun with a config file that does not ship, which is run only "
                f"where it is given: add {given}"
            )
        there = {part: workdir / part / "config.json" for part in exported.PARTS}
        config, keys = config_files.read_file(self.file), list(self.keys)
        is_of_folder = "duration" in config  # of both stages, which `own_images` keeps
        if is_of_folder and there["generator"].is_file():
            keys = [key for key in keys if not LENGTH.match(key)]
        config_files.override(config, keys)
        for part, file in there.items():
            if not is_of_folder and file.is_file():
                config[part].duration = files.read_json(file)["duration"]
        return config


def ships(file: str) -> bool:
    """Return whether --config=`file` names a config of this package, whichever way."""
    path = stores.real(config_files.find(file.partition(":")[0]))
    return path.is_relative_to(stores.real(config_files.SHIPPED / "configs"))


def save(workdir: pathlib.Path, command: Command) -> None:
    """Write how the run in a workdir was begun."""
    lasting = [key for key in command.keys if not OF_ONE.match(key)]
    files.save_json(workdir / FILE, {"config": command.file, "keys": lasting})


def read(workdir: pathlib.Path) -> Command | None:
    """Return how the run of both stages in a workdir was begun, None where nothing says so."""
    file = workdir / FILE
    if not file.is_file():
        return None
    found = files.read_json(file, "how both stages were begun")
    name, keys = found.get("config"), found.get("keys")
    if not isinstance(name, str) or not isinstance(keys, list) or not all(map(is_key, keys)):
        raise InputError(f"{file} is changed: bring back a whole one, or give --config=FILE")
    return Command(name, tuple(keys))


def going_on(workdir: pathlib.Path) -> ConfigDict | None:
    """Return the config with which training in a workdir goes on that has no config of its own.

    None where it holds no run of both stages. Raises InputError where nothing says how that was
    begun.
    """
    if command := read(workdir):
        return command.config(workdir)
    if (workdir / "tokenizer" / "config.json").is_file():
        raise InputError(
            "--config=FILE is needed to train, or to compile it: that which both stages in "
            f"{workdir} were begun with, and its keys, as there is no {FILE} that says them"
        )
    return None


def is_key(text: object) -> bool:
    """Return whether a text is a key of the config as the command line has it."""
    return isinstance(text, str) and bool(config_files.OVERRIDE.match(text))
