"""A thread for calls that wait for a version to load or for the store, one at a time.

It is a daemon: a load that a slow store keeps waiting does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from model_store.errors import Fault
from service.registry.errors import UnavailableError
from service.server.blocking_executor import LOAD_TIMEOUT_SECONDS, MAX_PENDING_REQUESTS

_Found = TypeVar("_Found")
_RETRY_SECONDS = 5


class LoadThread:
    """Runs functions that block. For one event loop."""

    def __init__(self, max_pending_bytes: int) -> None:
        """`max_pending_bytes` bounds the messages of the calls that wait."""
        self._max_pending_bytes = max_pending_bytes
        self._pending: dict[Future[Any], int] = {}
        self._queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[[], _Found], size: int) -> _Found:
        """Return what `function` returns, for a call with a message of `size` bytes.

        Raises UnavailableError if too many calls wait, or after LOAD_TIMEOUT_SECONDS.
        """
        waiting = sum(self._pending.values()) + size
        if len(self._pending) >= MAX_PENDING_REQUESTS or waiting > self._max_pending_bytes:
            raise _loading_error("is not in memory, and too many requests wait for versions to load")
        self._start()
        future: Future[_Found] = Future()
        self._pending[future] = size
        self._queue.put((function, future))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), LOAD_TIMEOUT_SECONDS)
        except TimeoutError:
            raise _loading_error("is still being loaded") from None
        finally:
            del self._pending[future]

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="grpc-loads", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system allows no further thread
                self._thread = None
                raise _loading_error("is not in memory, and no thread can be started to load it") from None

    def _run(self) -> None:
        while True:
            function, future = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as e:  # noqa: BLE001 - the caller raises it
                future.set_exception(e)


def _loading_error(problem: str) -> UnavailableError:
    fault = Fault("version", problem, "try again")
    return UnavailableError("loading", f"the version {problem}; {fault.fix}", fault, _RETRY_SECONDS)
