"""Admission control: decides which requests get 503 under load, and which connections are closed over a limit.

`AdmissionController` counts and selects; the worker sends the 503s and closes. 503 goes to a request that has been
queued for `MAX_QUEUE_SECONDS`; and, while input is over its limit, to large requests: slow uploads first (longer than
`SLOW_CLIENT_SECONDS`), then the newest. A request is large if its connection holds more than its share of the limit,
which is the limit divided by `MAX_CONNECTIONS`. All shares together fit, so no amount of large uploads sheds a small
request. Over the limit of connections, those that wait for another request are closed, the longest
idle first, then those with the nearest deadline; so that idle clients do not shut out new ones. Over the limit of
output, stalled readers (no byte for `SLOW_CLIENT_SECONDS`), then the readers that have been receiving their response
for longest. Fast clients keep their connections.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator

from service.server.connection import READ_TIMEOUT_SECONDS, Connection

MAX_QUEUE_SECONDS = 0.25
MAX_CONNECTIONS = 1000
MAX_STALLED_OUTPUT_BYTES = 32 * 1024 * 1024  # of responses, above which stalled readers are closed
MAX_OUTPUT_BYTES = 128 * 1024 * 1024  # of responses, above which slow readers are closed too
SLOW_CLIENT_SECONDS = 1.0  # that a request has been arriving, or that a client has read no byte of its response
RESTORE_LIMIT_SECONDS = 10.0  # after the last want of descriptors
RESERVED_DESCRIPTORS = 16  # left for files, if the system allows fewer descriptors than we have connections


def _eviction_order(connection: Connection) -> tuple[bool, bool, float]:
    waits_for_next = connection.is_idle and connection.last_sent_at > 0
    return connection.pending_request is not None, not waits_for_next, connection.deadline


class AdmissionController:
    def __init__(self, max_input_bytes: int) -> None:
        """`max_input_bytes` bounds the input of all connections together that has no response yet."""
        self.max_input_bytes = max_input_bytes
        self.connections: set[Connection] = set()
        self.connection_limit = MAX_CONNECTIONS
        self._limited_at = 0.0  # when descriptors were last wanting
        self.input_bytes = 0  # received and not answered yet
        self.output_bytes = 0  # of responses, not sent yet

    def update(self, connection: Connection) -> None:
        """Count a connection again, whose input or output has changed."""
        reader, pending, output_bytes = connection.reader, connection.pending_request, len(connection.send_buffer)
        input_bytes = reader.buffered_bytes if reader.buffer or reader.head is not None else 0
        if pending is not None:
            input_bytes += len(pending.content)
        if connection.send_pieces:
            output_bytes += sum(map(len, connection.send_pieces))
        self.input_bytes += input_bytes - connection.input_bytes
        self.output_bytes += output_bytes - connection.output_bytes
        connection.input_bytes, connection.output_bytes = input_bytes, output_bytes

    def release_input_bytes(self, connection: Connection) -> None:
        """Stop counting the input of a request that has left its queue; the executor has a limit of its own."""
        self.input_bytes -= connection.input_bytes
        connection.input_bytes = 0

    def remove(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.input_bytes -= connection.input_bytes
        self.output_bytes -= connection.output_bytes

    @property
    def is_full(self) -> bool:
        return len(self.connections) >= self.connection_limit

    def lower_connection_limit(self) -> bool:
        """Allow fewer connections than there are, for want of descriptors; True if the limit has changed."""
        self._limited_at = time.monotonic()
        limit = max(1, len(self.connections) - RESERVED_DESCRIPTORS)
        lowered, self.connection_limit = limit < self.connection_limit, min(limit, self.connection_limit)
        return lowered

    def restore_connection_limit(self, now: float) -> bool:
        """Allow all connections again once descriptors have sufficed for a while; True if the limit has changed."""
        if self.connection_limit == MAX_CONNECTIONS or now < self._limited_at + RESTORE_LIMIT_SECONDS:
            return False
        self.connection_limit = MAX_CONNECTIONS
        return True

    def eviction_candidates(self, count: int) -> list[Connection]:
        """Return connections to close for others: idle ones that have had a response, then others, then pending ones.

        Within each group the nearest deadline comes first, so the newest connection comes last.
        """
        return heapq.nsmallest(count, self.connections, _eviction_order)

    def queued_too_long(self, connection: Connection, now: float) -> bool:
        """True if the connection's request gets 503 instead of a response: it has been queued for too long."""
        return now - connection.arrived_at > MAX_QUEUE_SECONDS

    def is_large(self, connection: Connection) -> bool:
        """True if the connection's input exceeds its share of the limit."""
        return connection.input_bytes > self.max_input_bytes // MAX_CONNECTIONS

    def uploads_to_shed(self) -> Iterator[Connection]:
        """Yield connections whose large requests get 503 while input is over its limit: slow uploads, then the newest.

        The caller sends 503 to each before it takes the next.
        """
        if self.input_bytes <= self.max_input_bytes:
            return
        slow_before = time.monotonic() + READ_TIMEOUT_SECONDS - SLOW_CLIENT_SECONDS
        large = sorted(filter(self.is_large, self.connections), key=lambda c: c.deadline)
        slow = [c for c in large if c.deadline <= slow_before and c.pending_request is None]
        for connection in (*slow, *reversed(large)):
            if self.input_bytes <= self.max_input_bytes:
                return
            if connection.input_bytes:  # else it is shed already
                yield connection

    @property
    def input_over_limit(self) -> bool:
        return self.input_bytes > self.max_input_bytes

    @property
    def output_over_limit(self) -> bool:
        return self.output_bytes > MAX_STALLED_OUTPUT_BYTES

    def slow_readers(self) -> Iterator[Connection]:
        """Yield connections that read their responses slowly, the slowest first, while output is over its limits."""
        slow_before = time.monotonic() - SLOW_CLIENT_SECONDS
        for connection in sorted(self._readers(), key=lambda c: c.last_sent_at):
            if not self.output_over_limit or connection.last_sent_at > slow_before:
                break
            yield connection
        for connection in sorted(self._readers(), key=lambda c: c.deadline)[:-1]:  # the newest may be large
            if self.output_bytes <= MAX_OUTPUT_BYTES:
                break
            yield connection

    def _readers(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.send_buffer]
