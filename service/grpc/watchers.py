"""The clients that watch the health of the service: as many as `MAX_WATCHERS`, shared between their addresses."""

from __future__ import annotations

import asyncio
from collections import Counter

MAX_WATCHERS = 100


class Watchers:
    """Calls of Watch by the IP addresses of their clients. For one event loop."""

    def __init__(self) -> None:
        self._addresses: dict[asyncio.Event, str] = {}  # the oldest first

    def enter(self, address: str) -> asyncio.Event | None:
        """Return the event at which the call has to end; None if there are too many.

        A newcomer takes the place of the newest call of the address that has most, if that has at least two more. So
        a client with many calls shuts out no other address, and all clients of one proxy are equal.
        """
        if len(self._addresses) >= MAX_WATCHERS:
            counts = Counter(self._addresses.values())
            ((most, count),) = counts.most_common(1)
            if count < counts[address] + 2:
                return None
            newest = next(each for each in reversed(self._addresses) if self._addresses[each] == most)
            newest.set()
            self.leave(newest)
        ended = asyncio.Event()
        self._addresses[ended] = address
        return ended

    def leave(self, ended: asyncio.Event) -> None:
        self._addresses.pop(ended, None)
