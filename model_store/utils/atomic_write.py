"""Files that appear complete or not at all."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_DESCRIPTORS = "/proc/self/fd"  # where /dev/stdout, /dev/fd/1 and the shell's >(command) lead on Linux
_MAX_LINKS = 40  # as the kernel


@contextmanager
def atomic_write(path: Path, mode: str = "xb", **options: Any) -> Iterator[IO[Any]]:
    """Open a temporary file as `Path.open` does; at exit sync it and move it to `path`, or delete it after an error.

    A symbolic link stays, and its target is replaced. A file that exists keeps its permissions, and its owner if the
    process may set it. A device, a pipe and an open descriptor such as /dev/stdout cannot be replaced: they are written
    as the data comes. An OSError names `path`.
    """
    written: set[Any] = {None, str(path)}
    try:
        target = _follow_links(path)
        written.add(str(target))
        if isinstance(target, int):
            with os.fdopen(os.dup(target), mode.replace("x", "w"), **options) as file:
                yield file
            return
        existing = _status(target)
        if existing is not None and not stat.S_ISREG(existing.st_mode):
            with target.open(mode.replace("x", "w"), **options) as file:
                yield file
            return
        temporary = target.with_name(f".tmp-{target.name}-{os.urandom(8).hex()}")
        written.add(str(temporary))
        # No other user may read a secret before the file has the permissions of the old one.
        permissions = 0o666 if existing is None else 0o600
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, permissions)
            with os.fdopen(descriptor, mode.replace("x", "w"), **options) as file:
                if existing is not None:
                    _copy_permissions(file.fileno(), existing)
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as e:
        if e.filename in written or str(e.filename) in written:
            e.filename, e.filename2 = str(path), None
        raise


def remove_temporary_files(path: Path) -> None:
    """Remove temporary files that killed writers of `path` left. No writer may be active."""
    path = Path(os.path.realpath(path))
    for unfinished in path.parent.glob(f".tmp-{glob.escape(path.name)}-*"):
        unfinished.unlink(missing_ok=True)


def fsync_directory(directory: Path) -> None:
    """Write the entries of a directory to disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _follow_links(path: Path) -> Path | int:
    """Return the file behind symbolic links, which need not exist, or the number of an open descriptor."""
    descriptors = os.path.realpath(_DESCRIPTORS)
    for _ in range(_MAX_LINKS):
        folder = os.path.realpath(path.parent)
        if folder == descriptors and path.name.isdigit():
            return int(path.name)
        path = Path(folder, path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return path


def _status(target: Path) -> os.stat_result | None:
    try:
        return target.stat()
    except FileNotFoundError:
        return None


def _copy_permissions(descriptor: int, existing: os.stat_result) -> None:
    with suppress(PermissionError):
        os.fchown(descriptor, existing.st_uid, existing.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(existing.st_mode))
