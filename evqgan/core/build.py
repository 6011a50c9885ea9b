"""From a config section to an object.

The section's key `name` is the name of a module; its other keys are arguments of the class there.
So an import that no editor can follow happens in `module` alone: config.generator.name = "gpt" is
evqgan/generators/gpt.py.
"""

import contextlib
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

from evqgan.core import kinds
from evqgan.core.errors import InputError, NoModule, cut, first_line, shown

T = TypeVar("T")
LISTED, SHORT = 5, 60  # ours: differences that a message lists, and the length of a value in it


def without_dashes(word: str) -> str:
    """Return a flag without its dashes, which make no two alike."""
    return word.lstrip("-")


def suggestion(
    word: object, words: Iterable[object], key: Callable[[str], str] = without_dashes
) -> str:
    """Return the part of a sentence that helps after a misspelt `word`.

    It names the closest of `words`, or all of them.

    key: from a word to what of it is compared.
    """
    known = [str(w) for w in words]
    bare = {key(w): w for w in known}
    close = difflib.get_close_matches(key(str(word)), bare, n=1)
    if close:
        return f"did you mean {bare[close[0]]!r}?"
    return "expected one of " + ", ".join(sorted(known))


def plain(value: Any) -> Any:
    """Return a config value as plain Python.

    It has dicts of dicts, tuples instead of lists (linen wants hashable fields), and Python's
    numbers instead of NumPy's.
    """
    if hasattr(value, "items"):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(v) for v in value)
    return value.item() if getattr(value, "shape", None) == () else value


def within(key: str, sections: Iterable[str]) -> bool:
    """Return whether a dotted key is one of `sections`, or lies in one of them."""
    return any(f"{key}.".startswith(f"{section}.") for section in sections)


def differences(
    a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Return {dotted key: (value in a, value in b)} where two nested dicts differ.

    A missing value is None, and of a missing dict that is not empty all values are missing.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*a, *b}):
        x, y = a.get(key), b.get(key)
        dicts = [{} if z is None else z for z in (x, y)]
        if all(isinstance(z, dict) for z in dicts) and any(dicts):
            found |= differences(dicts[0], dicts[1], f"{prefix}{key}.")
        elif x != y:
            found[prefix + key] = (x, y)
    return found


def listed(found: Mapping[str, tuple[Any, Any]], prefix: str = "") -> str:
    """Return `differences` as "key: a -> b, ...", the first LISTED of them.

    prefix: what comes before each key, such as "config.".
    """
    lines = [f"{prefix}{key}: {_short(a)} -> {_short(b)}" for key, (a, b) in found.items()]
    more = len(lines) - LISTED
    return ", ".join(lines[:LISTED]) + (f", and {more:,} more" if more > 0 else "")


def _short(value: Any) -> str:
    """Return a value in at most SHORT characters."""
    return cut(" ".join(str(value).split()), SHORT)


def keys_of(
    function: Callable[..., Any], given: Iterable[str] = ()
) -> dict[str, inspect.Parameter]:
    """Return the parameters of `function` that a config may set: {name: inspect.Parameter}.

    given: the names of those that the caller sets, which are no keys of the config.
    """
    parameters = inspect.signature(function).parameters
    linens = ("parent", "name") if "parent" in parameters else ()  # fields of every linen module
    ours = {*given, *linens}
    return {name: parameter for name, parameter in parameters.items() if name not in ours}


def check(function: Callable[..., Any], keys: Any, where: str, given: Iterable[str] = ()) -> None:
    """Raise InputError for a key that `function` does not take, or a value of another kind.

    keys: {key: value}; see `kinds` for their kinds.
    where: what the section is called in the message, such as "config.generator".
    given: as in `keys_of`.
    """
    known = keys_of(function, given)
    for found in _noting:
        found[where] = {name: p.default for name, p in known.items() if p.default is not p.empty}
    if not isinstance(keys, dict):
        some = ", ".join(list(known)[:3])
        raise InputError(f"{where} expects keys of its own, such as {some}, got {keys!r}")
    for key, value in keys.items():
        if key not in known:
            raise InputError(f"{where} has no key {key!r}: {suggestion(key, known)}")
        kind = kinds.of(known[key])
        _check_value(kinds.read(value, kind), kind, f"{where}.{key}")


def check_fields(instance: Any, where: str) -> None:
    """Raise InputError for a field of a data class whose value is not of the kind of the field.

    where: what the section is called whose keys are these fields, as in `check`.
    """
    for name, parameter in keys_of(type(instance)).items():
        _check_value(getattr(instance, name), kinds.of(parameter), f"{where}.{name}")


def _check_value(value: Any, kind: Any, where: str) -> None:
    if not kinds.fits(value, kind):
        close = kinds.meant(value, kind)
        hint = f": did you mean {close!r}?" if close else ""
        raise InputError(f"{where} expects {kinds.describe(kind)}, got {shown(value)}{hint}")


_noting: list[dict[str, dict[str, Any]]] = []


@contextlib.contextmanager
def defaults() -> Iterator[dict[str, dict[str, Any]]]:
    """Yield {where: {key: its default}} of every section that `check` sees in the body."""
    found: dict[str, dict[str, Any]] = {}
    _noting.append(found)
    try:
        yield found
    finally:
        _noting.remove(found)


def call(function: Callable[..., T], config: Any, where: str, /, **given: Any) -> T:
    """Return `function(**config, **given)`, where the keys of `config` are checked.

    Raises InputError for a key that `function` does not take, a value of another kind, and a key
    that is needed and absent. What is `given` is no key of the config.
    """
    keys = plain(config)
    check(function, keys, where, given)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in {**keys, **given}:
            raise InputError(f"{where} needs the key {name!r}")
    known = keys_of(function, given)
    keys = {key: kinds.read(value, kinds.of(known[key])) for key, value in keys.items()}
    with at_key(where):
        return function(**{**keys, **given})


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn what the body raises when it computes with a user's wrong numbers into InputError."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: {first_line(error)}") from error


@contextlib.contextmanager
def at_key(where: str) -> Iterator[None]:
    """Name the key of the config in an InputError of the body that names none.

    where: the key, such as "config.adversarial.critic".
    """
    try:
        yield
    except InputError as error:
        text, key = str(error), where.removeprefix("config.")
        if not where.startswith("config") or "config." in text:
            raise
        named = f"config.{text}" if text.startswith(f"{key}.") else f"{where}: {text}"
        raise InputError(named) from error


@contextlib.contextmanager
def config_of(workdir: object) -> Iterator[None]:
    """Say of a module that is missing that a workdir's config names it, and no slip of a user."""
    try:
        yield
    except NoModule as error:
        raise InputError(
            f"{workdir} was made by code that has {error.file}, which is not here: use that code, "
            "or put the file there"
        ) from error


def contract(protocol: type) -> tuple[str, ...]:
    """Return the names that a typing.Protocol demands: its annotations and its functions."""
    functions = [
        name
        for name, x in vars(protocol).items()
        if inspect.isfunction(x) and not name.startswith("_")
    ]
    return (*vars(protocol).get("__annotations__", {}), *functions)


def module(package: str, name: Any, where: str, *entries: str) -> ModuleType:
    """Return the module `evqgan.<package>.<name>`.

    Raises InputError if there is none that has these entries, and says what it lacks.

    package: in dots, such as "tokenizers.quantizers".
    entries: names of classes and functions.
    """
    name, found = plain(name), None
    if isinstance(name, str) and name.isidentifier():
        path = ".".join(p for p in ("evqgan", package, name) if p)
        try:
            found = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
    lacking = [entry for entry in entries if not hasattr(found, entry)]
    if found and not lacking:
        return found
    folder = "/".join(["evqgan", *filter(None, package.split("."))]) + "/"
    what = f" with {', '.join(entries)}" if entries else ""
    message, file = f"{where} names {name!r}, no module{what} in {folder}", f"{folder}{name}.py"
    if found and len(lacking) < len(entries):
        raise InputError(f"{message}: {file} lacks {', '.join(lacking)}")
    known = having(package, entries)
    hints = [f"{file} lacks {', '.join(lacking)}"] if found else []
    if known:
        hints.append(suggestion(name, known))
    message = f"{message}: {'; '.join(hints)}"
    raise InputError(message) if found else NoModule(message, file)


def having(package: str, entries: Iterable[str]) -> list[str]:
    """Return the names of the modules of `evqgan.<package>` that have these entries."""
    root = importlib.import_module(f"evqgan.{package}" if package else "evqgan")
    files = [found.name for found in pkgutil.iter_modules(root.__path__) if not found.ispkg]
    names = [name for name in files if name != "__main__"]
    modules = {name: importlib.import_module(f"{root.__name__}.{name}") for name in names}
    return [
        name for name, found in modules.items() if all(hasattr(found, entry) for entry in entries)
    ]


def build(package: str, entry: str, config: Any, where: str, /, **given: Any) -> Any:
    """Return `evqgan.<package>.<config.name>.<entry>(**the other keys, **given)`.

    For example build("tokenizers", "Encoder", keys, "config.tokenizer.encoder", dtype="bfloat16").
    """
    keys = plain(config)
    if not isinstance(keys, dict) or "name" not in keys:
        what = f"the module in evqgan/{package}/ to build from"
        raise InputError(f"{where} needs the key 'name': {what}, got {keys!r}")
    found = module(package, keys.pop("name"), where, entry)
    return call(getattr(found, entry), keys, where, **given)
