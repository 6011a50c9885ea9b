"""What all command lines share: flags, help, how JAX starts, one-line errors, exit codes.

They are `python -m evqgan.main`, `.benchmark`, `.convert`, `.doctor` and more. Their flags are
tables of `Flag`s; absl reads them, as it reads the keys of a config (`config_files.override`). JAX
is imported only when a command line has turned out to be right.
"""

import contextlib
import dataclasses
import logging as python_logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from absl import flags, logging

from evqgan.core import VERSION, compilation_cache, flag_kinds, output, signals, space, stores
from evqgan.core.build import suggestion
from evqgan.core.config_files import OVERRIDE
from evqgan.core.errors import (
    DoesNotFit,
    InputError,
    NonFinite,
    OutOfMemory,
    is_out_of_memory,
    of_system,
    out_of_memory,
)

HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")
ASKS_VERSION = "--version"
PLAIN = python_logging.Formatter("%(message)s")  # what is logged is for users, who need no stamp
T = TypeVar("T")
# The kinds of flags, for the tables of command lines.
TEXT, TEXTS, SWITCH = flag_kinds.TEXT, flag_kinds.TEXTS, flag_kinds.SWITCH
PATH, PLACE, STEP = flag_kinds.PATH, flag_kinds.PLACE, flag_kinds.STEP
whole, number, choice = flag_kinds.whole, flag_kinds.number, flag_kinds.choice


class Flag(NamedTuple):
    """A flag of a command line: a row of its table.

    name: as it is typed after "--".
    kind: TEXT, TEXTS, PATH, PLACE, STEP, SWITCH, or what `whole`, `number` or `choice` return.
    modes: the values of --mode that take it; empty: all.
    help: what it is for.
    default: its value where it is not given.
    repeated: whether it may come several times; its value is then a list.
    required: whether it has to come.
    """

    name: str
    kind: flags.ArgumentParser
    modes: tuple[str, ...] = ()
    help: str = ""
    default: Any = None
    repeated: bool = False
    required: bool = False


# Of a command line whose table has a row NAME.KEY, `parse` returns what is given as --NAME.key
# unread; with CONFIG_KEYS, the keys of the config.
CONFIG_KEYS = Flag("config.KEY", TEXT, (), "changes a key of the config")
ANY_KEY = ".KEY"
DEBUG = Flag("debug", SWITCH, (), "show tracebacks")


def define(table: Sequence[Flag]) -> flags.FlagValues:
    """Return the flags of a table, as absl's FlagValues, with their defaults."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may come after words
    for flag in table:
        if flag.name.endswith(ANY_KEY):
            continue
        if flag.kind is SWITCH:
            flags.DEFINE_boolean(flag.name, bool(flag.default), flag.help, flag_values=values)
        elif flag.repeated:
            flags.DEFINE_multi(  # type: ignore[call-overload]  # the serializer may be None, too
                flag.kind, None, flag.name, flag.default, flag.help, flag_values=values
            )
        else:
            flags.DEFINE(flag.kind, flag.name, flag.default, flag.help, flag_values=values)
    return values


def parse(
    table: Sequence[Flag], argv: Sequence[str], words: bool = False
) -> tuple[flags.FlagValues, list[str]]:
    """Return the flags of a command line, and what of it is no flag of the table.

    table: the flags there are; with NAME.KEY, --NAME.key=value is left to the caller.
    argv: the arguments, without the program's name.
    words: whether the command line takes arguments that are no flags.

    Raises InputError for all that is wrong.
    """
    values = define(table)
    try:
        rest = values(["", *argv], known_only=True)[1:]
    except flags.IllegalFlagValueError as error:
        raise InputError(_illegal(values, str(error))) from error
    except flags.Error as error:
        raise InputError(f"{error}; see --help") from error
    for arg in rest:
        if re.match(r"--?[A-Za-z]", arg) and not _has_any_key(table, arg):
            name = "--" + arg.lstrip("-").split("=")[0]
            raise InputError(
                f"there is no flag {name}: {suggestion(name, [f'--{x}' for x in values])}"
            )
    for before, arg in zip(["", *rest], rest, strict=False):
        is_value = _has_any_key(table, before) and "=" not in before
        if not (words or is_value or _has_any_key(table, arg)):
            raise InputError(f"expected flags as --name=value, got {arg!r}; see --help")
    for flag in table:
        if flag.required and not values[flag.name].present:
            raise InputError(f"--{flag.name} is needed: {flag.help}; see --help")
    return values, rest


def _has_any_key(table: Sequence[Flag], arg: str) -> bool:
    """Return whether an argument is --NAME.key of a row NAME.KEY."""
    if CONFIG_KEYS in table and OVERRIDE.match(arg):
        return True
    names = [flag.name.removesuffix("KEY") for flag in table if flag.name.endswith(ANY_KEY)]
    return any(re.match(rf"--?{re.escape(name)}[^=]", arg) for name in names)


def _illegal(values: flags.FlagValues, message: str) -> str:
    """Return in our words what absl says of a value that a flag cannot have."""
    found = re.match(r"flag --(\w+)=(.*?): (.*)", message, re.DOTALL)
    if not found:
        return message
    name, given, reason = found.groups()
    parser = values[name].parser
    kind = "true or false" if parser.flag_type() == "bool" else parser.syntactic_help
    return f"--{name}={given}: {f'expected {kind}' if kind else reason}"


def check_mode(table: Sequence[Flag], values: flags.FlagValues) -> None:
    """Raise InputError for a flag that was given and is not one of --mode's."""
    for flag in table:
        if flag.modes and values[flag.name].present and values.mode not in flag.modes:
            modes = " and ".join(flag.modes)
            raise InputError(
                f"--{flag.name} is a flag of --mode={modes}, not of --mode={values.mode}"
            )


def request(kind: Callable[..., T], values: flags.FlagValues) -> T:
    """Return an instance of the dataclass `kind`: its fields are the given flags of their names."""
    names = [field.name for field in dataclasses.fields(kind) if field.name in values]  # type: ignore[arg-type]
    return kind(**{name: values[name].value for name in names if values[name].present})


def describe(doc: str, table: Sequence[Flag]) -> str:
    """Return the text of --help: `doc`, and a line for each flag, --version among them."""
    version = Flag(ASKS_VERSION.lstrip("-"), SWITCH, (), "print the version, and end")
    lines, width = [doc], max(len(flag.name) for flag in table)
    for flag in (*table, version):
        modes = f"{', '.join(flag.modes)}: " if flag.modes else ""
        lines.append(f"  --{flag.name:{width}s}  {modes}{flag.help}")
    return "\n".join(lines)


def main(
    argv: Sequence[str], run: Callable[[list[str]], None], help_text: Callable[[], str]
) -> int:
    """Run a command line: `run` does what the arguments say. Return its exit code.

    argv: the arguments, without the program's name. help_text: returns what --help prints.
    --version prints that of the package.

    The exit code is 0; 2 for what a user can mend; 1 for a run that went wrong; 130 for Ctrl-C, 143
    for SIGTERM. Every other exception is a defect, and is raised. A process of several that fails
    ends here at once, and the others soon after it (`cluster.leave`).
    """
    output.begin()
    if not wants_debug(argv):
        logging.get_absl_logger().addFilter(_is_for_users)
    if any(arg in HELP for arg in argv):
        return run_to_code(argv, lambda _: print(help_text(), flush=True))
    if ASKS_VERSION in argv:
        return run_to_code(argv, lambda _: print(f"evqgan {VERSION}", flush=True))
    # Of several processes JAX listens for SIGTERM itself.
    is_alone = os.environ.get("EVQGAN_DISTRIBUTED") != "1"
    with signals.ending_in_order() if is_alone else contextlib.nullcontext():
        code = 1  # of a defect, and of an error that cannot be printed
        try:
            code = run_to_code(argv, run)
        except SystemExit as stopped:  # by a signal that training has answered
            code = stopped.code if isinstance(stopped.code, int) else code
            raise
        finally:
            if code and "jax" in sys.modules:
                from evqgan.core import cluster

                cluster.leave(code)
    return code


def run_to_code(argv: Sequence[str], run: Callable[[list[str]], None]) -> int:
    """Run a command line; return its exit code, and print in one line what ended it, see `main`."""
    try:
        run([*argv])
        return output.fault()
    except KeyboardInterrupt:
        return signals.print_stopped(signals.raised() or signal.SIGINT)
    except BrokenPipeError:
        return output.unread()
    except Exception as error:
        if number := signals.raised():
            return signals.print_stopped(number)
        return output.fault(error) or report(error, wants_debug(argv))


def wants_debug(argv: Sequence[str]) -> bool:
    """Return whether --debug is among the arguments, which may be wrong otherwise."""
    return any(re.match(r"--?debug", arg) for arg in argv)


def report(error: Exception, debug: bool) -> int:
    """Print in one line the error that ended a run, and return its exit code.

    A defect is raised, or in one process of several printed. debug: the traceback is printed, too.
    """
    reason, several = " ".join(str(error).split()), False
    lost = too_large = False
    if isinstance(error, OSError) and error.filename is not None:
        reason = f"{of_system(error)}: {error.filename!r}"
    elif isinstance(error, FileNotFoundError) and not space.here():
        reason = f"{space.GONE}: change to another one"
    if "jax" in sys.modules:
        from evqgan.core import cluster

        several, lost = cluster.several(), cluster.lost(error)
    if lost:
        what = "another process of this run has ended or cannot be reached: start all again"
        reason = f"{what} ({reason[:300]})"
    elif too_large := is_out_of_memory(error):
        reason = out_of_memory(reason[:300])
    elif stores.is_failure(error):
        reason = stores.reason(error, "gs://")
    elif not isinstance(error, InputError | NonFinite | DoesNotFit | OSError):
        if not several:
            raise error
        traceback.print_exception(error)
        return 1
    if debug:
        traceback.print_exception(error)
    print(f"error: {reason}", file=sys.stderr)
    went_wrong = lost or too_large or stores.is_outage(error)
    return 1 if went_wrong or isinstance(error, NonFinite | DoesNotFit | OutOfMemory) else 2


def prepare(parse_all: Callable[[list[str]], T], argv: list[str]) -> T:
    """Return what `parse_all` makes of the arguments, and start JAX.

    Of several processes (EVQGAN_DISTRIBUTED=1) each joins the others before it parses: one that
    cannot parse its arguments or its config then ends all of them within seconds.
    """
    if os.environ.get("EVQGAN_DISTRIBUTED") != "1":
        parsed = parse_all(argv)
        compilation_cache.enable()
        start_jax()
        return parsed
    compilation_cache.enable()  # before anything compiles
    start_jax(several=True)
    from evqgan.core import processes

    with processes.together():
        parsed = parse_all(argv)
    return parsed


def start_jax(several: bool = False) -> None:
    """Start JAX on the devices wanted, and have libraries log their warnings alone.

    several: whether this process is to join others.

    Raises InputError when the devices (JAX_PLATFORMS) or processes (EVQGAN_DISTRIBUTED) are absent.
    """
    import jax
    from PIL import Image

    from evqgan.core import jax_settings, platforms

    flags.FLAGS.mark_as_parsed()  # libraries with absl flags of their own look at them
    logging.set_verbosity(logging.WARNING)
    # `data.transforms` refuses these images in a line of its own.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.use_absl_handler()  # for all loggers
    logging.get_absl_handler().setFormatter(PLAIN)
    try:
        if several:
            from evqgan.core import cluster

            cluster.start()
        jax.devices()
    except (RuntimeError, ValueError, AssertionError) as error:  # the last: JAX lacks the platform
        names = ("JAX_PLATFORMS", "EVQGAN_DISTRIBUTED")
        asked = " ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))
        absent = "there is no such device, or JAX is installed without support for it"
        reason = (str(error).splitlines() or [absent])[0]
        raise InputError(
            f"JAX cannot start{f' with {asked}' if asked else ''}: {reason}"
        ) from error
    platforms.require()
    jax_settings.require()


def _is_for_users(record: Any) -> bool:
    """Return whether a log record is neither orbax's, which are raised, too, nor of a profiler."""
    return "orbax" not in record.pathname and "profiler" not in record.pathname
