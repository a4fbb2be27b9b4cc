"""A PostgreSQL server for a test: the system's, in a temporary directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest


def _find(program: str) -> str:
    """Return the path of a program of PostgreSQL: of PATH, or of the newest version where Debian installs it."""
    found = shutil.which(program)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[-3]))
    if found is None and not versions:
        pytest.skip(f"there is no {program}: install postgresql")
    return os.path.realpath(found or versions[-1])


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server and yield the address of a database with a password. As root it runs as nobody."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        yield from _run(Path(folder))


def _run(directory: Path) -> Iterator[str]:
    initdb, server = _find("initdb"), _find("postgres")
    user: dict[str, Any] = {}
    data, password = directory / "data", directory / "password"
    data.mkdir(mode=0o700)
    password.write_text("secret", encoding="utf-8")
    if os.getuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        for path in (directory, data, password):
            shutil.chown(path, "nobody", "nogroup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["-D", str(data), "-U", "sweeper", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync"]
    subprocess.run([initdb, *arguments], check=True, capture_output=True, cwd="/", **user)
    settings = ["-c", "listen_addresses=127.0.0.1", "-p", str(port), "-k", "", "-c", "fsync=off"]
    log = (directory / "postgres.log").open("wb")
    process = subprocess.Popen([server, "-D", str(data), *settings], stdout=log, stderr=log, cwd="/", **user)
    address = f"postgresql://sweeper:secret@127.0.0.1:{port}/postgres"
    try:
        for _ in range(300):
            try:
                psycopg.connect(address).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, (directory / "postgres.log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGINT)  # also ends the sessions of clients
        process.wait()
        log.close()
