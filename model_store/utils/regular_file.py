"""Opening files whose path was configured: a pipe or a device must not block its reader."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_OTHER_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes; follow links. OSError for anything else, without waiting for it.

    Opening a pipe would block until it has a writer, and reading it until it has data; a device may never end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        if e.errno in (errno.ENXIO, errno.ENODEV):  # a socket, a device without a driver
            raise OSError(errno.EINVAL, "expected a regular file, found a socket or a device", str(path)) from e
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            found = next((name for is_kind, name in _OTHER_KINDS if is_kind(mode)), "something else")
            raise OSError(errno.EINVAL, f"expected a regular file, found {found}", str(path))
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise
