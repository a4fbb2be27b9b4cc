"""Run `serve` under callgrind, without what depends on time; with BENCH_STAGES end a count at each stage.

Under valgrind a request may take a second: longer than the limit of the queue, ten times the interval in which a thread
looks for new versions, and as long as that of the page /traffic.

`PARTS` names each stage and its functions. A function that another stage calls counts for its own stage only. What is
outside of all functions is the event loop's: it waits, reads and passes requests on.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

LOOP = "event loop, receive"
PARTS = {
    LOOP: (),
    "head": ("service.server.request_reader:RequestReader.next_request",),
    "queue, admission": ("service.server.event_worker:EventWorker._process_queues",),
    "parse, validate, encode": ("service.server.fast_path:FastPath.try_parse",),
    "layers": ("service.inference.runner:InferenceRunner.run",),
    "response": ("service.server.fast_path:FastPath.respond",),
    "decode, JSON": ("service.server.fast_path:_encode_body",),
    "send": ("service.server.event_loop:EventLoop.send_response",),
    "metrics, log": ("service.server.fast_path:FastPath.record_metrics",),
}
CALIBRATION = "calibration"
# valgrind.h, amd64: the magic instructions of a client request, of the arguments at rdi.
_REQUEST = bytes.fromhex("4889f831d248c1c70348c1c70d48c1c73d48c1c7334887db4889d0c3")
_DUMP_STATS_AT = (ord("C") << 24 | ord("T") << 16) + 3


class Marks:
    """Ends a count at each change of the stage."""

    def __init__(self) -> None:
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(_REQUEST)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._request = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)
        self._arguments: dict[str, Any] = {}
        for name in (*PARTS, CALIBRATION):
            text = ctypes.create_string_buffer(name.encode())
            self._arguments[name] = (ctypes.c_uint64 * 6)(_DUMP_STATS_AT, ctypes.addressof(text), 0, 0, 0, 0), text
        self._stages = [LOOP]

    def _end_count(self) -> None:
        self._request(self._arguments[self._stages[-1]][0])

    def wrapped(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._end_count()
            self._stages.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self._end_count()
                self._stages.pop()

        return call

    def wrapped_with_calibration(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `function`; each call has three counts of nothing but marks, too."""
        outer = self.wrapped(CALIBRATION, self.wrapped(CALIBRATION, lambda: None))

        def call(*args: Any, **kwargs: Any) -> Any:
            outer()
            return function(*args, **kwargs)

        return self.wrapped(stage, call)


def mark_stages() -> None:
    marks = Marks()
    for stage, functions in PARTS.items():
        for place in functions:
            module_name, _, path = place.partition(":")
            *owners, name = path.split(".")
            owner: Any = import_module(module_name)
            for each in owners:
                owner = getattr(owner, each)
            static = isinstance(vars(owner)[name], staticmethod)
            wrap = marks.wrapped_with_calibration if name == "record_metrics" else marks.wrapped
            made = wrap(stage, getattr(owner, name))
            setattr(owner, name, staticmethod(made) if static else made)


if __name__ == "__main__":
    from service.cli import main
    from service.pages import traffic_monitor
    from service.registry import registry
    from service.server import admission

    admission.MAX_QUEUE_SECONDS = registry._PROPOSAL_POLL_SECONDS = traffic_monitor.TICK_SECONDS = 3600.0
    if os.environ.get("BENCH_STAGES"):
        mark_stages()
    sys.argv[0] = "serve"
    main()
