"""Reads the weights of PyTorch checkpoints without PyTorch, and without running anything that stands in them.

A checkpoint is a pickle of objects beside the raw numbers of its storages: in a zip file (since PyTorch 1.6), or one
after the other (`vgg16-397923af.pth`). PyTorch itself is 0.9 GB, and its own safe reader (weights_only) refuses files
that hold other objects too, such as the callbacks of Lightning in taming-transformers' checkpoints; here they become
inert (`pickles.load`), and only what is asked for as a weight has to be a tensor.
Source of the formats: torch/serialization.py and torch/_utils.py of PyTorch 0.1 to 2.13.
"""

import functools
import io
import math
import mmap
import pathlib
import struct
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy

from evqgan.convert import names, pickles
from evqgan.convert.mapping import Path, Weights
from evqgan.core.errors import InputError

ZIP, LEGACY = (
    b"PK\x03\x04",
    bytes.fromhex("80028a0a6cfc9c46f9206aa850192e"),
)  # first bytes; the latter: a pickled number
DIMENSIONS = 32  # ours: axes that a tensor may have; NumPy takes 64
SHOWN = 5  # ours: names in a message
SHARED = (
    4  # ours: how many times larger than their file all tensors may be, which may share numbers
)
DTYPES = {
    **{
        name: np.dtype(name)
        for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")
    },
    **{
        name: np.dtype(name)
        for name in ("bool", "uint16", "uint32", "uint64", "complex64", "complex128")
    },
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
STORAGES = {  # the class of a storage -> the dtype of its numbers
    **{
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Bool": "bool",
    },
    **{
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Untyped": "uint8",
    },
    **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
}
BROKEN = (
    ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RuntimeError, EOFError, MemoryError,
    struct.error,
)  # fmt: skip


class Storage(NamedTuple):
    """`size` bytes from `start` on of the storage `key`, which has `total` bytes. `dtype`: of its numbers."""

    key: str
    dtype: np.dtype
    start: int
    size: int
    total: int


class Tensor(NamedTuple):
    """A tensor whose numbers are not read yet. offset, strides: in elements of `dtype`."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple
    dtype: np.dtype


def read(path: Path, which: str = "") -> Weights:
    """The weights in a .pth, .pt, .ckpt or .safetensors file -> {name: array}, read-only; views share their memory.

    Of a checkpoint it is the dict of tensors at its top, or the one under "state_dict" or such; which: "raw" or "ema",
    of a file that holds both (see `names`, also for the prefixes that names lose). dtypes: float16, float32,
    float64, bfloat16 (of ml_dtypes), integers, bool. Damage to the numbers is noticed in zip files alone (CRC-32).
    InputError, one line, if the file cannot be read, is damaged or of another kind.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(len(LEGACY))
        if head[:4] != ZIP and head != LEGACY and path.suffix != ".safetensors":
            raise ValueError(
                f"expected a PyTorch checkpoint or a .safetensors file, it begins with {head!r}"
            )
        if head[:4] != ZIP and head != LEGACY:
            return names.plain(safetensors.numpy.load_file(path), which)
        found, numbers, swapped = _zip(path) if head[:4] == ZIP else _legacy(path)
        tensors, size = names.plain(*_state_dict(found, which)), path.stat().st_size
        if sum(_bytes(name, tensor, swapped) for name, tensor in tensors.items()) > SHARED * size:
            raise ValueError(
                f"its tensors would take more than {SHARED} times the {size:,} bytes of the file"
            )
        return {name: _array(name, tensor, numbers, swapped) for name, tensor in tensors.items()}
    except InputError as error:
        raise InputError(f"cannot use {path}: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except BROKEN as error:
        reason = (
            str(error).splitlines()[0]
            if type(error) is ValueError and str(error)
            else "its structure is broken"
        )
        raise InputError(
            f"cannot use {path}: {reason}; if it is damaged, fetch it again"
        ) from error
    except (zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is damaged: {str(error).splitlines()[0]}; fetch it again"
        ) from error


def _zip(path):
    """A checkpoint in a zip file -> its object, a function from a storage to its bytes, whether to swap them."""
    archive = zipfile.ZipFile(path)
    entries = {entry.filename: entry for entry in archive.infolist()}
    roots = [
        name.removesuffix("/data.pkl")
        for name in entries
        if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(roots) != 1 or f"{roots[0]}/constants.pkl" in entries:
        raise ValueError(
            "expected a zip file made by torch.save: one data.pkl and no constants.pkl (TorchScript)"
        )
    if len(entries) != len(archive.infolist()):
        raise ValueError("two entries of the zip file have one name")
    if any(
        entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1
        for entry in entries.values()
    ):
        raise ValueError(
            "an entry of the zip file is compressed or encrypted, which torch.save does not do"
        )
    if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
        raise ValueError("the entries of the zip file overlap")
    order = (
        archive.read(f"{roots[0]}/byteorder") if f"{roots[0]}/byteorder" in entries else b"little"
    )
    if order not in (b"little", b"big"):
        raise ValueError(f"its byte order is {order[:12]!r}")

    @functools.cache
    def content(key):
        return np.frombuffer(archive.read(entries[key]), np.uint8)

    def numbers(storage):
        key = f"{roots[0]}/data/{storage.key}"
        if key not in entries or entries[key].file_size != storage.total:
            raise ValueError(
                f"storage {storage.key!r} should have {storage.total} bytes in the file"
            )
        return content(key)

    found = pickles.load(io.BytesIO(archive.read(f"{roots[0]}/data.pkl")), KNOWN, _persistent)
    return found, numbers, order == b"big"


def _legacy(path):
    """A checkpoint from before PyTorch 1.6 -> its object, a function from a storage to its bytes, False."""
    storages = {}

    def persistent(value):
        storage = _persistent(value)
        if (
            isinstance(storage, Storage)
            and storages.setdefault(storage.key, storage).total != storage.total
        ):
            raise ValueError(f"storage {storage.key!r} has two sizes")
        return storage

    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for _ in range(
        3
    ):  # the magic number, the version of the protocol, the system that wrote the file
        pickles.load(content, {})
    found = pickles.load(content, KNOWN, persistent)
    keys, places, at = pickles.load(content, {}), {}, content.tell()
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:  # of a kind that we do not know: where it ends is not known either
            break
        (count,) = struct.unpack_from("<q", content, at)
        at += 8
        if count * storage.dtype.itemsize != storage.total or at + storage.total > len(content):
            raise ValueError(f"storage {key!r} should have {storage.total} bytes in the file")
        places[key] = at
        at += storage.total

    def numbers(storage):
        if storage.key not in places:
            raise ValueError(
                f"storage {storage.key!r} is not in the file, or behind one of an unknown kind"
            )
        return np.frombuffer(content, np.uint8, storage.total, places[storage.key])

    return found, numbers, False


def _persistent(value):
    """What a persistent id of a checkpoint stands for: a Storage, or Foreign for one of a kind we do not know."""
    if not isinstance(value, tuple) or len(value) < 2:
        raise ValueError("the pickle refers to what is no storage")
    if value[0] == "module":  # a whole module, followed by its source code
        return value[1]
    tag, kind, key, _, count, *view = value
    if (
        tag != "storage"
        or not isinstance(kind, pickles.Global)
        or not isinstance(key, str)
        or not _whole([count])
    ):
        raise ValueError("the pickle refers to what is no storage")
    dtype = DTYPES.get(
        STORAGES.get(kind.name.rsplit(".", 1)[-1].lstrip("_").removesuffix("Storage"))
    )
    if dtype is None or not kind.name.startswith("torch."):
        return pickles.Foreign(kind.name)
    start, size = 0, count
    if view and view[0] is not None:  # PyTorch 0.1: part of a storage as another one
        _, start, size = view[0]
        if not _whole([start, size]) or start + size > count:
            raise ValueError(f"a part of storage {key!r} lies outside of it")
    return Storage(key, dtype, *(n * dtype.itemsize for n in (start, size, count)))


def _tensor(storage, offset, shape, strides, *_):
    """Tensor from the arguments of torch._utils._rebuild_tensor and ..._v2; Foreign if its storage is."""
    if not isinstance(storage, Storage):
        return pickles.Foreign(f"tensor in {getattr(storage, 'name', type(storage).__name__)}")
    return Tensor(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _tensor_of_dtype(storage, offset, shape, strides, requires_grad, hooks, dtype, *_):
    """Tensor from the arguments of torch._utils._rebuild_tensor_v3, for dtypes that have no storage class."""
    tensor, found = (
        _tensor(storage, offset, shape, strides),
        DTYPES.get(dtype.name.removeprefix("torch.")),
    )
    if not isinstance(tensor, Tensor) or found is None:
        return pickles.Foreign(f"tensor of {dtype.name}")
    return tensor._replace(dtype=found)


def _dict(pairs=()):
    """The dict of an OrderedDict; Python 2 pickled it as a list of pairs."""
    return {
        key if type(key) in pickles.SCALARS else pickles.Foreign("key"): value
        for key, value in pairs
    }


KNOWN = {  # what is not Foreign: functions of ours that only put values together
    "collections.OrderedDict": _dict,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.nn.parameter.Parameter": lambda data, *_: data,  # PyTorch 0.3
}


def _state_dict(found, which):
    """The {name: Tensor} at the top of a checkpoint, or under "state_dict" or such, and what `which` leaves open."""
    if isinstance(found, dict):
        found, which = names.chosen(found, which, _holds_tensors)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise ValueError(f"expected a dict of tensors at its top, got an object of {_kind(found)}")
    if not _holds_tensors(found):
        keys = (
            ", ".join(repr(name)[:60] for name in list(found)[:SHOWN] if isinstance(name, str))
            or "none"
        )
        raise ValueError(f"expected tensors at its top or under 'state_dict', got the keys {keys}")
    for name, value in found.items():
        if not isinstance(name, str) or not name.isprintable():
            raise ValueError("the name of a weight is no printable text")
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is an object of {_kind(value)}, no tensor")
    return found, which


def _holds_tensors(value):
    return isinstance(value, dict) and any(isinstance(one, Tensor) for one in value.values())


def _bytes(name, tensor, swapped):
    """How much memory `_array` takes, were it to copy; ValueError for a shape that cannot be."""
    _, offset, shape, strides, dtype = tensor
    if (
        len(shape) > DIMENSIONS
        or len(shape) != len(strides)
        or not _whole([offset, *shape, *strides])
    ):
        raise ValueError(f"{name} has no possible shape")
    span = 1 + sum(
        (n - 1) * stride for n, stride in zip(shape, strides, strict=True)
    )  # swapped ones are copied first
    return max(math.prod(shape), span if swapped and math.prod(shape) else 0) * dtype.itemsize


def _array(name, tensor, numbers, swapped):
    """The numbers of a Tensor that `_bytes` found possible, a view of its storage; ValueError if it reaches beyond."""
    storage, offset, shape, strides, dtype = tensor
    strides = [stride if n > 1 else 0 for n, stride in zip(shape, strides, strict=True)]
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    if (last + 1) * dtype.itemsize > storage.size:
        raise ValueError(f"{name} reaches beyond its storage")
    part = numbers(storage)[
        storage.start + offset * dtype.itemsize : storage.start + (last + 1) * dtype.itemsize
    ]
    if swapped:
        part = np.ascontiguousarray(part.reshape(-1, dtype.itemsize)[:, ::-1]).reshape(-1)
    stored = (
        np.uint8 if dtype.kind == "b" else dtype
    )  # a bool of NumPy is 0 or 1, a byte of a file is anything
    steps = [stride * dtype.itemsize for stride in strides]
    array = np.lib.stride_tricks.as_strided(part.view(stored), shape, steps, writeable=False)
    return array != 0 if dtype.kind == "b" else array


def _whole(values):
    return all(type(value) is int and 0 <= value < 2**60 for value in values)


def _kind(value):
    """The class of a value, as text for a message."""
    return (
        ascii(value.name)[1:-1][:60]
        if isinstance(value, pickles.Foreign | pickles.Global)
        else type(value).__name__
    )
