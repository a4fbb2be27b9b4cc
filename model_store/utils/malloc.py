"""Settings of glibc's malloc for this process and its forks. Other C libraries have none of them and ignore these."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def set_malloc_thresholds(mmap_bytes: int, trim_bytes: int) -> None:
    """Map blocks of `mmap_bytes` and more from the kernel each, and return `trim_bytes` of free memory to it.

    Without, glibc chooses both anew with each mapped block that is freed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, mmap_bytes)
        mallopt(_M_TRIM_THRESHOLD, trim_bytes)
