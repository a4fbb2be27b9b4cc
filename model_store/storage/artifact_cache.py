"""The artifact cache: private, verified, read-only copies of artifacts, named by digest.

A process that maps a file of a shared store is killed if the file is truncated, and predicts with other weights if it
is rewritten. So a server maps a copy that no other user can write to. All workers of a machine map the same copy: its
pages are in memory once, and it is verified once. The first worker hashes every array and checks the golden outputs
while the others wait for a lock; they then only map the copy.

Each store has a folder of its own in the cache, so that services of different stores share nothing. A process that maps
a copy holds a lock on it (`utils/file_lock.py`), and only copies without a lock are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from model_store.artifact import npz
from model_store.errors import ArtifactError, StoreError
from model_store.utils.file_lock import remove_unless_in_use, wait_for_lock
from model_store.utils.regular_file import open_regular

_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LOCK = ".lock"
MAX_SPARE_BYTES = 256 << 20  # of copies that no process uses
_DIGEST = re.compile(r"[0-9a-f]{64}")

Fetch = Callable[[BinaryIO], None]


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """Return a directory in the user's cache directory, else in the temporary directory.

    In a container the root may be read-only, and the user may have no home.
    """
    home = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else "")
    if home and os.access(_nearest_directory(Path(home)), os.W_OK):
        return Path(home) / "forward-pass"
    return Path(tempfile.gettempdir()) / f"forward-pass-{os.getuid()}"


def store_cache_dir(cache_dir: Path, location: str) -> Path:
    """Return the private folder of a store, and of this user, in the cache."""
    absolute = location.rstrip("/") if "://" in location else os.path.realpath(location)
    return cache_dir / f"{os.geteuid()}-{hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]}"


def check_cache(cache_dir: Path, location: str) -> None:
    """Create the folder if it does not exist.

    StoreError if it is not private, lies in the store at `location`, or no copy can be written to it.
    """
    if "://" not in location and Path(os.path.realpath(cache_dir)).is_relative_to(os.path.realpath(location)):
        expected = f"expected a directory outside the model store {location}"
        raise StoreError(f"{cache_dir}: cannot keep copies of models: {expected}; set SERVE_CACHE_DIR to another one")
    try:
        _make_private(cache_dir)
        with tempfile.NamedTemporaryFile(dir=cache_dir, prefix=".probe-"):
            pass
    except OSError as e:
        fix = "set SERVE_CACHE_DIR to a directory that this user can write to"
        raise StoreError(f"{cache_dir}: cannot keep copies of models: {e.strerror or e}; {fix}") from e


def cache_file(path: Path, cache_dir: Path) -> Path:
    """Return the verified copy of the artifact at `path`; make it if it does not exist.

    ArtifactError if the file is not an artifact, changes while it is copied, or does not reproduce its golden outputs
    on this machine; StoreError if the cache cannot be used.
    """
    if path.parent == cache_dir:
        return path  # already a copy, fetched from a bucket

    def fetch(target: BinaryIO) -> None:
        with open_regular(path) as source:
            remaining = npz.MAX_FILE_BYTES + 1  # the file may grow while it is copied
            while data := source.read(min(remaining, 1 << 20)):
                remaining -= target.write(data)

    return cache_artifact(str(path), npz.read_claimed_digest(path), fetch, cache_dir)


def cache_artifact(location: str, digest: str, fetch: Fetch, cache_dir: Path, *, refresh: bool = False) -> Path:
    """Return the verified copy of the artifact of that digest. Call `fetch` if it does not exist, or to `refresh` it.

    `location` is where the artifact comes from. Errors are those of `cache_file`.
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


def remove_unused_copies(cache_dir: Path, used_digests: Collection[str], spare_digests: Iterable[str] = ()) -> bool:
    """Remove every copy whose digest is not in `used_digests` and that no process uses. Return False if one uses it.

    `spare_digests`: copies to keep although nothing uses them, the most valuable first, up to `MAX_SPARE_BYTES`.
    """
    try:
        copies = {path.stem: path for path in cache_dir.glob("*.npz") if _DIGEST.fullmatch(path.stem)}
        unused = {digest: copy for digest, copy in copies.items() if digest not in used_digests}
        spare_bytes = 0
        for digest in spare_digests:
            if digest in unused and spare_bytes + (size := unused[digest].stat().st_size) <= MAX_SPARE_BYTES:
                spare_bytes += size
                del unused[digest]
        removed = [remove_unless_in_use(copy) for copy in unused.values()]
        return all(removed)
    except OSError as e:
        raise StoreError(f"{cache_dir}: cannot remove copies: {e.strerror or e}") from e


def _fetch_and_verify(location: str, digest: str, fetch: Fetch, copy: Path) -> None:
    for unfinished in copy.parent.glob(".tmp-*"):  # of dead processes: this one holds the lock
        unfinished.unlink(missing_ok=True)
    temporary = copy.with_name(f".tmp-{os.urandom(8).hex()}")
    try:
        with os.fdopen(os.open(temporary, _CREATE_FLAGS, 0o400), "wb") as target:
            fetch(target)
            target.flush()
            os.fsync(target.fileno())
        try:
            model = npz.read(temporary, mapped=True)
            model.check_golden()
        except ArtifactError as e:
            raise ArtifactError(f"{location}: {str(e).removeprefix(f'{temporary}: ')}") from e
        if model.digest != digest:
            raise ArtifactError(f"{location}: expected a file that does not change, found it changed during the copy")
        temporary.replace(copy)  # may replace a copy of the same digest, thus of the same content
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _exclusive_lock(cache_dir: Path) -> Iterator[None]:
    """Hold the lock of the cache against all threads and processes; the kernel releases it if the holder dies."""
    descriptor = os.open(cache_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        wait_for_lock(descriptor, fcntl.LOCK_EX, str(cache_dir / _LOCK))
        yield
    finally:
        os.close(descriptor)


def _nearest_directory(path: Path) -> Path:
    """Return the path itself, or its nearest parent that is a directory."""
    return next(location for location in (path, *path.parents) if location.is_dir())


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise StoreError(
            f"{directory}: expected a directory that only this user can write to, found mode "
            f"{stat.S_IMODE(status.st_mode):o} of user {status.st_uid}; choose another directory, or chmod go-w"
        )
