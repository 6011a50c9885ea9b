"""Configs: FILE[:variant] -> a ConfigDict, with the keys that a command line changes, as --config.key=value."""

import functools
import os
import pathlib
import re
import sys
import traceback

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from evqgan.core import files
from evqgan.core.build import nearest
from evqgan.core.errors import InputError

# What holds the folder configs/ that comes with the code: the clone, or of an installed package a folder of its own.
PACKAGE = pathlib.Path(__file__).parents[1]
SHIPPED = PACKAGE.parent if (PACKAGE.parent / "configs" / "quickstart.py").is_file() else PACKAGE / "shipped"
NO_RUNS = ("common", "comparison")  # configs of the folder that cannot be trained
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")  # as config_flags reads them; "no" is for booleans
OPTIONAL = ("alarm", "best", "changed_data", "eval_batch_size", "init", "init_optimizer", "keep", "mesh")  # of a stage


def of_workdir(workdir):
    """The config of a workdir, and that workdir: of a quickstart's, its generator."""
    if not isinstance(workdir, str | os.PathLike):
        raise InputError(f"expected the path of a workdir, got {workdir!r}")
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").is_file() and (workdir / "generator" / "config.json").is_file():
        workdir = workdir / "generator"
    file = workdir / "config.json"
    if not file.is_file():
        raise InputError(
            f"{workdir} is no workdir: there is no {file}; train one with --config=FILE --workdir={workdir}"
        )
    from evqgan.core import schema  # brings JAX, which --help and wrong flags can do without

    config = ConfigDict(files.read_json(file))
    schema.check(config, str(file))
    return config, workdir


def of_tokenizer(workdir):
    """Return the config and the workdir of a tokenizer; `workdir` may be a quickstart's."""
    inner = pathlib.Path(workdir) / "tokenizer"
    config, place = of_workdir(inner if (inner / "config.json").is_file() else workdir)
    if config.stage != "stage1":
        raise InputError(
            f"encode needs the workdir of a tokenizer, or of a quickstart; {place} is of "
            f"{config.stage}"
        )
    return config, place


def default_workdir(file):
    """configs/quickstart.py:tiny -> workdirs/quickstart_tiny."""
    path, _, variant = file.partition(":")
    return str(pathlib.Path("workdirs") / "_".join(filter(None, [pathlib.Path(path).stem, variant])))


def find(name):
    """The path of a config: a file, or one that comes with the code, by its path in the clone or by its name alone."""
    path = pathlib.Path(name).expanduser()
    places = (SHIPPED, SHIPPED / "configs", SHIPPED / "configs" / "baselines")
    for found in (path, *(place / other for place in places for other in (name, f"{name}.py"))):
        if found.is_file():
            return found
    bare = path.parent == pathlib.Path(".") and path.suffix != ".py"
    near = [other for place in (places[1:] if bare else (path.parent,)) for other in place.glob("*.py")]
    there = sorted(other.stem if bare else str(other) for other in near if other.stem not in NO_RUNS)
    hint = nearest(path, there) if there else "expected the path of a file in configs/"
    raise InputError(f"there is no file {path}; {hint}")


def read_file(file):
    """FILE[:variant] -> its ConfigDict; InputError if there is none, or it raises. For FILE see `find`."""
    name, colon, variant = file.partition(":")
    try:
        path = find(name)
    except InputError as error:
        raise InputError(f"--config={file}: {error}") from error
    if str(SHIPPED) not in sys.path:
        sys.path.append(str(SHIPPED))  # configs import each other by that name
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["", f"--config={path}{colon}{variant}"])
        values(["", f"--config={path}{colon}{variant}"])
        config = values.config
        found = config is not None and "stage" in config and isinstance(config, ConfigDict)
    except Exception as error:  # whatever a user's file raises
        while error.__cause__ or error.__context__:  # absl and config_flags wrap it
            error = error.__cause__ or error.__context__
        reason = " ".join(str(error).split())
        if not isinstance(error, ValueError):
            lines = [f"line {x.lineno}, " for x in traceback.extract_tb(error.__traceback__) if x.filename == str(path)]
            reason = f"{''.join(lines[-1:])}{type(error).__name__}: {reason}"
        raise InputError(f"--config={file}: {reason}") from error
    if not found:
        raise InputError(f"--config={file}: expected its get_config() to return a ConfigDict with a stage")
    return config


def override(config, args):
    """Sets the keys of `config` that `args`, such as ["--config.seed=1", "--config.dtype", "bfloat16"], name.

    A section takes keys that its config does not mention: the constructor has their defaults, and names wrong ones.
    """
    keys = [found[1] for arg in args if (found := OVERRIDE.match(arg))]
    for key in keys:
        place(config, key)
    args = [arg for arg in args if not set_pair(config, arg)]
    before = {key: functools.reduce(lambda node, name: node[name], key.split("."), config) for key in keys}
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *args])
        extra = values(["", *args])[1:]
    except (flags.Error, TypeError, ValueError, KeyError, AttributeError) as error:
        wrong = re.match(r"flag --config\.(.*?)=(.*?): ", str(error), re.DOTALL)
        if not wrong or wrong[1] not in before:
            raise InputError(" ".join(str(error).split())) from error
        raise mistyped(wrong[1], before[wrong[1]], wrong[2]) from error
    for key, old in before.items():  # config_flags takes a tuple of anything
        new = functools.reduce(lambda node, name: node[name], key.split("."), config)
        if isinstance(old, tuple) and {type(x) for x in new} - {type(x) for x in old}:
            raise mistyped(key, old, new)
    replace_source(config, keys)
    if extra:
        raise InputError(f"expected flags as --name=value, got {extra[0]!r}")


def replace_source(config, keys):
    """A folder that the command line gives, by one of `keys`, takes the place of a config's data set, and it of one."""
    for key in keys:
        *sections, last = key.split(".")
        other = {"folder": "name", "name": "folder"}.get(last)
        if other and sections[-1:] == ["dataset"] and ".".join([*sections, other]) not in keys:
            node = functools.reduce(lambda node, name: node[name], sections, config)
            if node[last] and other in node:
                node[other] = ""


def set_pair(config, arg):
    """Sets a whole number to several, as in --config.dataset.size=32,48 -> whether `arg` is of this form."""
    found = re.fullmatch(r"--?config\.([\w.]+)=(\d+(?:,\d+)+)", arg)
    *sections, last = found[1].split(".") if found else [""]
    node = functools.reduce(lambda node, name: node[name], sections, config)
    if not found or not isinstance(node[last], int):
        return False
    with config.ignore_type():
        node[last] = tuple(map(int, found[2].split(",")))
    return True


def place(config, key):
    """Makes room in `config` for the dotted `key`; InputError if it can have none of that name."""
    *sections, last = key.split(".")
    node, where = config, "config"
    for i, name in enumerate([*sections, last]):
        stage = isinstance(node, ConfigDict) and "stage" in node and node.stage != "quickstart"
        known = {*node, *OPTIONAL} if stage else node
        if not isinstance(node, ConfigDict):
            raise InputError(f"--config.{key}: {where} is {node!r}, which has no keys")
        if name not in node:
            closed = "stage" in node or i < len(sections) or not name.isidentifier()
            if closed and (name not in OPTIONAL or not stage):
                below = [f"{part}.{name}" for part in node if isinstance(node[part], ConfigDict) and name in node[part]]
                hint = f"did you mean {' or '.join(map(repr, below))}?" if below else nearest(name, known)
                raise InputError(f"{where} has no key {name!r}: {hint}")
            with config.unlocked():
                node[name] = ConfigDict() if i < len(sections) else config_dict.placeholder(object)
        node, where = node[name], f"{where}.{name}"


def mistyped(key, old, new):
    kind = "a dict" if isinstance(old, ConfigDict) else f"a value of type {type(old).__name__}, such as {old!r}"
    return InputError(f"--config.{key} expects {kind}, got {new!r}")
