"""Debian's nginx with the configuration of examples/edge, on a test's own ports and folder."""

import contextlib
import importlib.util
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.service.server.server_process import free_port

EDGE = Path(__file__).parents[2] / "examples" / "edge"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
PATIENCE_SECONDS = 20

_spec = importlib.util.spec_from_file_location("certificates", EDGE / "certificates.py")
assert _spec is not None
assert _spec.loader is not None
certificates = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(certificates)


class Proxy:
    """A running nginx. `changes` replaces texts of the configuration: shorter timeouts, or a removed defence."""

    def __init__(
        self, folder: Path, upstream: int, changes: dict[str, str] | None = None, second: int | None = None
    ) -> None:
        self.folder, self.certificates = folder, folder / "certificates"
        certificates.make(self.certificates, ("localhost", "127.0.0.1"))
        self.public, self.mutual = free_port(), free_port()
        scratch = folder / "tmp"
        text = (EDGE / "nginx.conf").read_text(encoding="utf-8")
        for old, new in {
            "/tmp/": f"{scratch}/",  # noqa: S108
            "/certificates/": f"{self.certificates}/",
            "/dev/stdout": str(scratch / "access.log"),
            "stderr error": f"{scratch / 'error.log'} error",
            "server service:8000": f"server 127.0.0.1:{upstream}",
            "server service:8001": f"server 127.0.0.1:{second or upstream}",
            "listen 8443": f"listen 127.0.0.1:{self.public}",
            "listen 9443": f"listen 127.0.0.1:{self.mutual}",
            **(changes or {}),
        }.items():
            assert old in text, old
            text = text.replace(old, new)
        scratch.mkdir()
        (folder / "nginx.conf").write_text("daemon off;\n" + text)
        assert NGINX is not None
        words = [NGINX, "-p", folder, "-e", scratch / "error.log", "-c", folder / "nginx.conf"]
        if Path("/proc/self").stat().st_uid == 0:  # its workers' user could not enter the folder
            words += ["-g", "user root;"]
        self.process = subprocess.Popen(words)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.mutual), 1):
                break
            assert self.process.poll() is None, (scratch / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def context(self, *, certificate: bool = False) -> ssl.SSLContext:
        """Connect a client that trusts the authority, with a client certificate if asked."""
        context = ssl.create_default_context(cafile=str(self.certificates / "clients.crt"))
        if certificate:
            context.load_cert_chain(self.certificates / "client.crt", self.certificates / "client.key")
        return context

    def raw(self, *pieces: bytes, port: int = 0, context: ssl.SSLContext | None = None) -> bytes:
        """Send raw bytes, and return all that comes back until nginx closes."""
        answer = b""
        broken = contextlib.suppress(ConnectionError, ssl.SSLEOFError)
        with self.connected(port or self.public, context or self.context()) as connection, broken:
            for piece in pieces:
                connection.sendall(piece)
            while received := connection.recv(65536):
                answer += received
        return answer

    @contextlib.contextmanager
    def connected(self, port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
            yield connection

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def proxy(
    folder: Path, upstream: int, changes: dict[str, str] | None = None, second: int | None = None
) -> Iterator[Proxy]:
    running = Proxy(folder, upstream, changes, second)
    try:
        yield running
    finally:
        running.stop()


class Recorder:
    """A server that records what it receives by connection, and responds 200 to every request once allowed."""

    def __init__(self) -> None:
        self.connections: list[bytearray] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def heads(self) -> list[str]:
        """Return the request line and headers of every request, in the order of connections."""
        received = b"".join(bytes(each) for each in self.connections).decode("latin-1")
        return re.findall(r"[A-Z]+ \S+ HTTP/1\.1\r\n(?:[^\r\n]+\r\n)*\r\n", received)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(bytearray())
                threading.Thread(target=self._serve, args=(connection, self.connections[-1]), daemon=True).start()

    def _serve(self, connection: socket.socket, received: bytearray) -> None:
        with connection, contextlib.suppress(OSError):
            answered = 0
            while data := connection.recv(65536):
                received += data
                whole = re.findall(rb"\r\n\r\n", bytes(received))
                if len(whole) > answered:  # the tests' bodies have no empty lines
                    answered = len(whole)
                    self.may_answer.wait(PATIENCE_SECONDS)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    def close(self) -> None:
        self._listener.close()
