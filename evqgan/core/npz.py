"""Arrays in an `.npz`, written and read by pieces: none has to be in memory whole."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from evqgan.core import stores
from evqgan.core.errors import InputError, first_line
from evqgan.core.files import atomic


class Pieces(NamedTuple):
    """An array that is never in memory whole."""

    shape: tuple[int, ...]
    dtype: Any
    pieces: Iterable  # of it, along the first axis, in order


def save(path: str | os.PathLike[str], **arrays: Any) -> None:
    """Write named arrays or `Pieces` as a compressed `.npz`, as np.savez_compressed does.

    Raises ValueError for object arrays, which would be pickled.
    """
    with atomic(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(value, Pieces):
                    descr = np.lib.format.dtype_to_descr(np.dtype(value.dtype))
                    header = {"descr": descr, "fortran_order": False, "shape": value.shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for piece in value.pieces:
                        member.write(np.ascontiguousarray(piece, value.dtype).data)
                else:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[np.lib.npyio.NpzFile]:
    """Yield the arrays of a `.npz`, each of which is read when it is asked for.

    Nothing in the file is executed. Raises ValueError, in words of ours, for another file and, in
    the body, for an array of objects; and what NumPy raises for damage.
    """
    if os.path.isdir(path):
        raise ValueError("it is a folder")
    try:
        with stores.as_file(path) as local, open(local, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no .npz file, or one that is cut short")
            with np.load(local, allow_pickle=False) as archive:
                yield archive
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError("it holds pickled objects, which are not read") from error
        raise


def load_pieces(path: str | os.PathLike[str], name: str, rows: int) -> Pieces:
    """Return an array of a `.npz`, compressed or not, `rows` of its first axis at a time.

    Pieces are read from disk when they are asked for, and can be asked for again. Nothing in the
    file is executed.

    Raises InputError for a file without this array, an array of no dimension, of objects, or in
    Fortran's order, and while pieces are read for one that is cut short.
    """

    def header(member: Any) -> tuple[tuple[int, ...], np.dtype]:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(member)
        if fortran or dtype.hasobject or not shape:
            raise ValueError(f"its {name} is {dtype} {list(shape)}")
        return shape, dtype

    def pieces() -> Iterator[np.ndarray]:
        with _member(path, entry) as member:
            header(member)
            each = int(np.prod(shape[1:])) * dtype.itemsize
            for start in range(0, shape[0], rows):
                number = min(rows, shape[0] - start)
                data = member.read(number * each)
                if len(data) < number * each:
                    raise EOFError(f"its {name} is cut short")
                yield np.frombuffer(data, dtype).reshape(number, *shape[1:])

    entry = f"{name}.npy"
    with _member(path, entry) as member:
        shape, dtype = header(member)
    return Pieces(shape, dtype, Again(pieces))


@contextlib.contextmanager
def _member(path: str | os.PathLike[str], entry: str) -> Iterator[Any]:
    """Yield an entry of a `.npz`, open; see `readable`."""
    with (
        readable(path),
        stores.as_file(path) as local,
        zipfile.ZipFile(local) as archive,
        archive.open(entry) as member,
    ):
        yield member


class Again(NamedTuple):
    """An iterable that begins anew each time."""

    begin: Callable[[], Iterator]

    def __iter__(self) -> Iterator:
        return self.begin()


@contextlib.contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the body raises because a `.npz` is damaged or lacks an array into InputError."""
    damaged = OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError
    try:
        yield
    except (*damaged, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error
