"""A connection of the worker's: what came from a client, what is on its way to it, and when we lose patience."""

from __future__ import annotations

import socket
import time
from typing import Any

from service.server.request_reader import BufferedRequest, RequestReader

READ_SECONDS = 30.0  # for a request, from its first byte to its last; and for a client to take its answer


class Connection:
    def __init__(self, sock: socket.socket, peer: Any, server: Any, incoming: RequestReader) -> None:
        self.sock, self.peer, self.server, self.incoming = sock, peer, server, incoming
        self.deadline = time.monotonic() + READ_SECONDS
        self.held = self.unread = 0  # bytes of input and of answers, as they are counted
        self.outgoing = bytearray()
        self.moved = 0.0  # when something of that was last taken
        self.events = 0  # what it is registered for
        self.waiting: BufferedRequest | None = None  # its request that has its turn to come
        self.since = 0.0  # when the last of that could be read
        self.readable = 0.0  # since when there is something to be read, 0.0 while there is not
        self.closing = False  # once everything is sent
        self.draining = False  # nothing is left to send, what still comes is thrown away

    @property
    def client(self) -> str:
        return self.peer[0] if self.peer else ""

    def sendall(self, data: bytes) -> None:
        """gunicorn's response writes here."""
        self.outgoing += data

    send = sendall
