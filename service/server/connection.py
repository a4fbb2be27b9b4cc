"""A connection of the worker's: what came from a client, what is on its way to it, and when we lose patience."""

from __future__ import annotations

import socket
import time
from typing import Any

from service.server.request_reader import BufferedRequest, RequestReader

READ_TIMEOUT_SECONDS = 30.0  # for a request, from its first byte to its last; and for a client to take its answer


class Connection:
    def __init__(self, sock: socket.socket, peer: Any, local_address: Any, reader: RequestReader) -> None:
        self.sock, self.peer, self.local_address, self.reader = sock, peer, local_address, reader
        self.deadline = time.monotonic() + READ_TIMEOUT_SECONDS
        self.input_bytes = self.output_bytes = 0  # bytes of input and of answers, as they are counted
        self.send_buffer = bytearray()
        self.last_sent_at = 0.0  # when something of that was last taken
        self.selector_events = 0  # what it is registered for
        self.pending_request: BufferedRequest | None = None  # its request that has its turn to come
        self.received_at = 0.0  # when the last of that could be read
        self.readable_since = 0.0  # since when there is something to be read, 0.0 while there is not
        self.close_after_send = False  # once everything is sent
        self.lingering = False  # nothing is left to send, what still comes is thrown away

    @property
    def client_ip(self) -> str:
        return self.peer[0] if self.peer else ""

    def sendall(self, data: bytes) -> None:
        """gunicorn's response writes here."""
        self.send_buffer += data

    send = sendall
