"""Bound the memory of messages that arrive slowly.

gRPC assembles a message before it hands it over, and does not say how much of it has come. A message that has not
arrived `GRACE_SECONDS` after its call thus counts as the largest one; small messages of quick clients have arrived by
then. If the event loop was late itself, the message may be there unread, and has that time once more. If more of them
arrive than fit into the limit, the slowest is ended, or the newest while none has taken longer than
`SLOW_CLIENT_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.http.exceptions import ApiError, error_at
from service.server.admission import SLOW_CLIENT_SECONDS
from service.server.connection import READ_TIMEOUT_SECONDS

GRACE_SECONDS = 0.05


class SlowUploads:
    """The messages that arrive slowly. For one event loop."""

    def __init__(self, max_bytes: int, max_message_bytes: int) -> None:
        self._limit = max(1, max_bytes // max_message_bytes)
        self._timers: dict[asyncio.Timeout, asyncio.TimerHandle] = {}
        self._began: dict[asyncio.Timeout, float] = {}  # the slowest first

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Receive one message within the block. Raises ApiError: 408 if that takes too long, 503 over the limit."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(READ_TIMEOUT_SECONDS) as timeout:
                self._timers[timeout] = loop.call_later(GRACE_SECONDS, self._end_grace, timeout, began)
                try:
                    yield
                finally:
                    self._timers.pop(timeout).cancel()
                    self._began.pop(timeout, None)
        except TimeoutError:
            if loop.time() - began < READ_TIMEOUT_SECONDS:
                raise overloaded() from None
            problem, fix = "the request did not arrive in time", "send it again, faster or in smaller parts"
            raise error_at(408, "request_timeout", "the message", problem, fix) from None

    def _end_grace(self, timeout: asyncio.Timeout, began: float) -> None:
        loop = asyncio.get_running_loop()
        is_late = loop.time() - began > 2 * GRACE_SECONDS
        self._timers[timeout] = loop.call_later(GRACE_SECONDS if is_late else 0, self._add, timeout, began)

    def _add(self, timeout: asyncio.Timeout, began: float) -> None:
        now = asyncio.get_running_loop().time()
        self._began[timeout] = began
        if len(self._began) > self._limit:
            slowest = next(iter(self._began))
            ended = slowest if now - self._began[slowest] > SLOW_CLIENT_SECONDS else timeout
            del self._began[ended]
            ended.reschedule(now)


def overloaded() -> ApiError:
    error = error_at(
        503, "overloaded", "service", "more requests than can be answered in time", "try again in a moment"
    )
    error.headers["Retry-After"] = "1"
    return error
