"""The three examples, trained by `train` and served by `serve`."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.commands import EXAMPLES, ROOT, Served, run_training

PATIENCE_SECONDS = 30


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("first_light")
    for name in EXAMPLES:
        run_training(name, folder / "models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "service", "--store", folder / "models", "--port", str(port)]
    environ = os.environ | {"SERVE_WORKERS": "2", "SERVE_CACHE_DIR": str(folder / "cache")}
    with (
        (folder / "serve.log").open("w+") as log,
        subprocess.Popen(words, cwd=ROOT, env=environ, stdout=log, stderr=log) as server,
    ):
        try:
            served = Served(folder / "models", f"http://127.0.0.1:{port}")
            wait_until_ready(served, server, folder / "serve.log")
            yield served
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0, (folder / "serve.log").read_text()


def wait_until_ready(served: Served, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            served.ask("/readyz")
            return
        except (urllib.error.URLError, ConnectionError) as e:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"serve is not ready: {e}\n{log.read_text()}")
            time.sleep(0.1)
