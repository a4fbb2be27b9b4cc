"""SeaweedFS, a real object store with S3's API, in its own process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.model_store.s3 import make_bucket

WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Start SeaweedFS with an empty bucket. Yield its endpoint."""
    if WEED is None:
        pytest.skip("SeaweedFS is not installed")
    master, volume, filer, s3 = free_ports(4)
    command = [
        WEED, "server", f"-dir={directory}", "-ip=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}",
        "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # off: their ports are fixed, and several servers may run
    ]  # fmt: skip
    log = directory / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_for_bucket(server, f"http://127.0.0.1:{s3}", log)
        yield f"http://127.0.0.1:{s3}"
    finally:
        server.kill()  # a graceful stop would take long to save data that is not needed
        server.wait(30)


def free_ports(count: int) -> list[int]:
    """Return free ports below 50000: the server also uses each port + 10000."""
    ports: list[int] = []
    for port in range(20000 + os.getpid() % 20000, 50000):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            break
    return ports


def wait_for_bucket(server: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        try:
            return make_bucket(endpoint)
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
