"""A client connection of the event worker: what was received, what is to be sent, and its deadline."""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Any

from service.server.request_reader import BufferedRequest, RequestReader

READ_TIMEOUT_SECONDS = 30.0  # from a request's first byte to its last; and for a client to read its response


class Connection:
    def __init__(self, sock: socket.socket, peer: Any, local_address: Any, reader: RequestReader) -> None:
        self.sock, self.peer, self.local_address, self.reader = sock, peer, local_address, reader
        self.client_ip: str = peer[0] if peer else ""
        self.deadline = time.monotonic() + READ_TIMEOUT_SECONDS
        self.input_bytes = self.output_bytes = 0  # as AdmissionController last counted them
        self.send_buffer = bytearray()
        self.send_pieces: deque[bytes] = deque()  # of a large response, after `send_buffer`; none while that is empty
        self.last_sent_at = 0.0  # when the client last took bytes of it
        self.watched_events = 0  # which the poller watches for
        self.pending_request: BufferedRequest | None = None  # complete, and without a response
        self.arrived_at = 0.0  # when the last byte of that could be read
        self.readable_since = 0.0  # 0.0 unless unread bytes wait
        self.close_after_send = False
        self.lingering = False  # everything is sent; further input is discarded until the client closes

    @property
    def is_idle(self) -> bool:
        """True if no request is arriving and no response is being sent."""
        return not self.reader.head and not self.reader.buffer and not self.send_buffer
