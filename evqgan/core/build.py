"""From a config to an object: a config names a module, its other keys are the constructor's arguments."""

import difflib
import importlib
import inspect

from evqgan.core.errors import InputError


def nearest(word, words):
    """The sentence part that helps after a misspelt `word`: the closest of `words`, or all of them."""
    close = difflib.get_close_matches(str(word), [str(w) for w in words], n=1)
    return f"did you mean {close[0]!r}?" if close else "expected one of " + ", ".join(sorted(map(str, words)))


def plain(value):
    """A config value as plain Python: dicts of dicts, tuples instead of lists (linen wants hashable fields)."""
    if hasattr(value, "items"):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(v) for v in value)
    return value


def check(function, keys, where):
    """Raises InputError for a key in `keys` that `function` does not take, naming the nearest one it does.

    `where` is how the config is called in the message, such as "config.generator".
    """
    parameters = inspect.signature(function).parameters
    ours = ("parent", "name") if "parent" in parameters else ()  # linen's own fields, not a config's
    accepted = [name for name in parameters if name not in ours]
    for key in keys:
        if key not in accepted:
            raise InputError(f"{where} has no key {key!r}: {nearest(key, accepted)}")


def call(function, config, where, /, **given):
    """`function(**config, **given)`; InputError for a key that `function` does not take, or needs and does not get."""
    keys = plain(config)
    check(function, keys, where)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in {**keys, **given}:
            raise InputError(f"{where} needs the key {name!r}")
    return function(**{**keys, **given})


def module(package, name, where):
    """The module `evqgan.<package>.<name>`; InputError if there is none. `package` may be "" (the stages)."""
    path = ".".join(p for p in ("evqgan", package, str(name)) if p)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise InputError(f"{where} names {name!r}, but there is no module {path}") from None


def build(package, entry, config, where, /, **given):
    """`evqgan.<package>.<config.name>.<entry>(**the other keys, **given)`.

    build("tokenizers", "Encoder", config.tokenizer.encoder, "config.tokenizer.encoder", dtype="bfloat16")
    """
    keys = plain(config)
    if "name" not in keys:
        raise InputError(f"{where} needs the key 'name': the module in evqgan/{package}/ to build from")
    name = keys.pop("name")
    found = module(package, name, where)
    if not hasattr(found, entry):
        raise InputError(f"{where} names {name!r}, but evqgan/{package}/{name}.py has no {entry}")
    return call(getattr(found, entry), keys, where, **given)
