"""Every use of gunicorn that its documentation does not cover.

gunicorn documents its settings, its server hooks, `BaseApplication` and `worker_class`. It does not document its
parser, the WSGI environment that it builds, the attributes of a worker, or the methods of its arbiter. No other module
uses those. test_gunicorn_compat.py has a test for each, which says what to change when an upgrade breaks it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.http.body import ChunkedReader, LengthReader  # type: ignore[import-untyped]
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.unreader import IterUnreader  # type: ignore[import-untyped]
from gunicorn.http.wsgi import create  # type: ignore[import-untyped]
from gunicorn.util import write_error  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker as GunicornThreadWorker  # type: ignore[import-untyped]

__all__ = ["EnvironError", "HookedArbiter", "ParseError", "ParsedHead", "ThreadWorker", "Worker"]

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


# What is wrong with a head. gunicorn's own messages quote the line, which may hold a key.
_PROBLEMS: dict[type[Exception], str] = {
    errors.InvalidRequestLine: "expected a request line such as GET / HTTP/1.1",
    errors.InvalidRequestMethod: "expected a method such as GET or POST",
    errors.InvalidHTTPVersion: "expected HTTP/1.1",
    errors.InvalidHeaderName: "expected a header's name of letters, digits and hyphens",
    errors.InvalidHeader: "expected headers of the form `Name: value`, with values of visible characters",
    errors.ObsoleteFolding: "expected a header in one line, found one that is continued",
    errors.ExpectationFailed: "expected no header Expect, or 100-continue",
    errors.UnsupportedTransferCoding: "expected the transfer coding chunked, or none",
    errors.LimitRequestLine: "expected a shorter request line",
    errors.LimitRequestHeaders: "expected fewer or shorter headers",
    errors.InvalidSchemeHeaders: "expected headers that agree on the scheme",
    errors.ConfigurationProblem: "expected a path and headers that an endpoint can have",
}
# Names that a message may show: all others may be a secret in the wrong place.
_NAMED_HEADERS = re.compile(
    r"(accept|authorization|connection|content-(?:encoding|length|type)|cookie|expect|forwarded|host|origin|te|trailer|"
    r"transfer-encoding|upgrade|user-agent|x-forwarded-(?:for|host|prefix|proto)|x-request-id)\b",
    re.IGNORECASE,
)


def describe_parse_error(error: Exception) -> str:
    """Return what is wrong with a head, without any of its values. It names the header only if it is a common one."""
    problem = next((_PROBLEMS[kind] for kind in type(error).__mro__ if kind in _PROBLEMS), "expected valid HTTP")
    named = _NAMED_HEADERS.match(str(getattr(error, "hdr", "")))
    return f"{problem}; see the header {named[1].title()}" if named else problem


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
            cfg.keepalive > 0 and not message.should_close() and not _asks_to_close(message.headers),
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


def _asks_to_close(headers: list[tuple[str, str]]) -> bool:
    """Return whether a Connection header lists `close` (RFC 9112, 9.6). gunicorn looks only for it alone."""
    options = (value for name, value in headers if name == "CONNECTION")
    return any(option.strip().lower() == "close" for value in options for option in value.split(","))


def _content_length(reader: Any) -> int | None:
    if isinstance(reader, ChunkedReader):
        return None
    if isinstance(reader, LengthReader):
        return int(reader.length)
    raise TypeError(f"expected a body of known length, found {reader}")  # pragma: no cover - gunicorn has no third


class ThreadWorker(GunicornThreadWorker):  # type: ignore[misc]
    """gunicorn's worker with threads, whose messages quote nothing of a request."""

    def handle_request(self, req: Any, conn: Any) -> Any:
        if _asks_to_close(req.headers):
            req.force_close()
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        if isinstance(exc, ParseError):
            status, problem = parse_error_status(exc), describe_parse_error(exc)
            self.log.warning("rejected a request from %s: %s", addr[0] if addr else "", problem)
        else:
            status, problem = "500 Internal Server Error", "the cause is in the service's log"
            self.log.error("a request failed outside the application's error handling", exc_info=exc)
        code, _, reason = status.partition(" ")
        with suppress(OSError):  # the client has gone
            write_error(client, int(code), reason, problem)


class HookedArbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's master process, with two hooks that its documentation lacks, and without SIGUSR2."""

    def on_stop(self) -> None:
        """Run before a graceful stop."""

    def on_tick(self) -> None:
        """Run about once a second, after gunicorn has replaced workers that do not respond."""

    def handle_term(self) -> None:
        self.on_stop()
        super().handle_term()

    handle_int = handle_term  # Ctrl-C stops gracefully, as SIGTERM does; gunicorn's own handler does not wait

    def handle_usr2(self) -> None:
        """Refuse gunicorn's upgrade in place: the new master would share neither counts nor generations."""
        self.log.warning(
            "SIGUSR2 is not supported: SIGHUP replaces the workers; for a new release, restart the service"
        )

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
