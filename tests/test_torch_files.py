"""Checkpoints of PyTorch are read without it, bit for bit, and nothing that stands in them runs.

The files in tests/torch_files were written by PyTorch 2.13.0 (CPU): each object by
torch.save(object, NAME_zip.pth) and by torch.save(object, NAME_legacy.pth,
_use_new_zipfile_serialization=False), and the .numpy() of its tensors by numpy.savez_compressed
(bfloat16 as float32). dtypes: torch.randn, arange or ones of each dtype; `transposed` is
float32.t(), `sliced` float32[1:5:2, 2:7:3], `head` and `tail` [:5] and [12:].view(2, 4) of 20
numbers; `parameter` and `buffer` are nn.Parameters. unsigned: dtypes that have no storage class.
module: the state dict of Sequential(Conv2d(2, 3, 3), BatchNorm2d(3), Linear(3, 2)). whole_module:
that Sequential itself. lightning: its state dict under "state_dict", beside callbacks {a class: an
object}, hyper-parameters in a subclass of dict that holds itself, the state of an Adam, a
Namespace, a datetime, NumPy arrays, sets, an enum and the like.
"""

import pathlib
import pickle
import random
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from test_pickles import ATTACKS, marked  # noqa: F401 (a fixture)

from evqgan.convert import torch_files, torch_tensors
from evqgan.core.errors import InputError

FILES = pathlib.Path(__file__).parent / "torch_files"
WRITTEN = sorted(path.name for path in FILES.glob("*.pth") if not path.name.startswith("whole"))


# A pickle by hand, in protocol 2. Each helper gives the opcodes that leave one value on the stack.


def name(dotted):
    return b"c%s\n%s\n" % tuple(part.encode() for part in dotted.rsplit(".", 1))


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuples(*items):
    return b"(" + b"".join(items) + b"t"


def numbers(*values):
    return tuples(*map(number, values))


def call(function, *arguments):
    return name(function) + tuples(*arguments) + b"R"


def table(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(count, kind="torch.FloatStorage", key="0", view=()):
    return tuples(text("storage"), name(kind), text(key), text("cpu"), number(count), *view) + b"Q"


def tensor(stored, offset=0, shape=(2, 3), strides=(3, 1)):
    ends = b"\x89", call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2",
        stored,
        number(offset),
        numbers(*shape),
        numbers(*strides),
        *ends,
    )


# Files around a pickle.

SIX = np.arange(6, dtype=np.float32)
BYTES = SIX.tobytes()


def zipped(path, pickled, entries=(("data/0", BYTES),), root="archive", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{root}/data.pkl", b"\x80\x02" + pickled + b".")
        for entry, data in entries:
            archive.writestr(f"{root}/{entry}", data)
    return path


def legacy(path, pickled, storages=(("0", 6, BYTES),)):
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts = [pickle.dumps(value, 2) for value in head] + [b"\x80\x02" + pickled + b"."]
    parts += [pickle.dumps([key for key, _, _ in storages], 2)]
    parts += [struct.pack("<q", count) + data for _, count, data in storages]
    path.write_bytes(b"".join(parts))
    return path


def refused(path, match=None):
    with pytest.raises(InputError, match=match) as caught:
        torch_files.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def equal(found, expected):
    assert list(found) == list(expected)
    for key, array in found.items():
        if array.dtype == ml_dtypes.bfloat16:
            array = array.astype(np.float32)
        assert array.dtype == expected[key].dtype and array.shape == expected[key].shape, key
        assert (
            np.ascontiguousarray(array).tobytes() == np.ascontiguousarray(expected[key]).tobytes()
        ), key


@pytest.mark.parametrize("file", WRITTEN)
def test_what_pytorch_wrote_is_read_bit_for_bit(file):
    kind = file.split("_")[0].replace("lightning", "module")
    with np.load(FILES / f"{kind}.npz", allow_pickle=False) as expected:
        equal(torch_files.read(FILES / file), dict(expected))


@pytest.mark.parametrize("file", ["dtypes_zip.pth", "dtypes_legacy.pth"])
def test_arrays_are_read_only_views_of_their_storages(file):
    found = torch_files.read(FILES / file)
    assert found["bfloat16"].dtype == ml_dtypes.bfloat16
    assert np.shares_memory(found["float32"], found["transposed"]) and found[
        "expanded"
    ].strides == (0,)
    assert found["transposed"].T.tolist() == found["float32"].tolist()
    for array in found.values():
        if array.dtype != bool and array.size:
            with pytest.raises(ValueError):
                array[...] = 0


def test_a_whole_module_is_refused_by_the_name_of_its_class():
    refused(
        FILES / "whole_module_zip.pth",
        "expected a dict of tensors at its top, got an object of torch.nn.modules",
    )


@pytest.mark.parametrize("make", [zipped, legacy])
def test_the_forms_of_older_versions(tmp_path, make):
    """PyTorch 0.1 to 0.3: no hooks, torch.Size, Python 2's OrderedDict, parameters.

    There are storages of GPUs, and modules.
    """
    sizes = [
        call("torch.Size", b"](" + b"".join(map(number, dims)) + b"e") for dims in ((2, 3), (3, 1))
    ]
    first = call(
        "torch._utils._rebuild_tensor", storage(6, "torch.cuda.FloatStorage"), number(0), *sizes
    )
    second = call("torch.nn.parameter.Parameter", tensor(storage(6)), b"\x88")
    third = call("torch._utils._rebuild_parameter", tensor(storage(6)), b"\x88", b"N")
    pairs = [
        b"](" + text(key) + value + b"e"
        for key, value in (("a", first), ("b", second), ("c", third))
    ]
    module = tuples(
        text("module"),
        call("collections.OrderedDict", b"](" + b"".join(pairs) + b"e"),
        text(""),
        text(""),
    )
    equal(
        torch_files.read(make(tmp_path / "x.pth", module + b"Q")),
        dict.fromkeys("abc", SIX.reshape(2, 3)),
    )


def test_a_part_of_a_storage_as_a_storage(tmp_path):
    view = (tuples(text("1"), number(2), number(3)),)
    one = tensor(storage(6, view=view), 1, (2,), (1,))
    equal(torch_files.read(legacy(tmp_path / "x.pth", table(a=one))), {"a": SIX[3:5]})
    refused(
        legacy(tmp_path / "y.pth", table(a=tensor(storage(6, view=view), 2, (2,), (1,)))),
        "a reaches beyond",
    )
    outside = (tuples(text("1"), number(4), number(3)),)
    refused(
        legacy(tmp_path / "z.pth", table(a=tensor(storage(6, view=outside), 0, (1,), (1,)))),
        "outside of it",
    )


def test_numbers_of_a_machine_with_the_other_byte_order(tmp_path):
    entries = (
        ("byteorder", b"big"),
        ("data/0", SIX.astype(">f4").tobytes()),
        ("data/1", b"\x01\x02\x03\x04"),
    )
    short = call(
        "torch._utils._rebuild_tensor_v3",
        storage(4, "torch.storage.UntypedStorage", "1"),
        number(1),
    )
    short = short[:-2] + numbers(1) + numbers(1) + b"\x89N" + name("torch.uint16") + b"tR"
    found = torch_files.read(
        zipped(tmp_path / "x.pth", table(a=tensor(storage(6)), b=short), entries)
    )
    equal(found, {"a": SIX.reshape(2, 3), "b": np.array([0x0304], np.uint16)})
    refused(
        zipped(
            tmp_path / "y.pth", table(a=tensor(storage(6))), (("byteorder", b"middle"), entries[1])
        ),
        "byte order",
    )


def test_safetensors_are_read_too(tmp_path):
    arrays = {"b": SIX, "a": np.ones((2, 2), ml_dtypes.bfloat16)}
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors")
    found = torch_files.read(tmp_path / "x.safetensors")
    assert (
        sorted(found) == ["a", "b"]
        and found["a"].dtype == ml_dtypes.bfloat16
        and found["b"].tolist() == SIX.tolist()
    )
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-1])
    refused(tmp_path / "x.safetensors", "is damaged: .*; fetch it again")
    safetensors.numpy.save_file({"a\x1b[2J": np.zeros(1)}, tmp_path / "y.safetensors")
    refused(tmp_path / "y.safetensors", "the name of a weight is no printable text")


# What is hostile.


@pytest.mark.parametrize("make", [zipped, legacy])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_checkpoint_runs(tmp_path, marked, make, attack):  # noqa: F811
    payload = ATTACKS[attack](str(marked))[:-1]
    # Its header and frame.
    payload = payload[11:] if payload[:2] in (b"\x80\x04", b"\x80\x05") else payload
    payload = payload.removeprefix(b"\x80\x02")
    good = tensor(storage(6))
    refused(
        make(tmp_path / "top.pth", payload),
        "expected a dict of tensors at its top|expected tensors at its top",
    )
    refused(
        make(tmp_path / "weight.pth", table(a=good, b=payload)), "b is an object of .*, no tensor"
    )
    beside = table(callbacks=payload, state_dict=table(a=good), more=payload)
    equal(torch_files.read(make(tmp_path / "beside.pth", beside)), {"a": SIX.reshape(2, 3)})
    hooked = good[: -len(call("collections.OrderedDict")) - 2] + payload + b"tR" + payload + b"b"
    equal(torch_files.read(make(tmp_path / "state.pth", table(a=hooked))), {"a": SIX.reshape(2, 3)})
    named = b"}" + payload + good + b"s"
    refused(make(tmp_path / "name.pth", named), "the name of a weight is no printable text")
    refused(
        make(tmp_path / "storage.pth", table(a=tensor(payload), b=good)),
        "a is an object of tensor in",
    )
    for id_ in (
        payload,
        tuples(payload),
        tuples(text("storage"), payload, text("0"), text("cpu"), number(6)),
    ):
        refused(make(tmp_path / "id.pth", table(a=tensor(id_ + b"Q"))), "cannot use")
    assert not marked.exists()


FAR = 2**40
BAD = {
    "longer than its storage": tensor(storage(6), 0, (7,), (1,)),
    "past the end": tensor(storage(6), 4, (3,), (1,)),
    "strides past the end": tensor(storage(6), 0, (2, 3), (4, 1)),
    "a huge offset": tensor(storage(6), FAR, (1,), (1,)),
    "a negative offset": tensor(storage(6), -1, (2,), (1,)),
    "a negative stride": tensor(storage(6), 5, (2,), (-1,)),
    "a negative size": tensor(storage(6), 0, (-1,), (1,)),
    "a size beyond 64 bits": tensor(storage(6), 0, (2**70,), (0,)),
    "expanded without end": tensor(storage(6), 0, (FAR, FAR), (0, 0)),
    "an empty tensor of huge axes": tensor(storage(6), 0, (0, 2**50, 2**50), (1, 1, 1)),
    "too many axes": tensor(storage(6), 0, (1,) * 40, (1,) * 40),
    "fewer strides than axes": tensor(storage(6), 0, (2, 3), (1,)),
    "a storage larger than the file has": tensor(storage(7), 0, (1,), (1,)),
    "a storage smaller than the file has": tensor(storage(5), 0, (1,), (1,)),
    "a storage of a terabyte": tensor(storage(FAR), 0, (1,), (1,)),
    "a storage beyond 64 bits": tensor(storage(2**80), 0, (1,), (1,)),
    "a storage of negative size": tensor(storage(-6), 0, (1,), (1,)),
    "a storage that is not in the file": tensor(storage(6, key="../0"), 0, (1,), (1,)),
    "a storage of another dtype": tensor(storage(6, "torch.DoubleStorage"), 0, (1,), (1,)),
    "a storage of an unknown kind": tensor(storage(6, "torch.QInt8Storage"), 0, (1,), (1,)),
    "a storage of a foreign class": tensor(storage(6, "os.FloatStorage"), 0, (1,), (1,)),
    "the size as text": call(
        "torch._utils._rebuild_tensor_v2", storage(6), number(0), text("ab"), numbers(1, 1)
    ),
    "too few arguments": call("torch._utils._rebuild_tensor_v2", storage(6)),
    "a storage that is none": tensor(number(3)),
    "a persistent id that is none": tensor(number(3) + b"Q"),
    "a persistent id of another kind": tensor(tuples(text("tensor"), *[number(1)] * 4) + b"Q"),
    "a dict of pairs that are none": call("collections.OrderedDict", numbers(1, 2)),
}


@pytest.mark.parametrize("make", [zipped, legacy])
@pytest.mark.parametrize("bad", BAD)
def test_tensors_that_lie_are_refused_without_taking_memory(tmp_path, make, bad):
    path = make(tmp_path / "x.pth", table(a=BAD[bad]))
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_the_entries_of_a_zip_file_are_checked(tmp_path):
    good = table(a=tensor(storage(6)))
    whole = [("data/0", BYTES)]
    torch_files.read(zipped(tmp_path / "good.pth", good))
    torch_files.read(
        zipped(
            tmp_path / "good.pth",
            good,
            [*whole, ("version", b"3\n"), (".data/serialization_id", b"1")],
        )
    )
    refused(
        zipped(tmp_path / "a.pth", good, method=zipfile.ZIP_DEFLATED), "compressed or encrypted"
    )
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(tmp_path / "b.pth", good, whole * 2)
    refused(tmp_path / "b.pth", "two entries of the zip file have one name")
    refused(zipped(tmp_path / "c.pth", good, [*whole, ("constants.pkl", b"")]), "TorchScript")
    refused(zipped(tmp_path / "d.pth", good, root="a/b"), "expected a zip file made by torch.save")
    refused(zipped(tmp_path / "e.pth", good, []), "storage '0' should have 24 bytes in the file")
    data = bytearray(zipped(tmp_path / "f.pth", good).read_bytes())
    data[data.index(BYTES) + 3] ^= 1
    (tmp_path / "f.pth").write_bytes(data)
    refused(tmp_path / "f.pth", "is damaged: Bad CRC-32")


MANY = 20_000
BUILD = name("torch._utils._rebuild_tensor_v2")
BOOLS = storage(10**5, "torch.BoolStorage")
FLAT = number(0), numbers(10**5), numbers(1), b"\x89", b"}"


def many(value):
    """A pickled dict of MANY copies of what stands in the memo under 0 after `value`."""
    return value + b"q\x000}(" + b"".join(text(str(i)) + b"h\x00" for i in range(MANY)) + b"u"


@pytest.mark.parametrize(
    "pickled, order",
    [
        (many(BUILD + tuples(BOOLS, *FLAT) + b"R"), b"little"),  # each bool a copy
        # Each number swapped.
        (many(BUILD + tuples(storage(10**5, "torch.ByteStorage"), *FLAT) + b"R"), b"big"),
        (  # a long list, which is to be a size again and again
            b"]("
            + b"K\x01" * 10**5
            + b"eq\x000]("
            + (name("torch.Size") + b"(h\x00tR") * MANY
            + b"e",
            b"little",
        ),
        (  # a long name, put together again and again
            b"\x80\x04" + text("x" * 10**5) + b"q\x000](" + b"h\x00h\x00\x93" * MANY + b"e",
            b"little",
        ),
    ],
    ids=["bools", "swapped", "sizes", "names"],
)
def test_small_files_do_not_take_much_memory(tmp_path, pickled, order):
    path = zipped(tmp_path / "x.pth", pickled, [("data/0", bytes(10**5)), ("byteorder", order)])
    assert path.stat().st_size < 2 * 10**6
    tracemalloc.start()
    try:
        line = refused(path)
        assert tracemalloc.get_traced_memory()[1] < 200 * 10**6
    finally:
        tracemalloc.stop()
    assert "would take more than 4 times the" in line or "takes more than 10,000,000 steps" in line


def test_parts_of_one_storage_are_read_once(tmp_path):
    parts = [
        storage(10**6, "torch.ByteStorage", view=[tuples(text("v"), number(i), number(1))])
        for i in range(200)
    ]
    items = {f"w{i}": tensor(part, shape=(1,), strides=(1,)) for i, part in enumerate(parts)}
    path = zipped(tmp_path / "x.pth", table(**items), [("data/0", bytes(10**6))])
    tracemalloc.start()
    found = torch_files.read(path)
    assert len(found) == 200 and tracemalloc.get_traced_memory()[1] < 20 * 10**6
    tracemalloc.stop()


def test_not_enough_memory_is_told_as_damage(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    path = zipped(tmp_path / "x.pth", table(a=tensor(storage(6))))
    monkeypatch.setattr(torch_tensors, "array", fail)
    refused(path, "its structure is broken; if it is damaged")


def test_a_zip_file_whose_entries_overlap_is_refused(tmp_path):
    """Many names for the same bytes: each storage is within the file, all of them are not."""
    big = bytes(10**6)
    path = zipped(
        tmp_path / "x.pth", table(a=tensor(storage(6))), [("data/0", BYTES), ("data/1", big)]
    )
    with zipfile.ZipFile(path, "a") as archive:
        again = archive.getinfo("archive/data/1")
        for i in range(2, 5):
            archive.filelist.append(copied := zipfile.ZipInfo(f"archive/data/{i}"))
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(copied, field, getattr(again, field))
        archive._didModify = True
    refused(path, "the entries of the zip file overlap")


def test_the_storages_of_a_legacy_file_are_checked(tmp_path):
    good, data = table(a=tensor(storage(6))), BYTES
    refused(legacy(tmp_path / "x.pth", good, [("0", 5, data)]), "storage '0' should have 24 bytes")
    refused(legacy(tmp_path / "x.pth", good, [("0", -6, data)]), "storage '0' should have 24 bytes")
    refused(
        legacy(tmp_path / "x.pth", good, [("0", 6, data[:-1])]), "storage '0' should have 24 bytes"
    )
    refused(legacy(tmp_path / "x.pth", good, [("1", 6, data)]), "storage '0' is not in the file")
    refused(legacy(tmp_path / "x.pth", good, []), "storage '0' is not in the file")
    two = table(a=tensor(storage(6)), b=tensor(storage(7)))
    refused(legacy(tmp_path / "x.pth", two), "storage '0' has two sizes")
    bomb = ()
    for _ in range(100):
        bomb = (bomb, bomb)  # its hash takes 2^100 steps
    refused(legacy(tmp_path / "x.pth", good, [(bomb, 6, data)]), "storage '0' is not in the file")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "it begins with b''"),
        (
            b"<!DOCTYPE html><html>",
            "expected a PyTorch checkpoint or a .safetensors file, it begins with b'<!DOCTYPE",
        ),
        (b"version https://git-lfs.github.com/spec/v1", "it begins with b'version https:"),
        (pickle.dumps({"a": 1}), "expected a PyTorch checkpoint"),
        (b"PK\x03\x04 and no more", "is damaged: File is not a zip file"),
        (torch_files.LEGACY, "cannot use"),
        (torch_files.LEGACY + b"\x80\x02K\x01.", "cannot use"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", message)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    refused(tmp_path / "none.pth", "cannot read .*none.pth: No such file or directory")
    refused(tmp_path, "cannot read .*: expected a file, but .* is a folder")


@pytest.mark.parametrize("make", [zipped, legacy])
def test_a_dict_without_tensors_is_refused_by_its_keys(tmp_path, make):
    refused(
        make(tmp_path / "x.pth", table(model=number(1), epoch=number(2))),
        "got the keys 'model', 'epoch'",
    )
    refused(make(tmp_path / "x.pth", table(state_dict=table())), "got the keys none")
    refused(
        make(tmp_path / "x.pth", table(**{"a\x1b[2J": tensor(storage(6))})), "no printable text"
    )


@pytest.mark.parametrize(
    "file", ["dtypes_zip.pth", "dtypes_legacy.pth", "lightning_zip.pth", "lightning_legacy.pth"]
)
def test_damage_anywhere_is_refused_or_gives_arrays(tmp_path, file):
    rng = random.Random(0)
    whole = (FILES / file).read_bytes()
    path = tmp_path / "x.pth"
    for i in range(300):
        data = bytearray(whole[: rng.randrange(1, len(whole))] if i % 3 == 0 else whole)
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert all(isinstance(array, np.ndarray) for array in torch_files.read(path).values())
        except InputError as error:
            assert "\n" not in str(error)
