"""The signals that end a training or a search: SIGTERM and SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


@contextmanager
def handle_stop_signals(note: Callable[[int], None]) -> Iterator[None]:
    """Call `note` with the number of a SIGTERM or SIGINT; a second one ends the process as it would have before."""

    def handle(number: int, _: FrameType | None) -> None:
        note(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        with suppress(ValueError):  # not the main thread: it cannot handle signals
            before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
