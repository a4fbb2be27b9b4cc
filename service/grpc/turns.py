"""The order in which calls are answered: in turn by the addresses of their clients, and by the connections of each.

gRPC hands over calls in the order in which they came, one in each turn of the event loop, so a client that makes calls
faster than they are answered would keep all others waiting behind its own. Here few calls are answered between two
pauses, in which gRPC hands over what it has. The calls of a busy client wait, and end its flood: HTTP/2 lets a
connection have no more of them open (SETTINGS_MAX_CONCURRENT_STREAMS).
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict

MAX_WAITING = 2000  # calls; beyond, the newest of the address that has most is shed
MAX_UNANSWERED = 1000  # calls of an address that are shed, or given up by its clients, between two looks
LOOK_SECONDS = 1.0
_CALLS = 8  # that are answered between two pauses
_PAUSE_SECONDS = 0.001  # in which gRPC hands over further calls; another pause follows while it does
_MAX_PAUSES = 20  # one after the other: a flood of new calls does not keep those that wait from being answered

_Turn = asyncio.Future[bool]


class Turns:
    """The calls that wait for their turn. For one event loop."""

    def __init__(self) -> None:
        # The calls of a connection by its port, by the address of the client. The next one is the first at each level.
        self._waiting: OrderedDict[str, OrderedDict[str, dict[_Turn, None]]] = OrderedDict()
        self._counts: Counter[str] = Counter()  # of calls by address
        self._arrived = self._pauses = self._streak = 0
        self._looked_at = 0.0
        self._unanswered: Counter[str] = Counter()  # calls by address, since the last look
        self._is_scheduled = False

    async def wait(self, client: str, *, is_alone: bool = False) -> bool:
        """Wait for the turn of a call from a client such as 10.0.0.7:51234; False if the call is shed instead.

        `is_alone`: no other call is open, so that none can be kept waiting.
        """
        loop = asyncio.get_running_loop()
        address, _, port = client.rpartition(":")
        turn: _Turn = loop.create_future()
        self._waiting.setdefault(address, OrderedDict()).setdefault(port, {})[turn] = None
        self._counts[address] += 1
        self._arrived += 1
        if self._counts.total() > MAX_WAITING:
            self._shed()
        if not self._is_scheduled:
            self._is_scheduled = True
            self._streak = 0 if is_alone else self._streak + 1
            if self._streak < _CALLS:
                loop.call_soon(self._grant)
            else:
                self._begin_pauses()
        try:
            return await turn
        finally:
            if turn.cancelled():  # by the client, or by its deadline
                self._unanswered[address] += 1
                self._remove(address, port, turn)

    def _grant(self) -> None:
        """Let the next calls go on, and those after them when gRPC has handed over what it has."""
        for _ in range(_CALLS):
            if not self._waiting:
                break
            address, connections = next(iter(self._waiting.items()))
            port, calls = next(iter(connections.items()))
            self._waiting.move_to_end(address)
            connections.move_to_end(port)
            turn = next(iter(calls))
            self._remove(address, port, turn)
            if not turn.done():
                turn.set_result(True)
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            self._begin_pauses()

    def _begin_pauses(self) -> None:
        self._streak, self._pauses = 0, _MAX_PAUSES
        self._pause()

    def _pause(self) -> None:
        self._arrived = 0
        self._pauses -= 1
        asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._end_pause)

    def _end_pause(self) -> None:
        if self._arrived and self._pauses:
            self._pause()
        else:
            self._grant()

    def _shed(self) -> None:
        ((address, _),) = self._counts.most_common(1)
        port, calls = max(self._waiting[address].items(), key=lambda item: len(item[1]))
        turn = next(reversed(calls))
        self._remove(address, port, turn)
        self._unanswered[address] += 1
        if not turn.done():
            turn.set_result(False)

    def flooding_clients(self, now: float) -> list[str]:
        """Return the connections with waiting calls of the addresses with more than `MAX_UNANSWERED` other calls."""
        if now - self._looked_at < LOOK_SECONDS:
            return []
        flooding = [address for address, count in self._unanswered.items() if count > MAX_UNANSWERED]
        self._looked_at = now
        self._unanswered.clear()
        return [f"{address}:{port}" for address in flooding for port in self._waiting.get(address, ())]

    def _remove(self, address: str, port: str, turn: _Turn) -> None:
        connections = self._waiting.get(address, OrderedDict())
        if turn in (calls := connections.get(port, {})):
            del calls[turn]
            self._counts[address] -= 1
            if not calls:
                del connections[port]
            if not connections:
                del self._waiting[address], self._counts[address]
