"""Every use of gunicorn that its documentation does not cover.

gunicorn documents its settings, its server hooks, `BaseApplication` and `worker_class`. It does not document its
parser, the WSGI environment that it builds, the attributes of a worker, or the methods of its arbiter. No other module
uses those. test_gunicorn_compat.py has a test for each, which says what to change when an upgrade breaks it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.http.body import ChunkedReader, LengthReader  # type: ignore[import-untyped]
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.unreader import IterUnreader  # type: ignore[import-untyped]
from gunicorn.http.wsgi import create  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

__all__ = ["EnvironError", "HookedArbiter", "ParseError", "ParsedHead", "Worker"]

ParseError = errors.ParseException
EnvironError = (errors.ConfigurationProblem, ValueError)

_STATUS_OF_ERROR = {
    errors.LimitRequestLine: "414 URI Too Long",
    errors.LimitRequestHeaders: "431 Request Header Fields Too Large",
    errors.ExpectationFailed: "417 Expectation Failed",
    errors.UnsupportedTransferCoding: "501 Not Implemented",
}


def parse_error_status(error: Exception) -> str:
    """Return the status line's code and reason for a head that gunicorn rejects."""
    return next((status for kind, status in _STATUS_OF_ERROR.items() if isinstance(error, kind)), "400 Bad Request")


@dataclass(slots=True, eq=False)
class ParsedHead:
    """The head of a request as gunicorn's parser reads it. Nothing changes it, so requests may share it."""

    message: Any  # gunicorn's request
    method: str
    uri: str
    path: str
    query: str
    version: tuple[int, int]
    headers: list[tuple[str, str]]  # names in upper case
    keep_alive: bool
    content_length: int | None  # None: the body is chunked
    expects_continue: bool
    predict_target: Any = None  # what FastPath made of it

    @classmethod
    def parse(cls, cfg: Any, text: bytes, peer: Any, number: int) -> ParsedHead:
        """Parse a head that ends in an empty line, the `number`-th of its connection; ParseError if it is invalid."""
        message = Request(cfg, IterUnreader([text]), peer, number)
        expects_continue = bool(message._expected_100_continue)
        message._expected_100_continue = False  # else `create` would send the 100 itself
        return cls(
            message,
            message.method,
            message.uri,
            message.path,
            message.query,
            message.version,
            message.headers,
            not message.should_close(),
            _content_length(message.body.reader),
            expects_continue,
        )

    def environ(self, cfg: Any, peer: Any, local_address: Any) -> dict[str, Any]:
        """Return the WSGI environment without `wsgi.input`; one of `EnvironError` if the path has no valid one."""
        _, environ = create(self.message, None, peer, local_address, cfg)  # its response is not used
        for key in ("gunicorn.socket", "wsgi.early_hints"):  # which would write to the socket
            del environ[key]
        made: dict[str, Any] = environ
        return made


def _content_length(reader: Any) -> int | None:
    if isinstance(reader, ChunkedReader):
        return None
    if isinstance(reader, LengthReader):
        return int(reader.length)
    raise TypeError(f"expected a body of known length, found {reader}")  # pragma: no cover - gunicorn has no third


class HookedArbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's master process, with two hooks that its documentation lacks."""

    def on_stop(self) -> None:
        """Run before a graceful stop."""

    def on_tick(self) -> None:
        """Run about once a second, after gunicorn has replaced workers that do not respond."""

    def handle_term(self) -> None:
        self.on_stop()
        super().handle_term()

    handle_int = handle_term  # Ctrl-C stops gracefully, as SIGTERM does; gunicorn's own handler does not wait

    def murder_workers(self) -> None:
        super().murder_workers()
        self.on_tick()

    def send_signal(self, pid: int, sig: signal.Signals) -> None:
        """Send a signal to a worker, which may have ended already."""
        self.kill_worker(pid, sig)


def keep_early_signals(arbiter: Any, worker: Any) -> None:
    """Remember, in a new worker, the queue in which the master's handlers put signals until the worker has its own."""
    worker.early_signals = arbiter.SIG_QUEUE


def early_signals(worker: Any) -> Iterator[int]:
    """Take the signals that a worker received before it had handlers."""
    while not worker.early_signals.empty():
        yield worker.early_signals.get()
