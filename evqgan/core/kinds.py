"""Which values the keys of a config may have, by the annotations of their constructor.

The annotations of the constructor that takes the keys are their schema: the kind of a key is the
annotation of its parameter, or the type of its default where there is no annotation. Numbers are
finite and not negative unless the annotation says otherwise: `Annotated[int, Range(1)]`, here
`Positive`, starts at 1, and `Signed` may be negative. `Literal` names choices.
"""

import ast
import difflib
import inspect
import math
import numbers
import re
import types
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

# Commas stand between thousands only: "0,5 epochs" is not five.
DURATION = re.compile(
    r"\s*((?:[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+)(?:\.[0-9]+)?)\s*(steps?|epochs?|%|)\s*"
)
STEPS = 2**31  # a run counts its steps in 32 bits

LIMIT = 2.0**128  # of numbers: models compute in float32, in which this is infinite


def duration_of(value: Any) -> tuple[float, str] | None:
    """Return the number of a duration and its unit, "step", "epoch" or "%"; None if it is none."""
    found = DURATION.fullmatch(str(value))
    return found and (float(re.sub("[,_]", "", found[1])), found[2].rstrip("s") or "step")


def numbers_of(text: str) -> tuple[float, ...] | None:
    """Return the numbers of a list as Python writes it, brackets left out or not; else None."""
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return None
    is_list = isinstance(found, list | tuple) and all(type(x) in (int, float) for x in found)
    return tuple(found) if is_list else None


def otherwise(old: Any, text: str) -> tuple[Any] | None:
    """Return (value,), what a text means in place of `old` where config_flags refuses it, or None.

    It is None in place of anything, and in place of a number several, or a duration in words. The
    rules of the key say whether it fits.
    """
    if text == "None":
        return (None,)
    if type(old) not in (int, float):
        return None
    if several := numbers_of(text):
        return (several,)
    is_duration = type(old) is int and duration_of(text) and re.search("[a-z%]$", text)
    return (text,) if is_duration else None


class Range(NamedTuple):
    """The numbers from `low` to `high`."""

    low: float = 0
    high: float = math.inf
    open_low: bool = False  # whether `low` itself does not belong
    open_high: bool = False  # whether `high` itself does not belong

    def holds(self, value: Any) -> bool:
        """Return whether a finite number lies in the range."""
        is_above = self.low < value if self.open_low else self.low <= value
        is_below = value < self.high if self.open_high else value <= self.high
        return is_above and is_below

    def __str__(self) -> str:
        low = f"above {self.low}" if self.open_low else f"from {self.low}"
        if self.high == math.inf:
            return "" if self.low == -math.inf else low
        return f"{low} {'to below' if self.open_high else 'to'} {self.high}"


class Duration(NamedTuple):
    """A number of steps, or a text such as "20 epochs", "1000 steps" or "5%".

    See `training.run_length`.

    positive: whether 0 is refused.
    share: whether "5%", a share of the whole run, is one.
    """

    positive: bool = False
    share: bool = True

    def holds(self, value: Any) -> bool:
        """Return whether a number or text is a duration."""
        found = duration_of(value)
        if not found or (found[1] == "%" and not self.share):
            return False
        number = found[0]
        return number < STEPS and (number != 0 or not self.positive)

    def __str__(self) -> str:
        words = 'a number of steps, "1000 steps"'
        words += ', "20 epochs" or "5%"' if self.share else ' or "20 epochs"'
        return f"more than 0: {words}" if self.positive else words


class Text(NamedTuple):
    """A text that the regular expression `pattern` matches whole; `words` describe it."""

    pattern: str
    words: str

    def holds(self, value: Any) -> bool:
        """Return whether the pattern matches a text."""
        return bool(re.fullmatch(self.pattern, value))

    def __str__(self) -> str:
        return self.words


class NonEmpty(NamedTuple):
    """A list that is not empty, of whole numbers from `low` on."""

    low: int = 1

    def holds(self, value: Any) -> bool:
        """Return whether a list is not empty."""
        return bool(value)

    def __str__(self) -> str:
        return f"a list of at least one whole number from {self.low}"


Positive = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what a key of JAX holds
Several = Annotated[tuple[Positive, ...], NonEmpty()]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, open_low=True)]
PartialShare = Annotated[float, Range(0, 1, open_high=True)]  # dropout, decays of moving averages
Above0 = Annotated[float, Range(0, open_low=True)]
Signed = Annotated[float, Range(-math.inf)]
Steps = Annotated[int | float | str, Duration()]
Often = Annotated[int | float | str, Duration(positive=True)]
Whole = Annotated[int | float | str, Duration(positive=True, share=False)]  # of a run
Dtype = Literal["float32", "bfloat16"]


def of(parameter: inspect.Parameter) -> Any:
    """Return the kind of the values that a parameter takes."""
    kind, default = parameter.annotation, parameter.default
    if kind not in (parameter.empty, Any):
        return kind if default is not None else kind | None
    return Any if default in (parameter.empty, None) else type(default)


def fits(value: Any, kind: Any) -> bool:
    """Return whether a plain Python value, as `build.plain` gives it, is of the kind."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return not isinstance(value, float) or math.isfinite(value)
    if origin is Annotated:
        return _is_a(value, inner[0]) and inner[1].holds(value)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    return _is_a(value, kind) and (kind not in (int, float) or value >= 0)


def meant(value: Any, kind: Any) -> str:
    """Return which of a kind's texts a misspelt value, or one of its list, is close to, or ""."""
    words = choices(kind)
    for one in value if isinstance(value, tuple) else (value,):
        if one not in words and (close := difflib.get_close_matches(str(one), words, n=1)):
            return close[0]
    return ""


def choices(kind: Any) -> list[str]:
    """Return the texts among which a kind chooses, or a part of it."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return [choice for choice in inner if isinstance(choice, str)]
    return [choice for one in inner for choice in choices(one)]


def read(value: Any, kind: Any) -> Any:
    """Return a value, or what it is where the kind is another one.

    A text with commas is a list of texts, and a list of one number that number.
    """
    if fits(value, kind):
        return value
    if isinstance(value, tuple) and len(value) == 1 and fits(value[0], kind):
        return value[0]
    if not isinstance(value, str):
        return value
    parts = tuple(part.strip() for part in value.split(","))
    return parts if fits(parts, kind) else value


def _is_a(value: Any, kind: Any) -> bool:
    """Return whether a value has the type `kind`.

    A whole number is also a float, NumPy's are numbers, True is none.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is_a(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[1:] == (Ellipsis,) else inner
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values())
    if kind is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return real and abs(value) < LIMIT  # nor is NaN
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return value is None if kind in (None, types.NoneType) else isinstance(value, kind)


WORDS = {bool: "True or False", str: "a text", dict: "keys of its own", types.NoneType: "None"}
NUMBERS = {int: "a whole number", float: "a number"}


def describe(kind: Any) -> str:
    """Return the kind in words, for a message that begins with "expects"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number = NUMBERS.get(inner[0])
        return f"{number} {inner[1]}".rstrip() if number else str(inner[1])
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in inner)
    if origin is tuple:
        if inner[1:] == (Ellipsis,):
            return f"a list (on a command line a,b or \"('a','b')\"), each {describe(inner[0])}"
        return "(" + ", ".join(describe(one) for one in inner) + ")"
    if origin is dict:
        return f"keys of its own, each {describe(inner[1])}"
    if kind in NUMBERS:
        return f"{NUMBERS[kind]} {Range()}"
    return WORDS.get(kind, f"a value of type {getattr(kind, '__name__', kind)}")
