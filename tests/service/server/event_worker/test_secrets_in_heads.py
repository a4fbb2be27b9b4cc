"""What a client sends in a malformed request reaches neither the log nor a response: it may hold a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.registry.store import open_store
from tests.service.conftest import price
from tests.service.server.event_worker.harness import Loop, error_of
from tests.service.server.server_process import Server

SECRET = b"fp_5ecret"
HOST = b"Host: here\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = SECRET * 700  # 6 kB
MALFORMED = {
    "a header without a colon": GET + HOST + b"Authorization Bearer " + SECRET + b"\r\n\r\n",
    "a space before the colon": GET + HOST + b"Authorization : Bearer " + SECRET + b"\r\n\r\n",
    "a key as a name": GET + HOST + b"Bearer " + SECRET + b": x\r\n\r\n",
    "a control character": GET + HOST + b"Authorization: Bearer\x00" + SECRET + b"\r\n\r\n",
    "a folded header": GET + HOST + b"Authorization: Bearer\r\n " + SECRET + b"\r\n\r\n",
    "an expectation": GET + HOST + b"Expect: Bearer " + SECRET + b"\r\n\r\n",
    "a transfer coding": GET + HOST + b"Transfer-Encoding: " + SECRET + b"\r\n\r\n",
    "a length": GET + HOST + b"Content-Length: " + SECRET + b"\r\n\r\n",
    "a host": GET + b"Host: Bearer " + SECRET + b"\r\n\r\n",
    "a method": b"Bearer:" + SECRET + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a version": b"GET / HTTP/" + SECRET + b"\r\n" + HOST + b"\r\n",
    "a version of digits": b"GET /" + SECRET + b" HTTP/9.9\r\n" + HOST + b"\r\n",
    "a request line": b"GET / " + SECRET + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "no request line": b"Authorization: Bearer " + SECRET + b"\r\n\r\n",
    "the user of a URI": b"GET http://me:" + SECRET + b"@[here/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "the user of a valid URI": b"GET http://me:" + SECRET + b"@here/nowhere HTTP/1.1\r\n" + HOST + b"\r\n",
    "a long header": GET + HOST + b"Authorization Bearer " + LONG + b"\r\n\r\n",
    "a long control character": GET + HOST + b"A: " + b"\xff\x01" * 3000 + SECRET + b"\r\n\r\n",
    "a chunk's size": POST + b"Authorization: Bearer " + SECRET + b"\r\n\r\n",
    "a chunk's end": POST + b"2\r\n{}" + SECRET + b"\r\n\r\n",
    "a trailer": POST + b"0\r\nAuthorization Bearer " + SECRET + b"\r\n\r\n",
    "a query": b"GET /nowhere?key=" + SECRET + b" HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_the_head_of_a_rejected_request_is_neither_logged_nor_returned(
    loop: Loop, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    loop.worker.log.error_log.propagate = True
    answer = loop.take(loop.client(MALFORMED[name]))
    assert SECRET not in answer
    assert SECRET.decode() not in caplog.text
    assert len(caplog.text) < 3000  # the harness logs a traceback


@pytest.mark.parametrize("name", ["a header without a colon", "an expectation", "a long header"])
def test_a_rejected_head_gets_the_class_of_the_fault_and_a_common_name(
    loop: Loop, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    loop.worker.log.error_log.propagate = True
    sock = loop.client(MALFORMED[name])
    answer = loop.take(sock)
    status, code = error_of(answer)
    assert (status, code) in {(400, "bad_request"), (417, "bad_request"), (431, "bad_request")}
    assert SECRET not in answer
    assert SECRET.decode() not in caplog.text
    assert len(caplog.text) < 1000
    assert "expected" in caplog.text
    if name == "a header without a colon":
        assert "see the header Authorization" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["event", "gthread"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_real_server_neither_logs_nor_returns_them(tmp_path: Path, worker: str, log_format: str) -> None:
    store = open_store(tmp_path / "models")
    store.publish("price", price())
    server = Server(store, tmp_path, SERVE_WORKER=worker, SERVE_WORKERS="1", SERVE_LOG_FORMAT=log_format)
    before = len(server.log)
    for name, sent in MALFORMED.items():
        answer = server.raw(sent)
        assert answer.startswith(b"HTTP/1.1 "), name
        assert SECRET not in answer, name
    assert server.stop() == 0
    assert SECRET.decode() not in server.log
    assert len(server.log) - before < 600 * len(MALFORMED)
    assert all(line.isprintable() for line in server.log.splitlines())
