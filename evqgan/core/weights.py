"""Weights in safetensors files, which hold nothing that could run: those of frozen networks.

Each network has a file. Those of an exported model are in `core.exported_weights`.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shlex
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from evqgan.core import files, stores
from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name

Path = str | os.PathLike[str]
# In the metadata: CRC-32 of all arrays in the order of their names; safetensors itself checks no
# bytes.
CRC = "crc32"
SHIPPED = pathlib.Path(__file__).parent.parent / "features"  # files that this package holds
# Networks that lie in a package, which is had wherever Python's packages are; see
# `convert.packages`.
PACKAGED = ("efficientnet_lite0", "efficientnet_lite0_head")


def folder(where: Path = "") -> pathlib.Path:
    """Return where weights lie.

    It is `where`, or if that is "" the environment's EVQGAN_WEIGHTS, or ~/.cache/evqgan/weights.
    """
    usual = os.environ.get("EVQGAN_WEIGHTS") or "~/.cache/evqgan/weights"
    return stores.path(where or usual).expanduser()


def is_shipped(network: str) -> bool:
    """Return whether this package holds the weights of a network."""
    return (SHIPPED / f"{network}.safetensors").is_file()


def path(where: Path, network: str) -> pathlib.Path:
    """Return the file of a network's weights, there or not; of a shipped one, ours."""
    place = SHIPPED if is_shipped(network) else folder(where)
    return place / f"{network}.safetensors"


def command(where: Path, network: str) -> str:
    """Return the command line that fetches the weights of `network` into `where`."""
    dest = f" {shlex.quote(str(where))}" if where else ""
    way = "--package" if network in PACKAGED else "--download"
    return f"python -m evqgan.convert {network} {way}{dest}"


def require(where: Path, networks: Iterable[str]) -> None:
    """Raise InputError unless the weights of all `networks` lie in `where`.

    It is one line, with the commands that get them.
    """
    missing = [network for network in dict.fromkeys(networks) if not path(where, network).is_file()]
    if missing:
        commands = " && ".join(command(where, network) for network in missing)
        hint = "take untrained ones by weights=random, in the config or as a benchmark's --weights"
        place = f"{folder(where)}{stores.beginning(folder(where))}"
        raise InputError(
            f"there are no weights of {', '.join(missing)} in {place}: "
            f"get them with `{commands}`, or {hint}"
        )


def save(file: Path, tree: Any, metadata: Mapping[str, str]) -> None:
    """Write a nested dict of arrays, whole or not at all.

    The arrays are named by their paths ("params/conv1/kernel").

    metadata: kept in the file.

    Raises InputError if the disk is full or the folder cannot be written.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays = {path_name(at): np.asarray(leaf, order="C") for at, leaf in leaves}
    data = _ordered(safetensors.numpy.save(arrays, {**metadata, CRC: crc(arrays)}))
    with files.atomic(file) as stream:
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
            raise ValueError(f"not {network} as it is here, {first_of(problems)}")
        found = arrays(stored)
    return jax.tree_util.tree_map_with_path(lambda at, _: found[path_name(at)], like)


def fill(frozen: Mapping[str, Any], pretrained: Mapping[str, str], where: Path) -> dict[str, Any]:
    """Return the variables of frozen networks, the pretrained ones read from their files.

    frozen: {name: tree}.
    pretrained: {name: network}, those that are read.
    where: the folder of the files.

    Raises InputError as `load`.
    """
    return {
        **frozen,
        **{name: load(where, network, frozen[name]) for name, network in pretrained.items()},
    }


def source(where: Path, network: str) -> dict[str, str]:
    """Return what the file of a network says of its origin: source, sha256, licence.

    where: the file's folder.

    Raises InputError if there is no such file or it is damaged.
    """
    with _opened(where, network) as stored:
        return {name: value for name, value in (stored.metadata() or {}).items() if name != CRC}


def digest(where: Path, network: str) -> str:
    """Return the first 16 digits of a sha256 of a network's arrays and their names.

    It does not depend on the file that they came from. Raises InputError if there is no such file.
    """
    with _opened(where, network) as stored:
        return hashed((name, stored.get_tensor(name)) for name in sorted(stored.keys()))


def hashed(arrays: Iterable[tuple[str, Any]]) -> str:
    """Return 16 hexadecimal digits of a sha256 of arrays, one at a time, and of their names."""
    found = hashlib.sha256()
    for name, leaf in arrays:
        array = np.ascontiguousarray(leaf)
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:16]


@contextlib.contextmanager
def opened(file: Path, advice: str) -> Iterator[Any]:
    """Yield a file as `save` writes it, open.

    What is wrong with it, a ValueError of the body included, becomes InputError.

    advice: what to do then.
    """
    try:
        with (
            stores.as_file(stores.path(file)) as local,
            safetensors.safe_open(local, framework="np") as stored,
        ):
            yield stored
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if not isinstance(error, ValueError):
            reason = f"damaged or unreadable ({reason})"
        raise InputError(f"{file} is {reason}; {advice}") from error


def arrays(stored: Any) -> dict[str, np.ndarray]:
    """Return {name: array} of an open file; ValueError for other bytes than those written."""
    found = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    if (stored.metadata() or {}).get(CRC, number := crc(found)) != number:
        raise ValueError("damaged: its bytes are not those that were written")
    return found


def first_of(problems: Sequence[str]) -> str:
    """Return phrases as one: the first five, and how many more there are."""
    more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
    return f"{'; '.join(problems[:5])}{more}"


@contextlib.contextmanager
def _opened(where: Path, network: str) -> Iterator[Any]:
    """Yield the file of a network, open, as `opened` does; InputError if it is not there."""
    require(where, [network])
    with opened(path(where, network), f"make it again with `{command(where, network)}`") as stored:
        yield stored


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return one phrase for every array that is missing, too many, or of another shape or dtype."""
    found = [f"{name} is missing" for name in wanted if name not in stored]
    found += [f"{name} is none of its arrays" for name in stored if name not in wanted]
    for name in wanted.keys() & stored.keys():
        there = stored[name].get_dtype(), list(stored[name].get_shape())
        here = DTYPES[np.dtype(wanted[name].dtype).name], list(wanted[name].shape)
        if there != here:
            found.append("{} is {} {} there, {} {} here".format(name, *there, *here))
    return sorted(found)


def _ordered(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in the order of their names.

    safetensors writes them in any order, and the same weights would have several sha256.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def crc(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the CRC-32 of all arrays in the order of their names, 8 hexadecimal digits."""
    number = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        number = zlib.crc32(array.reshape(-1).view(np.uint8).data, number)
    return f"{number:08x}"


DTYPES = {  # as safetensors names them
    "bool": "BOOL",
    "bfloat16": "BF16",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
