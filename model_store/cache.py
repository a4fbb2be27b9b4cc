"""The cache: private, verified, read-only copies of artifacts, named by digest.

A process that maps a file in a shared store dies when somebody truncates it, and answers with other weights when
somebody rewrites it. So whoever serves models maps a copy that nobody else can write to. The same copy serves every
worker of a machine: its pages are in memory once, and it is verified once. The first that wants it hashes every array
and asks for the golden answers, while the others wait at a lock; they then only map it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from model_store import artifact
from model_store.errors import ArtifactError, StoreError

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LOCK = ".lock"


def localise(path: Path, cache_dir: Path) -> Path:
    """The verified copy of the artifact at `path`, made when it is not there yet.

    ArtifactError when the file is no artifact, changes while it is copied, or does not answer here as it did in
    training; StoreError when the cache cannot be used.
    """
    try:
        _make_private(cache_dir)
        wanted = artifact.digest(path)
        copy = cache_dir / f"{wanted}.npz"
        if not copy.exists():
            with _alone(cache_dir):
                if not copy.exists():
                    _copy(path, copy, wanted)
    except OSError as e:
        raise StoreError(f"{cache_dir}: cannot keep a copy of {path}: {e.strerror or e}") from e
    return copy


def trim(cache_dir: Path, keep: Collection[str]) -> None:
    """Drop every copy whose digest is not in `keep`. A process that has mapped one keeps its map."""
    try:
        for copy in cache_dir.glob("*.npz"):
            if copy.stem not in keep:
                copy.unlink(missing_ok=True)
    except OSError as e:
        raise StoreError(f"{cache_dir}: cannot drop copies: {e.strerror or e}") from e


def _copy(path: Path, copy: Path, wanted: str) -> None:
    temporary = copy.with_name(f".tmp-{os.urandom(8).hex()}")
    try:
        with path.open("rb") as source, os.fdopen(os.open(temporary, _CREATE, 0o400), "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        try:
            model = artifact.read(temporary)
            model.check_golden()
        except ArtifactError as e:
            raise ArtifactError(f"{path}: {str(e).removeprefix(f'{temporary}: ')}") from e
        if model.digest != wanted:
            raise ArtifactError(f"{path}: wanted a file that stays as it is, found it changed while it was copied")
        temporary.replace(copy)  # of equal digest, so of equal content
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """One at a time, among all threads and processes; the kernel lets go of a lock whose holder dies."""
    descriptor = os.open(cache_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise StoreError(
            f"{directory}: wanted a directory that only this user can write to, found mode "
            f"{stat.S_IMODE(status.st_mode):o} of user {status.st_uid}; choose another, or chmod go-w"
        )
