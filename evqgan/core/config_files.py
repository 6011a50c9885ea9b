"""Configs: FILE[:variant] as a ConfigDict, with the keys that a command line changes."""

import functools
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from evqgan.core import exported, kinds, stores
from evqgan.core.build import config_of, suggestion
from evqgan.core.errors import InputError

# What holds the folder configs/ that comes with the code: the clone, or of an installed package a
# folder of its own.
PACKAGE = pathlib.Path(__file__).parents[1]
_IN_CLONE = (PACKAGE.parent / "configs" / "quickstart.py").is_file()
SHIPPED = PACKAGE.parent if _IN_CLONE else PACKAGE / "shipped"
NO_RUNS = ("common", "comparison")  # configs of the folder that cannot be trained
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")  # as config_flags reads them; "no": booleans
# Keys whose texts are paths.
PATHS = ("folder", "data_dir", "codes", "weights", "init", "reference")
OPTIONAL = (  # keys that a stage's config may lack
    "alarm",
    "best",
    "changed_data",
    "eval_batch_size",
    "init",
    "init_optimizer",
    "keep",
    "mesh",
    "resume",
    "stall",
)


def of_workdir(workdir: str | os.PathLike[str]) -> tuple[ConfigDict, pathlib.Path]:
    """Return the config of a workdir, and that workdir: of a quickstart's, its generator.

    workdir: its path, or that of an exported model, or the name of one that ships or is public.
    """
    if not isinstance(workdir, str | os.PathLike) or not os.fspath(workdir):
        raise InputError(f"expected the path of a workdir, got {workdir!r}")
    workdir = exported.find(workdir)
    inner, file = workdir / "generator", workdir / "config.json"
    if not file.is_file() and (inner / "config.json").is_file():
        workdir, file = inner, inner / "config.json"
    if not file.is_file():
        raise InputError(exported.no_workdir(workdir))
    return _read(workdir, exported.PARTS[::-1]), workdir


def _read(folder: pathlib.Path, parts: Sequence[str]) -> ConfigDict:
    """Return the config in a folder; of an exported model, the first of `parts` that it has."""
    from evqgan.core import schema  # brings JAX, which --help and wrong flags can do without

    found = exported.read_config(folder)
    if found.get("stage") == exported.STAGE:
        found = next(x for name in parts if (x := exported.part_of(found, name, folder)))
    config = of_json(found, folder / "config.json")
    with config_of(folder):
        schema.check(config, f"{folder / 'config.json'}: config")
    return config


def of_json(found: dict[str, Any], file: os.PathLike[str]) -> ConfigDict:
    """Return the config that a config.json holds, its paths expanded; errors name the file."""
    try:
        config = ConfigDict(found)
        expand_paths(config)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except ValueError as error:  # a key with a dot, which is none of a config
        raise InputError(f"{file} is not the config that training writes: {error}") from None
    return config


def of_tokenizer(workdir: str | os.PathLike[str]) -> tuple[ConfigDict, pathlib.Path]:
    """Return the config and the workdir of a tokenizer.

    workdir: may be a quickstart's, or an exported model of any kind, or the name of a model.
    """
    inner = exported.find(workdir) / "tokenizer"
    config, folder = of_workdir(inner if (inner / "config.json").is_file() else workdir)
    if exported.is_one(folder):
        return _read(folder, exported.PARTS[:1]), folder
    if config.stage != "stage1":
        theirs = f" of the tokenizer {config.tokenizer.weights}"
        wish = "give the workdir of a tokenizer, or one that holds both stages"
        raise InputError(f"{folder} holds a generator{theirs}: {wish}")
    return config, folder


def default_workdir(file: str) -> str:
    """Return workdirs/quickstart_tiny for configs/quickstart.py:tiny."""
    path, _, variant = file.partition(":")
    name = "_".join(filter(None, [pathlib.Path(path).stem, variant]))
    return str(pathlib.Path("workdirs", name))


def find(name: str) -> pathlib.Path:
    """Return the path of a config.

    name: the path of a file; or that of one that comes with the code, in the clone; or its name.
    """
    path = pathlib.Path(name).expanduser()
    places = (SHIPPED, SHIPPED / "configs", SHIPPED / "configs" / "baselines")
    for found in (path, *(place / other for place in places for other in (name, f"{name}.py"))):
        if found.is_file() and found.suffix == ".py":
            return found
    if path.exists():
        raise InputError(_no_config(path))
    bare = path.parent == pathlib.Path(".") and path.suffix != ".py"
    folders = places[1:] if bare else (path.parent,)
    near = [
        other
        for folder in folders
        for other in folder.glob("*.py")
        if other.stem not in NO_RUNS and not other.stem.startswith("_")
    ]
    there = sorted(other.stem if bare else str(other) for other in near)
    hint = "expected the path of a file in configs/"
    if there:  # folders and suffixes make no two alike
        hint = suggestion(path, there, lambda other: pathlib.Path(other).stem)
    raise InputError(f"there is no file {path}; {hint}")


def _no_config(path: pathlib.Path) -> str:
    """Return what is said of a path that is taken for a config and is no Python file."""
    is_config = path.name == "config.json"
    workdir = path.parent if is_config else path
    if any((folder / "config.json").is_file() for folder in (workdir, workdir / "generator")):
        what = "what a run was trained with" if is_config else "a workdir"
        return f"expected a Python file, but {path} is {what}: give --workdir={workdir}"
    what = "a folder" if path.is_dir() else "none"
    near = sorted(str(other) for other in path.glob("*.py")) if path.is_dir() else []
    example = near[0] if near else "configs/quickstart.py"
    return f"expected a Python file, but {path} is {what}: give a file such as {example}"


def read_file(file: str) -> ConfigDict:
    """Return the config of FILE[:variant]; InputError if there is none, or it raises.

    FILE: see `find`.
    """
    name, colon, variant = file.partition(":")
    try:
        path = find(name)
    except InputError as error:
        raise InputError(f"--config={file}: {error}") from error
    if str(SHIPPED) not in sys.path:
        sys.path.append(str(SHIPPED))  # configs import each other by that name
    values, argv = flags.FlagValues(), ["", f"--config={path}{colon}{variant}"]
    try:
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        values(argv)
        config = values.config
        found = config is not None and "stage" in config and isinstance(config, ConfigDict)
    except Exception as error:  # whatever a user's file raises
        if (cause := _cause(error)) and getattr(cause, "name", "") == "get_config":
            raise InputError(
                f"--config={file}: {path} is no config, but maybe a helper of configs: it has no "
                "get_config(); give a file such as configs/quickstart.py"
            ) from error
        raise InputError(f"--config={file}: {_reason(error, str(path))}") from error
    if not found:
        what = "its get_config() to return a ConfigDict with a stage"
        raise InputError(f"--config={file}: expected {what}")
    return config


def _reason(error: BaseException, path: str) -> str:
    """Return in one line what went wrong in the config file at `path`."""
    error = _cause(error)
    reason = " ".join(str(error).split())
    if isinstance(error, ValueError):
        return reason
    trace = traceback.extract_tb(error.__traceback__)
    lines = [f"line {x.lineno}, " for x in trace if x.filename == path]
    return f"{''.join(lines[-1:])}{type(error).__name__}: {reason}"


def _cause(error: BaseException) -> BaseException:
    """Return what an exception was first; absl and config_flags wrap it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def at(config: ConfigDict, keys: Sequence[str]) -> Any:
    """Return what lies below the keys of sections, the outermost first."""
    return functools.reduce(lambda node, name: node[name], keys, config)


def override(config: ConfigDict, args: Sequence[str]) -> None:
    """Set the keys of `config` that the arguments name.

    args: such as ["--config.seed=1", "--config.dtype", "bfloat16"]. A section takes keys that its
        config does not mention: the constructor has their defaults, and names wrong ones.
    """
    keys = [found[1] for arg in args if (found := OVERRIDE.match(arg))]
    for key in keys:
        make_room(config, key)
        below = [other for other in keys if other.startswith(f"{key}.")]
        if below and {f"--config.{key}=None", f"-config.{key}=None"} & {*args}:
            raise InputError(f"--config.{key}=None leaves no section for --config.{below[0]}")
    args = [arg for arg in args if not set_otherwise(config, arg)]
    before = {key: at(config, key.split(".")) for key in keys}
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *args])
        extra = values(["", *args])[1:]
    except (flags.Error, TypeError, ValueError, KeyError, AttributeError) as error:
        wrong = re.match(r"flag --config\.(.*?)=(.*?): ", str(error), re.DOTALL)
        if not wrong or wrong[1] not in before:
            raise InputError(" ".join(str(error).split())) from error
        *sections, last = wrong[1].split(".")
        kind = at(config, sections).get_type(last)
        raise mistyped(wrong[1], before[wrong[1]], wrong[2], kind) from error
    for key, old in before.items():  # config_flags takes a tuple of anything
        new = at(config, key.split("."))
        if isinstance(old, tuple) and isinstance(new, tuple):
            if old and {type(x) for x in new} - {type(x) for x in old}:
                raise mistyped(key, old, new)
            *sections, last = key.split(".")
            at(config, sections)[last] = without_commas(new)
    replace_source(config, keys)
    expand_paths(config)
    if extra:
        raise InputError(f"expected flags as --name=value, got {extra[0]!r}")


def without_commas(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a list in which ("a,b",), as config_flags reads --config.KEY=a,b, is ("a", "b")."""
    if len(values) == 1 and isinstance(values[0], str):
        return tuple(part.strip() for part in values[0].split(","))
    return values


def expand_paths(config: ConfigDict) -> None:
    """Make "~" the home folder in every path of `config`, those of its sections included."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            expand_paths(value)
        elif key in PATHS and isinstance(value, str):
            if key == "folder" and stores.is_remote(value):
                raise InputError(
                    f"config.dataset.folder = {value} cannot be read: image files on a bucket take "
                    "a request each; copy them here, or prepare record files (docs/data.md)"
                )
            if value.startswith("~"):
                config[key] = os.path.expanduser(value)


def replace_source(config: ConfigDict, keys: Sequence[str]) -> None:
    """Make --config.dataset.folder replace the config's dataset.name, and the other way round.

    keys: the dotted keys that the command line has set.
    """
    for key in keys:
        *sections, last = key.split(".")
        other = {"folder": "name", "name": "folder"}.get(last)
        if other and sections[-1:] == ["dataset"] and ".".join([*sections, other]) not in keys:
            node = at(config, sections)
            if node[last] and other in node:
                node[other] = ""


def set_otherwise(config: ConfigDict, arg: str) -> bool:
    """Set a key to what config_flags refuses in place of its value, see `kinds.otherwise`.

    Returns whether the argument is of this form.
    """
    found = re.fullmatch(r"--?config\.([\w.]+)=(.*\S)\s*", arg)
    if not found:
        return False
    *sections, last = found[1].split(".")
    node = at(config, sections)
    value = kinds.otherwise(node[last], found[2])
    if value is not None:
        with config.ignore_type():
            node[last] = value[0]
    return value is not None


def make_room(config: ConfigDict, key: str) -> None:
    """Add a dotted key that `config` lacks, without a value; InputError if it cannot have it.

    A list or None, as a config.json has them, gets a type that config_flags can set.
    """
    names = key.split(".")
    node, where = config, "config"
    for i, name in enumerate(names):
        if not isinstance(node, ConfigDict):
            raise InputError(f"--config.{key}: {where} is {node!r}, which has no keys")
        if name not in node:
            inner = i < len(names) - 1
            check_new(node, name, where, inner, [] if node is config else [*config])
            with config.unlocked():
                node[name] = ConfigDict() if inner else config_dict.placeholder(object)
        elif i == len(names) - 1 and node.get_type(name) in (list, type(None)):
            new = config_dict.placeholder(object) if node[name] is None else tuple(node[name])
            with config.unlocked():
                del node[name]
                node[name] = new
        node, where = node[name], f"{where}.{name}"


def check_new(
    node: ConfigDict, name: str, where: str, inner: bool, above: Sequence[str] = ()
) -> None:
    """Raise InputError if a section can have no new key of that name.

    where: the section in words.
    inner: whether the key is to be a section.
    above: keys of the whole config, where the section is a part of it.
    """
    stage = "stage" in node and node.stage != "quickstart"
    evaluator = inner and where.split(".")[-1] == "evals"  # one that the config does not run
    closed = not evaluator and ("stage" in node or inner or not name.isidentifier())
    if not closed or (stage and name in OPTIONAL):
        return
    sections = [part for part in node if isinstance(node[part], ConfigDict)]
    others = [f"config.{name}"] if name in above else []
    others += [f"{part}.{name}" for part in sections if name in node[part]]
    hint = f"did you mean {' or '.join(map(repr, others))}?"
    if not others:
        hint = suggestion(name, {*node, *OPTIONAL} if stage else node)
    if where.split(".")[-1] == "alarm":  # config_flags takes no key with a slash
        hint = f"others are given with all there are to be, --{where}=\"{{'{name}': 0.5}}\""
    raise InputError(f"{where} has no key {name!r}: {hint}")


def mistyped(key: str, old: Any, new: Any, expected: type | None = None) -> InputError:
    """Return the error for a key whose value is `old` and cannot become `new`.

    expected: the type of its values; None: that of `old`.
    """
    kind = f"a value of type {(expected or type(old)).__name__}"
    kind += "" if old is None else f", such as {old!r}"
    if isinstance(old, ConfigDict):
        kind = "a dict"
    return InputError(f"--config.{key} expects {kind}, got {new!r}")
