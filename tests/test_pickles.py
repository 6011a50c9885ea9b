"""Pickles are read as data: what a pickle means to run is not run, whichever way it is written."""

import collections
import contextlib
import copyreg
import io
import pathlib
import pickle
import random
import sys

import numpy as np
import pytest

from evqgan.convert import pickles
from evqgan.convert.pickles import Foreign, Global

DAMAGED = (ValueError, TypeError, LookupError, OverflowError)


def load(data, known=None, persistent=None):
    return pickles.load(io.BytesIO(data), known or {}, persistent)


def mark(path, *_):
    """What the pickles below mean to run."""
    pathlib.Path(path).write_text("executed")
    return {}


class Calls:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


class Marks:
    """Marks when it is made with a path."""

    def __new__(cls, path=None, **_):
        if path:
            mark(path)
        return super().__new__(cls)

    def __getnewargs__(self):
        return (self.path,)


class MarksByName(Marks):
    def __getnewargs_ex__(self):
        return (self.path,), {"name": 1}


class MarksByState(Marks):
    def __getnewargs__(self):
        return ()

    def __setstate__(self, state):
        mark(state["path"])


class MarksAsKey:
    path = None

    def __hash__(self):
        if self.path:
            mark(self.path)
        return 1

    def __reduce__(self):
        return _with_path, (MarksAsKey, self.path)


class MarkingList(list):
    def append(self, item):
        mark(item)

    def extend(self, items):
        mark(next(iter(items)))


class MarkingDict(dict):
    def __setitem__(self, key, value):
        mark(value)


def _with_path(cls, path):
    one = object.__new__(cls)
    one.path = path
    return one


def _key(path):
    key = MarksAsKey()
    value = {key: None}
    key.path = path
    return value


def _table(path):
    value = MarkingDict()
    dict.__setitem__(value, "a", path)
    return value


def _list(path):
    value = MarkingList()
    list.append(value, path)
    return value


def _lines(*lines):
    return "\n".join(lines).encode()


ATTACKS = {
    "os.system": lambda path: pickle.dumps(Calls(__import__("os").system, f"touch '{path}'")),
    "eval": lambda path: pickle.dumps(Calls(eval, f"open({path!r}, 'w')")),
    "exec": lambda path: pickle.dumps(Calls(exec, f"open({path!r}, 'w')")),
    "exec, protocol 0": lambda path: pickle.dumps(Calls(exec, f"open({path!r}, 'w')"), 0),
    "a class with arguments": lambda path: pickle.dumps(Calls(Marks, path)),
    "a call by getattr": lambda path: _lines(
        "cbuiltins", "getattr", "(cpathlib", "Path", f"(V{path}", "tRVtouch", "tR(tR."
    ),
    "a call made by a call": lambda path: _lines(
        "cfunctools", "partial", "(cbuiltins", "open", f"V{path}", "Vw", "tR(tR."
    ),
    "__new__": lambda path: pickle.dumps(_with_path(Marks, path), 2),
    "__new__ with names": lambda path: pickle.dumps(_with_path(MarksByName, path), 4),
    "__setstate__": lambda path: pickle.dumps(_with_path(MarksByState, path), 2),
    "INST": lambda path: _lines(f"(V{path}", f"i{__name__}", "mark", "."),
    "OBJ": lambda path: _lines(f"(c{__name__}", "Marks", f"V{path}", "o."),
    "items of a list": lambda path: pickle.dumps(_list(path), 2),
    "items of a dict": lambda path: pickle.dumps(_table(path), 2),
    "a key's hash": lambda path: pickle.dumps(_key(path), 2),
    "an array of objects": lambda path: pickle.dumps(np.array([Calls(mark, path)], object)),
    "a default factory": lambda path: pickle.dumps(
        collections.defaultdict(list, a=Calls(mark, path))
    ),
    "an extension code": lambda path: (
        b"\x80\x02\x82\xf0X" + len(path).to_bytes(4, "little") + path.encode() + b"\x85R."
    ),
    "an import": lambda path: b"\x80\x02cevqgan_marks_when_imported\nx\n.",
}


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """The file that the attacks write; among them a module that writes it when it is imported."""
    path = tmp_path / "marked"
    (tmp_path / "evqgan_marks_when_imported.py").write_text(f"open({str(path)!r}, 'w')\nx = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    copyreg.add_extension(__name__, "mark", 0xF0)
    yield path
    copyreg.remove_extension(__name__, "mark", 0xF0)
    sys.modules.pop("evqgan_marks_when_imported", None)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_pickle_runs(marked, attack):
    data = ATTACKS[attack](str(marked))
    load(data)
    assert not marked.exists() and "evqgan_marks_when_imported" not in sys.modules
    pickle.loads(data)  # the attack is one
    assert marked.exists()


def test_an_extension_that_was_looked_up_before_is_not_called(marked):
    data = ATTACKS["an extension code"](str(marked))
    pickle.loads(data)  # copyreg now remembers the function itself
    marked.unlink()
    assert isinstance(load(data), Foreign)
    assert not marked.exists()


def test_plain_values_are_what_pickle_reads():
    value = {
        "text": ["a", "ä\n", ""],
        "numbers": (
            0,
            1,
            -1,
            255,
            65536,
            1 << 40,
            -(1 << 100),
            1.5,
            float("inf"),
            True,
            False,
            None,
        ),
        "bytes": (b"", b"x" * 300),
        "nested": {
            "t": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
            3: {},
            2.5: [],
            b"b": [[]],
            None: 1,
            True: 2,
        },
        "long": list(range(1500)),
        "shared": [shared := [1], shared],
    }
    for protocol in range(6):
        data = pickle.dumps(value, protocol)
        stream = io.BytesIO(data + b"rest")
        # How protocols 0 to 2 write bytes.
        known = {"_codecs.encode": lambda text, encoding: text.encode(encoding)}
        found = pickles.load(stream, {**known, "builtins.bytes": bytes, "__builtin__.bytes": bytes})
        assert found == value and stream.read() == b"rest"
        assert found["shared"][0] is found["shared"][1]


def test_a_list_within_itself_is_read():
    value = []
    value.append(value)
    for protocol in range(6):
        found = load(pickle.dumps(value, protocol))
        assert found[0] is found


def test_objects_become_inert_and_what_stands_beside_them_is_read():
    value = [
        pathlib.PurePath("a"),
        1j,
        {1},
        frozenset([2]),
        np.float64(1.5),
        np.arange(3),
        range(3),
        Marks,
        mark,
        "end",
    ]
    for protocol in range(6):
        found = load(pickle.dumps(value, protocol))
        assert found[-1] == "end" and len(found) == len(value)
        assert all(
            isinstance(one, Foreign) for one in (found[0], found[1], found[4], found[5], found[6])
        )
        assert isinstance(found[7], Global) and found[7].name == f"{__name__}.Marks"
        if protocol >= 4:  # earlier ones call set([1])
            assert found[2:4] == [[1], [2]]


def test_known_names_are_ours_and_get_the_arguments():
    data = pickle.dumps([collections.OrderedDict(a=1), Calls(mark, "x", 2)])
    assert load(data, {f"{__name__}.mark": lambda *given: given})[1] == ("x", 2)
    with pytest.raises(TypeError):
        load(data, {f"{__name__}.mark": lambda: None})


def test_keys_that_could_run_or_hash_forever_are_set_aside():
    bomb = ()
    for _ in range(100):
        bomb = (bomb, bomb)  # its hash takes 2^100 steps
    out = io.BytesIO()
    pickle.Pickler(out, 4).dump(bomb)
    pickled = out.getvalue()[11:-1]  # without the header and STOP
    found = load(b"\x80\x04}(" + pickled + b"K\x01X\x01\x00\x00\x00aK\x02u.")
    assert found.pop("a") == 2
    ((key, one),) = found.items()
    assert isinstance(key, Foreign) and one == 1


def test_a_class_may_be_a_key():
    found = load(pickle.dumps({Marks: 1}))
    assert [key.name for key in found] == [f"{__name__}.Marks"]


def test_persistent_ids_are_given_to_the_caller():
    assert load(b"Pname\n.", persistent=lambda value: value * 2) == "namename"
    assert load(b"K\x07Q.", persistent=lambda value: value + 1) == 8
    with pytest.raises(ValueError, match="outside itself"):
        load(b"K\x07Q.")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"K\x01",
        b"0.",
        b"1.",
        b"(.",
        b"(K\x010.",
        b"h\x05.",
        b"t.",
        b"K\x01K\x02R.",
        b"cos\nsystem\nK\x01R.",
        b"cos\nsystem\n]R.",
        b"K\x01K\x02a.",
        b"}K\x01s.",
        b"}(K\x01u.",
        b"]K\x01K\x02s.",
        b"K\x01K\x02\x93.",
        b"\x97.",
        b"\x98.",
        b"\xff.",
        b"(i.",
        b"(o.",
        b"Vabc",
        b"I12x\n.",
        b"X\xff\xff\xff\x7fab.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fab.",
        b"\x8e\x00\x00\x00\x00\x00\x00\x00\x80ab.",
        b"\x8b\xff\xff\xff\x7fab.",
        b"X\x01\x00\x00\x00\xff.",
        b"\x85R.",
        b"K\x01\x86.",
        b"b.",
        b"K\x01b.",
    ],
)
def test_broken_pickles_are_refused(data):
    with pytest.raises(DAMAGED):
        load(data)


def test_damage_anywhere_is_refused_or_gives_inert_values(marked):
    rng = random.Random(0)
    whole = pickle.dumps(
        [_table("x"), {1: [2.5, "a"]}, _with_path(Marks, str(marked)), (1, 2), b"xyz"], 4
    )
    for _ in range(2000):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(1, len(whole))])])
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(*DAMAGED):
            load(bytes(data))
    assert not marked.exists()
