"""A small disk: a file system in memory that tests can fill."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(location: Path, size: str, *, lazy: bool = True) -> Iterator[Path]:
    """Mount a file system of a size such as `100k` at a directory; skip the test if that is not possible.

    Unless `lazy`, no file of it may be open or mapped at the end.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root and the mount command")
    location.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small", location]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield location
    finally:
        subprocess.run(["umount", *(["--lazy"] if lazy else []), location], check=True)
