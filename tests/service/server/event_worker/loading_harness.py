"""Loads that end when a test lets them."""

from __future__ import annotations

import socket
import threading
from typing import Any

from tests.service.server.event_worker.harness import Loop

GOOD = b'{"instances": [[3, 80]]}'


class Gate:
    """A load that ends when a test opens the gate; it must not run in the test's thread, which turns the loop."""

    def __init__(self) -> None:
        self.loop = threading.get_ident()
        self.open, self.reached = threading.Event(), threading.Event()
        self.passed: list[Any] = []

    def __call__(self, what: Any) -> None:
        self.reached.set()
        assert threading.get_ident() != self.loop
        assert self.open.wait(20)
        self.passed.append(what)


def end(loop: Loop, gate: Gate) -> None:
    """Let open loads end without waking the loop."""
    loop.worker.executor._wake_loop = lambda: None
    gate.open.set()
    loop.close()


def waited(loop: Loop, sock: socket.socket) -> bytes:
    """Turn the loop until a response arrives for a client."""
    sock.setblocking(False)
    for _ in range(5000):
        loop.turn(1)
        try:
            return sock.recv(1 << 20)
        except BlockingIOError:
            pass
    raise AssertionError("nothing has come")
