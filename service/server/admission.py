"""The room: how many connections a worker has and what they hold, and who makes room where either is too much.

It counts and chooses; the worker sheds and closes. Whoever is quick keeps what he has: room is made by those that would
be cut off first, by those whose input has been coming for longer than `SLOW_SECONDS`, and by those who have taken
nothing of their answers for so long; where all take a little and it is still too much, by who has taken for longest.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator

from service.server.connection import READ_SECONDS, Connection

MAX_CONNECTIONS = 1000
MAX_HELD_BYTES = 32 * 1024 * 1024  # of input, and of answers of which nothing is taken
MAX_UNREAD_BYTES = 128 * 1024 * 1024  # of answers, be they taken or not
SLOW_SECONDS = 1.0  # for input to come, or for anything of an answer to be taken
SPARE = 16  # descriptors that are left for files where the system allows fewer than we have connections


class AdmissionController:
    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.most = MAX_CONNECTIONS
        self.held = self.unread = 0  # bytes: of input that has come and waits, and of answers that nobody has taken

    def count(self, connection: Connection) -> None:
        """Takes stock of a connection, of which something has come or gone."""
        waiting = len(connection.waiting.data) if connection.waiting is not None else 0
        held, unread = connection.incoming.held + waiting, len(connection.outgoing)
        self.held += held - connection.held
        self.unread += unread - connection.unread
        connection.held, connection.unread = held, unread

    def let_go(self, connection: Connection) -> None:
        """What it holds counts elsewhere until it has its answer."""
        self.held -= connection.held
        connection.held = 0

    def leave(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.held -= connection.held
        self.unread -= connection.unread

    @property
    def is_full(self) -> bool:
        return len(self.connections) >= self.most

    @property
    def holds_too_much(self) -> bool:
        return self.held > MAX_HELD_BYTES

    def shrink(self) -> bool:
        """There is no descriptor for another connection: so many are room for fewer. Whether that is news."""
        most = max(1, len(self.connections) - SPARE)
        is_news, self.most = most < self.most, min(most, self.most)
        return is_news

    def overdue(self, count: int) -> list[Connection]:
        """Those that would be cut off first."""
        return heapq.nsmallest(count, self.connections, lambda c: (c.waiting is not None, c.deadline))

    def slow_to_send(self, newest: Connection) -> Iterator[Connection]:
        """The slowest first, until what they leave makes room enough; never the newest."""
        slow_before = time.monotonic() + READ_SECONDS - SLOW_SECONDS
        for connection in sorted(self.connections, key=lambda c: c.deadline):
            if not self.holds_too_much or connection.deadline > slow_before:
                break
            if connection.held and connection.waiting is None and not connection.closing and connection is not newest:
                yield connection

    @property
    def holds_too_many_answers(self) -> bool:
        return self.unread > MAX_HELD_BYTES

    def slow_to_take(self) -> Iterator[Connection]:
        """The slowest first, until what they leave makes room enough."""
        slow_before = time.monotonic() - SLOW_SECONDS
        for connection in sorted(self._taking(), key=lambda c: c.moved):
            if not self.holds_too_many_answers or connection.moved > slow_before:
                break
            yield connection
        for connection in sorted(self._taking(), key=lambda c: c.deadline)[:-1]:  # the newest may be as large as it is
            if self.unread <= MAX_UNREAD_BYTES:
                break
            yield connection

    def _taking(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.outgoing]
