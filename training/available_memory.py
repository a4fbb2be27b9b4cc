"""The memory that this process may still take, so that too large arrays are an error before they are allocated.

Linux grants more memory than there is, and ends the process, or another one, once it is used.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_MEMINFO, _CONTROL_GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_MIN_CHECKED_BYTES = 1 << 28  # smaller arrays are not worth reading a file


def check_memory(needed: int) -> None:
    """Raise MemoryError if less memory than `needed` bytes is available, as far as that is known."""
    if needed < _MIN_CHECKED_BYTES:
        return
    available = available_bytes()
    if available is not None and needed > available:
        raise MemoryError(f"{needed / 2**30:.1f} GiB are needed, {available / 2**30:.1f} GiB are available")


def available_bytes() -> int | None:
    """Return the bytes that the machine and the control group (a container) have left; None if neither says."""
    found = []
    with suppress(OSError):
        if line := re.search(r"^MemAvailable:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE):
            found.append(1024 * int(line[1]))
    with suppress(OSError, ValueError):  # "max" if there is no limit
        limit, used = (int((_CONTROL_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used))
    return min(found, default=None)
