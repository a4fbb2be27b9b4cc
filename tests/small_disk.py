"""A small disk: a file system in memory that a test can fill."""

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
    """Mounts one of so many bytes, `100k` say, at a directory, or skips the test where that cannot be had.

    Unless it is `lazy`, nobody may hold a file of it at the end; artifacts may still be mapped.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount, where there is a mount command")
    location.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small", location]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield location
    finally:
        subprocess.run(["umount", *(["--lazy"] if lazy else []), location], check=True)
