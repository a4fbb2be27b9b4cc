"""The WSGI bridge: what applications may do by PEP 3333, and what the client then receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.service.server.event_worker.harness import Environ, Loop, error_of, post

Application = Callable[[Environ, Callable[..., Any]], Any]


def response_of(application: Application, method: bytes = b"POST") -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return the status line, the headers and the body that a client receives."""
    loop = Loop(application=application)
    try:
        found = loop.take(loop.client(post("/x", b"sent").replace(b"POST", method)))
    finally:
        loop.close()
    head, _, body = found.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.split(b": ", 1) for line in lines), body


def application(status: str = "200 OK", *headers: tuple[str, str], parts: Any = (b"a", b"", b"bc")) -> Application:
    def call(_: Environ, start_response: Callable[..., Any]) -> Any:
        start_response(status, list(headers))
        return parts

    return call


def test_the_length_of_the_body_is_that_of_its_parts() -> None:
    for headers in ((), (("Content-Length", "3"),), (("content-length", "7"),)):
        status, found, body = response_of(application("200 OK", *headers))
        assert (status, body) == (b"HTTP/1.1 200 OK", b"abc")
        assert {name.lower(): value for name, value in found.items()}[b"content-length"] == b"3"
        assert found[b"Connection"] == b"keep-alive"


def test_a_response_to_head_has_the_length_and_not_the_body() -> None:
    _, headers, body = response_of(application("200 OK", ("Content-Length", "99"), parts=()), b"HEAD")
    assert (headers[b"Content-Length"], body) == (b"99", b"")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_a_body_has_none(status: str) -> None:
    _, headers, body = response_of(application(status))
    assert b"Content-Length" not in headers
    assert body == b""


def test_an_application_may_write_and_yield_and_is_closed() -> None:
    closed: list[bool] = []

    class Parts:
        def __iter__(self) -> Iterator[bytes]:
            yield b"yielded"

        def close(self) -> None:
            closed.append(True)

    def call(_: Environ, start_response: Callable[..., Any]) -> Parts:
        start_response("200 OK", [])(b"written, ")
        return Parts()

    assert response_of(call)[2] == b"written, yielded"
    assert closed == [True]


def test_an_application_may_start_late_and_start_again_after_an_error() -> None:
    def call(_: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            raise KeyError
        except KeyError as e:
            start_response("418 I'm a teapot", [("X-Late", "yes")], (KeyError, e, e.__traceback__))
        yield b"tea"

    status, headers, body = response_of(call)
    assert (status, headers[b"X-Late"], body) == (b"HTTP/1.1 418 I'm a teapot", b"yes", b"tea")


@pytest.mark.parametrize(
    "call",
    [
        application("200 OK", ("X-Split", "a\r\nSet-Cookie: b")),
        application("200 OK", ("X-Split", "a\nb")),
        application("200 OK", ("X-Split\r", "a")),
        application("200 OK", ("X-Wide", "\u4e2d")),
        application(parts=("text",)),
        lambda environ, start_response: [b"never started"],
        lambda environ, start_response: [start_response("200 OK", []), start_response("200 OK", [])],
    ],
    ids=["CR LF", "LF", "CR", "not Latin-1", "text", "never started", "started twice"],
)
def test_an_application_that_breaks_the_rules_is_500(call: Application) -> None:
    loop = Loop(application=call)
    try:
        found = loop.take(loop.client(post("/x")))
    finally:
        loop.close()
    assert error_of(found) == (500, "internal_error")
    assert b"Set-Cookie" not in found
