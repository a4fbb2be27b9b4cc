"""Arrays of files: checked before memory is allocated for what a file claims to hold, and by type and shape."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an .npy file: shape, whether in Fortran order, and type."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return header


def check_stored(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Raise ValueError unless the members of an archive are stored as they are, as `numpy.savez` does.

    All of them together then take no more memory than the `file_bytes` of the archive.
    """
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(f"{member.filename}: expected an uncompressed array, found a compressed one")
    total = sum(member.file_size for member in archive.infolist())
    if total > file_bytes:
        raise ValueError(f"expected arrays of {file_bytes} bytes at most, found {total}")


def read_stored(archive: zipfile.ZipFile, name: str, max_bytes: int | None = None) -> NDArray[Any]:
    """Return the array of numbers `name` of an archive that `check_stored` accepts. ValueError for anything else."""
    size = archive.getinfo(f"{name}.npy").file_size
    if max_bytes is not None and size > max_bytes:
        raise ValueError(f"{name}: expected {max_bytes} bytes at most, found {size}")
    with archive.open(f"{name}.npy") as member:
        shape, fortran_order, dtype = read_npy_header(member)
        if dtype.kind not in "biuf":
            raise ValueError(f"{name}: expected numbers, found {dtype}")
        content = bytearray(member.read())
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: expected the bytes of {dtype} {shape}, found {len(content)}")
    array = np.frombuffer(content, dtype)
    return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)


def checked_array(
    state: Mapping[str, NDArray[Any]], name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...] = ()
) -> NDArray[Any]:
    """Return an array of a state. ValueError unless it has this type and this shape, in which None is any size."""
    found = state[name]
    fits = len(found.shape) == len(shape) and all(
        size in (None, actual) for size, actual in zip(shape, found.shape, strict=True)
    )
    if found.dtype != dtype or not fits:
        wanted = f"({', '.join('any' if size is None else str(size) for size in shape)})"
        raise ValueError(f"{name}: expected {np.dtype(dtype)} {wanted}, found {found.dtype} {found.shape}")
    return found


def checked_count(state: Mapping[str, NDArray[Any]], name: str, most: float = math.inf) -> int:
    """Return an integer of a state. ValueError unless it is in [0, most]."""
    count = int(checked_array(state, name, np.int64))
    if not 0 <= count <= most:
        raise ValueError(f"{name}: expected a number from 0 to {most:.0f}, found {count}")
    return count
