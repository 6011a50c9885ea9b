"""Weights of frozen networks: one safetensors file each, of arrays and nothing that could run."""

import contextlib
import os
import pathlib
import shlex
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from evqgan.core.errors import InputError
from evqgan.core.files import atomic
from evqgan.core.mesh import path_name

Path = str | os.PathLike[str]
# In the metadata: CRC-32 of all arrays in the order of their names. safetensors checks no bytes.
CRC = "crc32"


def folder(where: Path = "") -> pathlib.Path:
    """Return the folder of the weights.

    where: the folder; "" is that of the environment variable EVQGAN_WEIGHTS, or else
      ~/.cache/evqgan/weights.
    """
    return pathlib.Path(
        where or os.environ.get("EVQGAN_WEIGHTS") or "~/.cache/evqgan/weights"
    ).expanduser()


def path(where: Path, network: str) -> pathlib.Path:
    """Return the file of a network's weights, there or not."""
    return folder(where) / f"{network}.safetensors"


def command(where: Path, network: str) -> str:
    """Return the command line that fetches the weights of `network` into `where`."""
    return f"python -m evqgan.convert {network} --download{f' {shlex.quote(str(where))}' if where else ''}"


def require(where: Path, networks: Iterable[str]) -> None:
    """Raise InputError, with the commands that get them, for networks whose weights are missing.

    where: as in `folder`.
    """
    missing = [network for network in dict.fromkeys(networks) if not path(where, network).is_file()]
    if missing:
        commands = " && ".join(command(where, network) for network in missing)
        raise InputError(
            f"there are no weights of {', '.join(missing)} in {folder(where)}: get them with `{commands}`, or train "
            'with untrained features by weights="random" in the config'
        )


def save(file: Path, tree: Any, metadata: Mapping[str, str]) -> None:
    """Write a nested dict of arrays, whole or not at all.

    In the file their names are their paths ("params/conv1/kernel"). Raises InputError if the disk
    is full or the place cannot be written.

    metadata: kept in the file.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays = {path_name(at): np.asarray(leaf, order="C") for at, leaf in leaves}
    data = safetensors.numpy.save(arrays, {**metadata, CRC: _crc(arrays)})
    with atomic(file) as stream:
        stream.write(data)


def load(where: Path, network: str, like: Any) -> Any:
    """Return the weights of `network` as a tree of NumPy arrays with the structure of `like`.

    Raises InputError if the file is missing (see `require`), damaged, or has other arrays, shapes
    or dtypes than `like`.

    where: as in `folder`.
    like: a nested dict of arrays or jax.ShapeDtypeStructs.
    """
    wanted = {path_name(at): leaf for at, leaf in jax.tree_util.tree_leaves_with_path(like)}
    with _opened(where, network) as stored:
        problems = _differences({name: stored.get_slice(name) for name in stored.keys()}, wanted)  # noqa: SIM118
        if problems:
            more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise ValueError(f"not {network} as it is here, {'; '.join(problems[:5])}{more}")
        found = {name: stored.get_tensor(name) for name in wanted}
        if (stored.metadata() or {}).get(CRC, crc := _crc(found)) != crc:
            raise ValueError("damaged: its bytes are not those that were written")
    return jax.tree_util.tree_map_with_path(lambda at, _: found[path_name(at)], like)


def fill(frozen: Mapping[str, Any], pretrained: Mapping[str, str], where: Path) -> dict[str, Any]:
    """Return the frozen variables of a critic or a distance, with the weights read from files.

    Raises InputError as `load`.

    frozen: {name: tree}; what `pretrained` does not name stays as it is.
    pretrained: {name: network}, the PRETRAINED of the module in evqgan/losses.
    where: as in `folder`.
    """
    return {
        **frozen,
        **{name: load(where, network, frozen[name]) for name, network in pretrained.items()},
    }


def source(where: Path, network: str) -> dict[str, str]:
    """Return what the file of `network` says of its origin: {"source", "sha256", "licence"}.

    Raises InputError if there is no such file or it is damaged.

    where: as in `folder`.
    """
    with _opened(where, network) as stored:
        return {name: value for name, value in (stored.metadata() or {}).items() if name != CRC}


@contextlib.contextmanager
def _opened(where, network):
    """Yield the file of `network`, open.

    Raises InputError for all that is wrong with it, and in the place of a ValueError of the body.
    """
    require(where, [network])
    file = path(where, network)
    try:
        with safetensors.safe_open(file, framework="np") as stored:
            yield stored
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = (
            str(error)
            if isinstance(error, ValueError)
            else f"damaged or unreadable ({str(error).splitlines()[0]})"
        )
        raise InputError(
            f"{file} is {reason}: make it again with `{command(where, network)}`"
        ) from error


def _differences(stored, wanted):
    """Return one phrase for every array that is missing, too many, or of another shape or dtype."""
    found = [f"{name} is missing" for name in wanted if name not in stored]
    found += [f"{name} is none of its arrays" for name in stored if name not in wanted]
    for name in wanted.keys() & stored.keys():
        shape, dtype = list(stored[name].get_shape()), stored[name].get_dtype()
        expected = DTYPES[np.dtype(wanted[name].dtype).name]
        if (shape, dtype) != (list(wanted[name].shape), expected):
            found.append(
                f"{name} is {dtype} {shape} there, {expected} {list(wanted[name].shape)} here"
            )
    return sorted(found)


def _crc(arrays):
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8), crc)
    return f"{crc:08x}"


DTYPES = {  # as safetensors names them
    "bool": "BOOL",
    "bfloat16": "BF16",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
