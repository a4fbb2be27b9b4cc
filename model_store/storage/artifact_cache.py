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
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from model_store.artifact import npz
from model_store.errors import ArtifactError, StoreError

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LOCK = ".lock"

Fetch = Callable[[BinaryIO], None]


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """In the user's cache directory, else in the temporary directory: a container's root may be read-only, and its
    user may have no home."""
    home = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else "")
    if home and os.access(_nearest_directory(Path(home)), os.W_OK):
        return Path(home) / "forward-pass"
    return Path(tempfile.gettempdir()) / f"forward-pass-{os.getuid()}"


def cache_file(path: Path, cache_dir: Path) -> Path:
    """The verified copy of the artifact at `path`, made when it is not there yet.

    ArtifactError when the file is no artifact, changes while it is copied, or does not answer here as it did in
    training; StoreError when the cache cannot be used.
    """
    if path.parent == cache_dir:
        return path  # of a store that is elsewhere: the copy was made to get the file at all

    def fetch(target: BinaryIO) -> None:
        with path.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)

    return cache_artifact(str(path), npz.read_digest(path), fetch, cache_dir)


def cache_artifact(location: str, digest: str, fetch: Fetch, cache_dir: Path, *, refresh: bool = False) -> Path:
    """The verified copy of the artifact of that digest: what `fetch` writes, when it is not there yet or expected anew.

    Errors are those of `cache_file`; `place` says where the artifact comes from.
    """
    try:
        _make_private(cache_dir)
        copy = cache_dir / f"{digest}.npz"
        if refresh or not copy.exists():
            with _exclusive_lock(cache_dir):
                if refresh or not copy.exists():
                    _fetch_and_verify(location, digest, fetch, copy)
    except OSError as e:
        raise StoreError(f"{cache_dir}: cannot keep a copy of {location}: {e.strerror or e}") from e
    return copy


def remove_unused_copies(cache_dir: Path, keep: Collection[str]) -> None:
    """Drop every copy whose digest is not in `cache_artifact`. A process that has mapped one keeps its map."""
    try:
        for copy in cache_dir.glob("*.npz"):
            if copy.stem not in keep:
                copy.unlink(missing_ok=True)
    except OSError as e:
        raise StoreError(f"{cache_dir}: cannot drop copies: {e.strerror or e}") from e


def _fetch_and_verify(location: str, expected: str, fetch: Fetch, copy: Path) -> None:
    for unfinished in copy.parent.glob(".tmp-*"):  # whoever copies is alone: its process is gone
        unfinished.unlink(missing_ok=True)
    temporary = copy.with_name(f".tmp-{os.urandom(8).hex()}")
    try:
        with os.fdopen(os.open(temporary, _CREATE, 0o400), "wb") as target:
            fetch(target)
            target.flush()
            os.fsync(target.fileno())
        try:
            model = npz.read(temporary)
            model.check_golden()
        except ArtifactError as e:
            raise ArtifactError(f"{location}: {str(e).removeprefix(f'{temporary}: ')}") from e
        if model.digest != expected:
            raise ArtifactError(
                f"{location}: expected a file that stays as it is, found it changed while it was copied"
            )
        temporary.replace(copy)  # of equal digest, so of equal content
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _exclusive_lock(cache_dir: Path) -> Iterator[None]:
    """One at a time, among all threads and processes; the kernel lets go of a lock whose holder dies."""
    descriptor = os.open(cache_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _nearest_directory(path: Path) -> Path:
    """The path itself or the nearest parent that is a directory."""
    return next(location for location in (path, *path.parents) if location.is_dir())


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise StoreError(
            f"{directory}: expected a directory that only this user can write to, found mode "
            f"{stat.S_IMODE(status.st_mode):o} of user {status.st_uid}; choose another, or chmod go-w"
        )
