"""The fixture `service`: the three examples, trained by `train` and served by `serve`."""

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

from tests.end_to_end.commands import EXAMPLES, ROOT, RunningService, run_training

STARTUP_SECONDS = 30


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("end_to_end")
    for name in EXAMPLES:
        run_training(name, folder / "models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service", "--store", folder / "models", "--port", str(port)]
    environ = os.environ | {"SERVE_WORKERS": "2", "SERVE_CACHE_DIR": str(folder / "cache")}
    with (
        (folder / "serve.log").open("w+") as log,
        subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log) as server,
    ):
        try:
            running = RunningService(folder / "models", f"http://127.0.0.1:{port}")
            wait_until_ready(running, server, folder / "serve.log")
            yield running
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0, (folder / "serve.log").read_text()


def wait_until_ready(service: RunningService, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while True:
        try:
            service.request("/readyz")
            return
        except (urllib.error.URLError, ConnectionError) as e:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"serve is not ready: {e}\n{log.read_text()}")
            time.sleep(0.1)
