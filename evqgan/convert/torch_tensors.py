"""Tensors of PyTorch's checkpoints: from what a pickle says of them to arrays.

A pickle refers to storages, the raw numbers that lie beside it, by persistent ids, and calls
functions that make tensors as views of them. Here both become plain records (`KNOWN`,
`persistent`), and arrays when they are asked for (`array`).
Source of the formats: torch/serialization.py and torch/_utils.py of PyTorch 0.1 to 2.13.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from evqgan.convert import pickles

DIMENSIONS = 32  # ours: axes that a tensor may have; NumPy takes 64
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
OTHERS = ("float64", "float32", "float16", "bool", "complex64", "complex128")
DTYPES = {
    **{name: np.dtype(name) for name in (*INTEGERS, *OTHERS)},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
STORAGES = {  # the class of a storage -> the dtype of its numbers
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Bool": "bool",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Untyped": "uint8",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}


class Storage(NamedTuple):
    """`size` bytes from `start` on of the storage `key`, which has `total` bytes."""

    key: str
    dtype: np.dtype  # of its numbers
    start: int
    size: int
    total: int


class Tensor(NamedTuple):
    """A tensor whose numbers are not read yet."""

    storage: Storage
    offset: int  # in elements of `dtype`
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements of `dtype`
    dtype: np.dtype


Read = Callable[[Storage], np.ndarray]  # all bytes of a storage, uint8


def persistent(value: Any) -> Any:
    """Return what a persistent id of a checkpoint stands for.

    It is a Storage, a whole module as its pickle gives it, or Foreign for a storage of an unknown
    kind.
    """
    if not isinstance(value, tuple) or len(value) < 2:
        raise ValueError("the pickle refers to what is no storage")
    if value[0] == "module":  # a whole module, followed by its source code
        return value[1]
    tag, kind, key, _, count, *view = value
    named = isinstance(kind, pickles.Global) and isinstance(key, str)
    if tag != "storage" or not named or not _whole([count]):
        raise ValueError("the pickle refers to what is no storage")
    name = kind.name.rsplit(".", 1)[-1].lstrip("_").removesuffix("Storage")
    dtype = DTYPES.get(STORAGES.get(name, ""))
    if dtype is None or not kind.name.startswith("torch."):
        return pickles.Foreign(kind.name)
    start, size = 0, count
    if view and view[0] is not None:  # PyTorch 0.1: part of a storage as another one
        _, start, size = view[0]
        if not _whole([start, size]) or start + size > count:
            raise ValueError(f"a part of storage {key!r} lies outside of it")
    return Storage(key, dtype, *(n * dtype.itemsize for n in (start, size, count)))


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> Tensor | pickles.Foreign:
    """Return the Tensor that torch._utils._rebuild_tensor and ..._v2 make of these arguments.

    It is Foreign if its storage is.
    """
    if not isinstance(storage, Storage):
        return pickles.Foreign(f"tensor in {getattr(storage, 'name', type(storage).__name__)}")
    return Tensor(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _tensor_of_dtype(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> Tensor | pickles.Foreign:
    """Return the Tensor of torch._utils._rebuild_tensor_v3, for dtypes without a storage class."""
    tensor = _tensor(storage, offset, shape, strides)
    found = DTYPES.get(dtype.name.removeprefix("torch."))
    if not isinstance(tensor, Tensor) or found is None:
        return pickles.Foreign(f"tensor of {dtype.name}")
    return tensor._replace(dtype=found)


def _dict(pairs: Iterable[tuple[Any, Any]] = ()) -> dict[Any, Any]:
    """Return the dict of an OrderedDict; Python 2 pickled it as a list of pairs."""
    return {
        key if type(key) in pickles.SCALARS else pickles.Foreign("key"): value
        for key, value in pairs
    }


KNOWN: dict[str, Callable[..., Any]] = {  # what is not Foreign: they only put values together
    "collections.OrderedDict": _dict,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.nn.parameter.Parameter": lambda data, *_: data,  # PyTorch 0.3
}


def memory(name: str, tensor: Tensor, swapped: bool) -> int:
    """Return the bytes that `array` takes, were it to copy.

    Raises ValueError for a shape that cannot be.
    """
    _, offset, shape, strides, dtype = tensor
    possible = len(strides) == len(shape) <= DIMENSIONS
    if not possible or not _whole([offset, *shape, *strides]):
        raise ValueError(f"{name} has no possible shape")
    number = math.prod(shape)
    if swapped and number:  # all that the tensor spans is copied first
        number = max(number, 1 + _last(shape, strides))
    return number * dtype.itemsize


def array(name: str, tensor: Tensor, read: Read, swapped: bool) -> np.ndarray:
    """Return the numbers of a Tensor that `memory` found possible, a view of its storage.

    read: gives the bytes of a storage.
    swapped: whether they are in the other byte order.

    Raises ValueError if the tensor reaches beyond its storage.
    """
    storage, offset, shape, strides, dtype = tensor
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    end = (offset + _last(shape, strides) + 1) * dtype.itemsize
    if end > storage.size:
        raise ValueError(f"{name} reaches beyond its storage")
    part = read(storage)[storage.start + offset * dtype.itemsize : storage.start + end]
    if swapped:
        part = np.ascontiguousarray(part.reshape(-1, dtype.itemsize)[:, ::-1]).reshape(-1)
    # A bool of NumPy is 0 or 1, a byte of a file is anything.
    stored = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    steps = [step * dtype.itemsize if n > 1 else 0 for n, step in zip(shape, strides, strict=True)]
    found = np.lib.stride_tricks.as_strided(part.view(stored), shape, steps, writeable=False)
    return found != 0 if dtype.kind == "b" else found


def _last(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Return how many elements lie between the first and the last one of a tensor."""
    return sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))


def _whole(values: Iterable[Any]) -> bool:
    """Return whether all values are whole numbers that a size can be."""
    return all(type(value) is int and 0 <= value < 2**60 for value in values)
