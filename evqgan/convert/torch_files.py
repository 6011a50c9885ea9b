"""Read the weights of PyTorch checkpoints without PyTorch, and without running what is in them.

A checkpoint is a pickle of objects beside the raw numbers of its storages: in a zip file (since
PyTorch 1.6), or one after the other (`vgg16-397923af.pth`). PyTorch itself is 0.9 GB, and its own
safe reader (weights_only) refuses files that hold other objects too, such as the callbacks of
Lightning in taming-transformers' checkpoints; here they become inert (`pickles.load`), and only
what is asked for as a weight has to be a tensor.
"""

import pathlib
import struct
import zipfile
from typing import Any

import safetensors.numpy

from evqgan.convert import names, pickles, torch_tensors
from evqgan.convert.mapping import Path, Weights
from evqgan.convert.torch_containers import LEGACY, ZIP, open_legacy, open_zip
from evqgan.convert.torch_tensors import Tensor
from evqgan.core.errors import InputError, of_system

KEYS_IN_MESSAGE = 5  # ours
SHARED = 4  # ours: how many times larger than their file all tensors may be, which share numbers
BROKEN = (
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    MemoryError,
    struct.error,
)


def read(path: Path, which: str = "") -> Weights:
    """Return the weights in a .pth, .pt, .ckpt or .safetensors file: {name: array}.

    Of a checkpoint it is the dict of tensors at its top, or the one under "state_dict" or such.
    The arrays are read-only, and views share their memory. Their dtypes: float16, float32, float64,
    bfloat16 (of ml_dtypes), integers, bool. Damage to the numbers is noticed in zip files alone
    (CRC-32).

    which: "raw" or "ema", of a file that holds both (see `names`, also for the prefixes that names
        lose).

    Raises InputError, one line, if the file cannot be read, is damaged or of another kind.
    """
    path = pathlib.Path(path)
    try:
        return _read(path, which)
    except InputError as error:
        raise InputError(f"cannot use {path}: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {of_system(error)}") from error
    except BROKEN as error:
        reason = "its structure is broken"
        if type(error) is ValueError and str(error):
            reason = str(error).splitlines()[0]
        hint = "if it is damaged, fetch it again"
        raise InputError(f"cannot use {path}: {reason}; {hint}") from error
    except (zipfile.BadZipFile, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged: {reason}; fetch it again") from error


def _read(path: pathlib.Path, which: str) -> Weights:
    """Return what `read` does, and raise whatever a broken file leads to."""
    with open(path, "rb") as file:
        head = file.read(len(LEGACY))
    zipped = head.startswith(ZIP)
    if not zipped and head != LEGACY:
        if path.suffix == ".safetensors":
            arrays = safetensors.numpy.load_file(path)
            for name in arrays:
                _check_name(name)
            return names.plain(arrays, which)
        expected = "expected a PyTorch checkpoint or a .safetensors file"
        raise ValueError(f"{expected}, it begins with {head!r}")
    root, numbers, swapped = open_zip(path) if zipped else open_legacy(path)
    tensors, size = names.plain(*_state_dict(root, which)), path.stat().st_size
    total = sum(torch_tensors.memory(name, x, swapped) for name, x in tensors.items())
    if total > SHARED * size:
        limit = f"{SHARED} times the {size:,} bytes of the file"
        raise ValueError(f"its tensors would take more than {limit}")
    return {name: torch_tensors.array(name, x, numbers, swapped) for name, x in tensors.items()}


def _state_dict(root: Any, which: str) -> tuple[dict[str, Tensor], str]:
    """Return the {name: Tensor} of a checkpoint, and what is left open of `which`.

    root: what the checkpoint has at its top: that dict, or one that has it under "state_dict" or
        such.
    """
    found = root
    if isinstance(found, dict):
        found, which = names.chosen(found, which, _holds_tensors)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise ValueError(f"expected a dict of tensors at its top, got an object of {_kind(found)}")
    if not _holds_tensors(found):
        first = [name for name in list(found)[:KEYS_IN_MESSAGE] if isinstance(name, str)]
        keys = ", ".join(repr(name)[:60] for name in first) or "none"
        raise ValueError(f"expected tensors at its top or under 'state_dict', got the keys {keys}")
    for name, value in found.items():
        _check_name(name)
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is an object of {_kind(value)}, no tensor")
    return found, which


def _check_name(name: Any) -> None:
    """Raise ValueError for a name that no message can show, such as one with control characters."""
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError("the name of a weight is no printable text")


def _holds_tensors(value: Any) -> bool:
    """Return whether a value is a dict in which there is a tensor."""
    return isinstance(value, dict) and any(isinstance(one, Tensor) for one in value.values())


def _kind(value: Any) -> str:
    """Return the class of a value, as text for a message."""
    if isinstance(value, pickles.Foreign | pickles.Global):
        return ascii(value.name)[1:-1][:60]
    return type(value).__name__
