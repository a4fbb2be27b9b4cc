"""Close connections to a gRPC port that shut out others: their clients read no responses, or make no calls.

gRPC keeps a response until its client has read it or the connection ends, and offers no way to end either. So a
connection is found among the descriptors of the process by the address of its client, and its socket is shut down; gRPC
then ends its calls as if the client had gone. That happens only over a limit, down to half of it, and to the clients
that take most of it: a proxy that carries many clients, and reads what it is sent, keeps its connection.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from service.server.admission import MAX_CONNECTIONS, MAX_OUTPUT_BYTES, SLOW_CLIENT_SECONDS

MAX_UNREAD = 250  # small responses; with health checks and errors
MAX_UNREAD_BYTES = MAX_OUTPUT_BYTES // 2  # of large responses
SMALL_BYTES = 2**16  # of a response, which is sent however much others have not read
_LEAST_LARGE_BYTES = 2**18  # as which a large response counts at least: 256 of them in all
_SMALL_SECONDS = 0.1  # that a client has for a small response over the limit
_IDLE_SECONDS = 0.5  # between looks at all connections; for a client to make its first call


@dataclass(eq=False)
class OpenCall:
    """A call until gRPC has ended it. `answered_at` is the time of its response, by the monotonic clock."""

    client: str
    answered_at: float = 0.0


class Connections:
    """The connections to the ports of one listener, as far as their calls show them. For one event loop."""

    def __init__(self) -> None:
        self._small: dict[OpenCall, int] = {}  # responses that are unread; each counts 1
        self._large: dict[OpenCall, int] = {}  # by their bytes
        self._open: Counter[str] = Counter()  # calls of a client
        self._served: dict[str, None] = {}  # clients without an open call, the longest idle first
        self._unserved: set[str] = set()  # clients that had made no call at the last look
        self._looked_at = 0.0

    @property
    def unread_bytes(self) -> int:
        """The bytes of large responses that clients have not read."""
        return sum(self._large.values())

    @property
    def open_calls(self) -> int:
        """The number of calls that gRPC has not ended."""
        return self._open.total()

    def begin(self, context: Any) -> OpenCall:
        """Count a call until gRPC has ended it."""
        call = OpenCall(unquote(context.peer()).partition(":")[2])
        self._open[call.client] += 1
        context.add_done_callback(lambda _: self._end(call))
        return call

    def answered(self, call: OpenCall, size: int) -> None:
        """Count a response of `size` bytes as unread until the call ends, or `read` is called."""
        call.answered_at = time.monotonic()
        if size > SMALL_BYTES:
            self._large[call] = max(size, _LEAST_LARGE_BYTES)
        else:
            self._small[call] = 1

    def read(self, call: OpenCall) -> None:
        self._small.pop(call, None)
        self._large.pop(call, None)

    def _end(self, call: OpenCall) -> None:
        self.read(call)
        self._open[call.client] -= 1
        if self._open[call.client] <= 0:
            del self._open[call.client]
            self._served.pop(call.client, None)
            self._served[call.client] = None
            if len(self._served) > 2 * MAX_CONNECTIONS:
                del self._served[next(iter(self._served))]

    def close_excess(self, ports: Collection[int], max_connections: int, flooding: Collection[str] = ()) -> None:
        """Close connections to `ports` over the limits of unread responses and of connections. Called periodically.

        `flooding`: clients that are closed too.
        """
        now = time.monotonic()
        closed = {
            *flooding,
            *_most_unread(self._small, MAX_UNREAD, now - _SMALL_SECONDS, now),
            *_most_unread(self._large, MAX_UNREAD_BYTES, now - SLOW_CLIENT_SECONDS, now),
        }
        for call in [call for call in (*self._small, *self._large) if call.client in closed]:
            self.read(call)
        if now - self._looked_at > _IDLE_SECONDS:
            self._looked_at = now
            closed.update(self._most_idle(ports, max_connections))
        if closed:
            _shut_down(ports, closed)

    def _most_idle(self, ports: Collection[int], max_connections: int) -> list[str]:
        """Return clients without an open call, if three quarters of all connections are taken.

        Those without any call come first, from their second look on; then the longest idle.
        """
        before, self._unserved = self._unserved, set()
        if len(_descriptors()) <= max_connections // 2:
            return []
        clients = {client for _, client in _clients(ports)}
        self._unserved = clients - self._open.keys() - self._served.keys()
        if len(clients) <= max_connections * 3 // 4:
            return []
        idle = [*(self._unserved & before), *(client for client in self._served if client in clients)]
        return idle[: len(clients) - max_connections // 2]


def _most_unread(unread: dict[OpenCall, int], limit: int, before: float, now: float) -> list[str]:
    """Return clients that take most of `limit`, the longest: with a response from `before` that they have not read."""
    total = sum(unread.values())
    if total <= limit:
        return []
    taken: Counter[str] = Counter()
    waits: Counter[str] = Counter()  # in nanoseconds times what a response counts
    for call, count in unread.items():
        taken[call.client] += count
        waits[call.client] += int(1e9 * (now - call.answered_at)) * count
    slow = {call.client for call in unread if call.answered_at <= before}
    found = []
    for client, _ in waits.most_common():
        if total <= limit // 2:
            break
        if client in slow:
            found.append(client)
        total -= taken[client]  # of one that is not slow yet too: no other is closed in its place
    return found


def _descriptors() -> list[int]:
    with os.scandir("/dev/fd") as entries:
        return [int(entry.name) for entry in entries]


def _clients(ports: Collection[int]) -> Iterator[tuple[int, str]]:
    """Yield the descriptors of the connections to `ports`, and the clients as gRPC names them: 10.0.0.7:51234."""
    for descriptor in _descriptors():
        with suppress(OSError):  # closed meanwhile, no socket, or one that listens
            # AF_INET6 has room for addresses of IPv4 too
            connection = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, fileno=descriptor)
            try:
                client = _client(connection, ports)
            finally:
                connection.detach()  # gRPC closes it
            if client is not None:
                yield descriptor, client


def _client(connection: socket.socket, ports: Collection[int]) -> str | None:
    address = connection.getsockname()
    if not isinstance(address, tuple) or address[1] not in ports:
        return None
    ip, port = connection.getpeername()[:2]
    ip = ip.removeprefix("::ffff:")
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _shut_down(ports: Collection[int], clients: Collection[str]) -> None:
    for descriptor, client in _clients(ports):
        if client in clients:
            # A descriptor of our own: gRPC may close its own meanwhile, and another file take the number.
            with suppress(OSError), socket.fromfd(descriptor, socket.AF_INET6, socket.SOCK_STREAM) as connection:
                if _client(connection, ports) == client:
                    connection.shutdown(socket.SHUT_RDWR)
