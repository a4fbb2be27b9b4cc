"""malloc's thresholds: a thread that allocates the same blocks again gets no new pages from the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource
from threading import Thread
import numpy as np
from model_store.utils.malloc import set_malloc_thresholds

def allocate(times):
    for _ in range(times):
        blocks = [np.ones(1 << 17) for _ in range(4)]  # a megabyte each

def work():
    allocate(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate(20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

{first}
thread = Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_a_thread_keeps_the_memory_of_its_last_batch() -> None:
    def pages(first: str) -> int:
        text = PAGES.format(first=first)
        return int(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout)

    assert pages("set_malloc_thresholds(32 << 20, 64 << 20)") < 1000
    assert pages("set_malloc_thresholds(1 << 17, 1 << 17)") > 10_000
