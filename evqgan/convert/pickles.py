"""Read a pickle as data: its classes are not looked up and nothing of it is called.

`pickle.load` runs what a file tells it to; a restricted one still runs the constructors that it
lets through. The machine here knows the opcodes (Python's `pickletools` splits the file into them)
and has inert values for all that would be an object.
"""

import pickletools
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import Any, BinaryIO

# Ours: opcodes of a pickle, and values and letters that they copy, at most; a checkpoint of 5,000
# tensors has 200,000. A small file could otherwise copy one long list again and again.
STEPS = 10_000_000
SCALARS = (str, bytes, int, float, bool, type(None))
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


class Global:
    """A class or function that a pickle names, of which only this name is known."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Foreign:
    """An object of an unknown class, of which only the name of the class is kept."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def load(
    stream: BinaryIO | mmap,
    known: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the pickle at the position of `stream`, which then stands behind it.

    The result is made of dicts, lists, tuples, scalars and inert objects. Sets become lists;
    attributes given to objects are dropped; a dict key that is neither a scalar nor inert becomes
    Foreign (a tuple of tuples can take forever to hash).

    stream: a binary file, mmap or BytesIO.
    known: {"module.name": function of ours}, called with the pickled arguments in the place of the
        class or function of that name. Objects of all others become Foreign, and a bare name
        Global.
    persistent: a function from a persistent id to its value.

    Raises ValueError, TypeError, LookupError or OverflowError if the pickle is damaged or copies
    its own values without end (STEPS), and what `known` and `persistent` raise.
    """
    machine = _Machine(known, persistent)
    opcodes = pickletools.genops(stream)  # type: ignore[arg-type]  # an mmap reads like a file
    for opcode, argument, _ in opcodes:
        machine.step(opcode.name, argument)
    return machine.pop()


class _Machine:
    """The stack, the marks on it and the memo of a pickle under way."""

    def __init__(
        self,
        known: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.known, self.persistent = known, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[Any, Any] = {}
        self.steps = 0

    def count(self, *values: Any) -> None:
        """Count a step, and what is copied of `values`.

        Raises ValueError when there were STEPS.
        """
        copied = [value for value in values if isinstance(value, list | tuple | dict | str)]
        self.steps += 1 + sum(map(len, copied))
        if self.steps > STEPS:
            what = f"its pickle takes more than {STEPS:,} steps"
            raise ValueError(f"{what}, which no checkpoint needs")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("a value is missing in the pickle")
        return self.stack.pop()

    def top(self) -> Any:
        self.stack.append(value := self.pop())
        return value

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        self.count()
        push = self.stack.append
        if name in LITERALS:
            push(argument)
        elif name in CONSTANTS:
            push(CONSTANTS[name])
        elif name in EMPTY:
            push(EMPTY[name]())
        else:
            self.change(name, argument)

    def change(self, name: str, argument: Any) -> None:
        """Do what an opcode says that does not just push a value of its own."""
        push = self.stack.append
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "POP":
                self.marks.pop() if self.marks and self.marks[-1] == len(self.stack) else self.pop()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                push(self.top())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([self.pop() for _ in range(int(name[-1]))][::-1]))
            case "TUPLE":
                push(tuple(self.since_mark()))
            case "LIST" | "FROZENSET":
                push(self.since_mark())
            case "DICT":
                items = self.since_mark()
                push({})
                self.set_items(items)
            case "APPEND":
                self.extend([self.pop()])
            case "APPENDS" | "ADDITEMS":
                self.extend(self.since_mark())
            case "SETITEM":
                self.set_items([self.pop(), self.pop()][::-1])
            case "SETITEMS":
                self.set_items(self.since_mark())
            case "GLOBAL":
                push(Global(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                last, module = self.pop(), self.pop()
                self.count(last, module)
                push(Global(_text(module) + "." + _text(last)))
            case "EXT1" | "EXT2" | "EXT4":
                push(Global(f"copyreg extension {argument}"))
            case "REDUCE" | "NEWOBJ":
                arguments, function = self.pop(), self.pop()
                push(self.made(function, arguments))
            case "NEWOBJ_EX":
                named, arguments, function = self.pop(), self.pop(), self.pop()
                push(self.made(function, arguments, named))
            case "OBJ":
                function, *arguments = self.since_mark()
                push(self.made(function, tuple(arguments)))
            case "INST":
                push(self.made(Global(argument.replace(" ", ".", 1)), tuple(self.since_mark())))
            case "BUILD":  # gives attributes to an object, or calls its __setstate__
                self.pop()
                self.top()
            case "PERSID" | "BINPERSID":
                if self.persistent is None:
                    raise ValueError("the pickle refers to something outside itself")
                value = argument if name == "PERSID" else self.pop()
                self.count(value)
                push(self.persistent(value))
            case _:
                raise ValueError(f"the pickle has the opcode {name}, which no checkpoint needs")

    def made(self, function: Any, arguments: Any, named: Any = None) -> Any:
        """Return what calling the Global `function` gives: a value of ours, or a Foreign."""
        if not isinstance(function, Global | Foreign) or not isinstance(arguments, tuple):
            raise ValueError("the pickle calls what is no function")
        if isinstance(function, Global) and function.name in self.known and not named:
            self.count(arguments, *arguments)
            return self.known[function.name](*arguments)
        return Foreign(function.name)

    def extend(self, items: list[Any]) -> None:
        """Append items to the list on top of the stack."""
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Foreign):
            raise ValueError("the pickle appends to what is no list")

    def set_items(self, items: list[Any]) -> None:
        """Set keys and values, given in turn, in the dict on top of the stack."""
        target = self.top()
        if len(items) % 2 or not isinstance(target, dict | Foreign):
            raise ValueError("the pickle sets items where they cannot be set")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                inert = type(key) in SCALARS or isinstance(key, Global | Foreign)
                target[key if inert else Foreign(type(key).__name__)] = value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("the pickle names a class by what is no text")
    return value
