"""A running `serve` in a process of its own, and how to talk to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model_store.registry.store import Store

ROOT = Path(__file__).parents[3]


PATIENCE_SECONDS = 20


GOOD = b'{"instances": [[3, 80]]}'


def free_port() -> int:
    """Return a free port below the range of outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A running `serve` on a free port, or another `program` with the same options."""

    def __init__(self, store: Store, folder: Path, program: Sequence[str] = ("-m", "service"), **environ: str) -> None:
        self.store = store
        self.grpc_port = int(environ.get("SERVE_GRPC_PORT", 0))
        self.log_path = folder / "serve.log"
        defaults = {"SERVE_WORKERS": "2", "SERVE_POLL_SECONDS": "0.05", "SERVE_CACHE_DIR": str(folder / "cache")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, "--store", store.storage.location, "--port", "0"],
                cwd=ROOT,
                env={**os.environ, **defaults, **environ},
                stdout=log,
                stderr=log,
            )
        self.port = int(until(self._port))
        until(lambda: self.ask("GET", "/healthz")[0] == 200)
        if "SERVE_GRPC_PORT" in environ:
            until(lambda: socket.create_connection(("127.0.0.1", self.grpc_port)).close() is None)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def _port(self) -> str | None:
        assert self.process.poll() is None, self.log
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log)
        return found and found[1]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if response.headers.get_content_subtype() == "json" else text
        finally:
            connection.close()

    def version(self, ref: str = "default") -> int:
        status, body = self.ask("POST", f"/models/price/versions/{ref}/predict", {"instances": [[3, 80]]})
        assert status == 200, body
        found: int = body["version"]
        return found

    def raw(self, *pieces: bytes, half_close: bool = True) -> bytes:
        """Send raw bytes, and return all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as connection:
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_SECONDS)


def until(condition: Callable[[], Any]) -> Any:
    """Call `condition` until its result is true or a deadline passes; return the result."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if found := condition():
                return found
        except ConnectionError:
            pass
        assert time.monotonic() < deadline, "this has not come true in time"
        time.sleep(0.02)


def post(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    lines = [b"POST /models/price/predict HTTP/1.1", b"Host: here", *headers]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, b"", b""]) + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def serve(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *words]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=20, check=False
    )
