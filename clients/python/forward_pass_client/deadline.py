"""A deadline for a whole response: a server that sends a byte now and then does not keep its client waiting."""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any, cast


class Deadline:
    """The time by which a response must be complete. Its `response` reads a socket as `HTTPResponse` does."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def response(self, sock: socket.socket, *args: Any, **options: Any) -> HTTPResponse:
        """Return the response on a socket. Reading it raises TimeoutError once the time is over."""
        return HTTPResponse(cast("socket.socket", _TimedSocket(sock, self)), *args, **options)

    def remaining(self) -> float:
        """Return the seconds that are left. TimeoutError if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _TimedSocket:
    """The part of a socket that `HTTPResponse` uses."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket, self._deadline = sock, deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode  # "rb"
        return io.BufferedReader(_TimedReader(self._socket, self._deadline))


class _TimedReader(io.RawIOBase):
    """Reads a socket, each time for as long as the deadline allows."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open as long as it is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._deadline.remaining())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
