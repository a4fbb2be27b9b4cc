"""Reading the files of other frameworks: with a limit of bytes, and as text or JSON where they are."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from model_store.errors import ModelImportError
from model_store.importing.imported_model import Source
from model_store.utils.extras import install_command
from model_store.utils.regular_file import open_regular

MAX_FILE_BYTES = 1 << 30
MIN_UNPACKED_BYTES, MAX_RATIO = 64 << 20, 20  # that an archive may unpack to: of any size, and of its own
_MAX_MEMBERS = 10_000
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # bzip2 makes a gigabyte of a kilobyte


def read_file(path: Path) -> bytes:
    """Return the bytes of a file. ModelImportError for more than `MAX_FILE_BYTES`."""
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
            raise ModelImportError(f"{path}: expected {MAX_FILE_BYTES} bytes at most, found {size}")
        return file.read(size)  # allocates what it may read


def describe_source(kind: str, path: Path, data: bytes, producer: str) -> Source:
    return Source(kind, path.name, hashlib.sha256(data).hexdigest(), producer[:200])


def missing_package(path: Path, package: str, extra: str) -> ModelImportError:
    """Return the error of a file that needs a package of an extra."""
    return ModelImportError(f"{path}: needs {package}; install it with: {install_command(extra)}")


@contextmanager
def open_zip(path: Path, data: bytes) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP archive, of few members that are not too large unpacked. ModelImportError for anything else.

    The limit follows from the archive's own size: what a member claims as its packed size may overlap with others.
    """
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise ModelImportError(f"{path}: expected a ZIP archive, found something else; {error}") from error
    with archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise ModelImportError(f"{path}: expected {_MAX_MEMBERS} members at most, found {len(members)}")
        if other := next((member for member in members if member.compress_type not in _METHODS), None):
            problem = f"expected it stored or deflated, found method {other.compress_type}"
            raise ModelImportError(f"{path}: {other.filename}: {problem}")
        if (size := sum(member.file_size for member in members)) > (limit := max_unpacked(len(data))):
            raise ModelImportError(f"{path}: expected {limit} unpacked bytes at most, found {size}")
        yield archive


def max_unpacked(file_bytes: int) -> int:
    """Return the bytes that all members of an archive of this size may unpack to."""
    return min(MAX_FILE_BYTES, max(MIN_UNPACKED_BYTES, MAX_RATIO * file_bytes))


def read_member(path: Path, archive: zipfile.ZipFile, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return a member of an archive, `limit` bytes at most. ModelImportError if it is missing or damaged."""
    try:
        with archive.open(name) as member:
            data = member.read(limit + 1)
    except KeyError as error:
        raise ModelImportError(f"{path}: expected a member {name!r}, found {archive.namelist()[:10]}") from error
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        raise ModelImportError(f"{path}: {name}: expected a readable member; {error}") from error
    except Exception as error:  # zlib.error has no base class of its own
        raise ModelImportError(f"{path}: {name}: expected a readable member; {error}") from error
    if len(data) > limit:
        raise ModelImportError(f"{path}: {name}: expected {limit} bytes at most, found more")
    return data
