"""Azurite, Microsoft's emulator of Azure Blob Storage, in its own process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

PACKAGE, ACCOUNT = "azurite@3.35.0", "forwardpass"
KEY = base64.b64encode(b"a key that opens nothing but a test").decode()


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment in which `az://` URLs reach the server at `endpoint`."""
    names = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT")
    return dict(zip(names, (ACCOUNT, KEY, f"{endpoint}/{ACCOUNT}"), strict=True))


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Start Azurite with an empty container. Yield its endpoint."""
    command = [*program(directory), "--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0",
               "--silent", "--disableTelemetry", "--skipApiVersionCheck"]  # fmt: skip
    environ = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    log = directory / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, cwd=directory, env=environ)
    try:
        deadline = time.monotonic() + 60
        while not (match := re.search(r"listens on (http://\S+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        make_container(match[1])
        yield match[1]
    finally:
        server.kill()
        server.wait(30)


def program(directory: Path) -> list[str]:
    """Return the installed emulator; else install one into `directory`."""
    if found := shutil.which("azurite-blob"):
        return [found]
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("Azurite needs node and npm")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory), PACKAGE]
    done = subprocess.run(install, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"Azurite cannot be installed: {done.stderr[-300:]}")
    return [str(directory / "node_modules" / ".bin" / "azurite-blob")]


def make_container(endpoint: str) -> None:
    """Create the container with a request signed by Azure's Shared Key."""
    headers = {"x-ms-date": format_datetime(datetime.now(UTC), usegmt=True), "x-ms-version": "2021-12-02"}
    signed = [f"{name}:{value}" for name, value in headers.items()]
    text = "\n".join(["PUT", *[""] * 11, *signed, f"/{ACCOUNT}/{ACCOUNT}/models", "restype:container"])
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    url = f"{endpoint}/{ACCOUNT}/models?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()
