"""HTTP over sockets, against `python -m service` in a process of its own."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.server.connection import READ_TIMEOUT_SECONDS
from tests.service.server.server_process import GOOD, PATIENCE_SECONDS, post, status_of, until

pytestmark = pytest.mark.slow


def test_the_start_logs_models_urls_and_docs(server):
    assert "Serving image/1, penguins/1, price/1" in server.log
    assert f"http://127.0.0.1:{server.port}/predict" in server.log


def test_predictions_over_http_equal_those_of_the_model(server):
    rows = [[i / 3, 60 + i] for i in range(50)]
    _, model = server.store.load("price")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.ask("POST", "/models/price/predict", {"instances": rows}), range(40)))
    assert all(status == 200 and body["predictions"] == model.predict(rows) for status, body in answers)


@pytest.mark.parametrize("sent", [0, 1, len(GOOD) - 1, len(GOOD)])
def test_a_truncated_body_is_400(server, sent):
    answer = server.raw(post(GOOD[:sent], length=len(GOOD) + 1))
    assert status_of(answer) == 400
    assert b'"broken_body"' in answer


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n",  # not a hexadecimal size
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"%x\r\n" % len(GOOD) + GOOD + b"XX0\r\n\r\n",  # no end of line after the chunk
        b"%x\r\n" % len(GOOD) + GOOD + b"\r\n",  # no last chunk
        b"%x\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n",  # no end of trailers
        b"%x\r\n" % (len(GOOD) + 9) + GOOD,  # cut within a chunk
        b"%x;a=\x01\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n",
        b"",
    ],
)
def test_malformed_or_truncated_chunks_are_400(server, chunks):
    answer = server.raw(post(chunks, b"Transfer-Encoding: chunked"))
    assert status_of(answer) == 400
    assert b'"broken_body"' in answer


def test_valid_chunks_are_accepted(server):
    chunks = b"%x\r\n%s\r\n" % (5, GOOD[:5]) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD) - 5, GOOD[5:])
    assert status_of(server.raw(post(chunks, b"Transfer-Encoding: chunked"))) == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (post(GOOD, b"Content-Length: 5", length=len(GOOD)), 400),
        (post(GOOD, b"Transfer-Encoding: chunked", length=len(GOOD)), 400),
        (post(GOOD, b"Content-Length: -1"), 400),
        (post(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked"), 501),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: here\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: here\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", 414),
    ],
)
def test_invalid_http_is_rejected(server, request_bytes, status):
    assert status_of(server.raw(request_bytes)) == status


@pytest.mark.parametrize("worker", ["event", "gthread"])
def test_both_worker_types_reject_the_same_heads(own_server, worker):
    server = own_server(SERVE_WORKER=worker, SERVE_WORKERS="1")
    assert status_of(server.raw(post(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked"))) == 501
    assert status_of(server.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")) == 400


def test_a_tls_client_is_rejected_at_once_and_named_in_the_log(server):
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as plain:
        start = time.monotonic()
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="localhost")
    assert time.monotonic() - start < READ_TIMEOUT_SECONDS / 3
    assert "found a TLS handshake; use http://" in until(lambda: server.log)


def test_a_connection_is_kept_for_further_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    connection.connect()
    first = connection.sock
    for body, status in ((GOOD, 200), (b"{", 400), (GOOD, 200), (b"[]", 422), (GOOD, 200)):
        connection.request("POST", "/models/price/predict", body)
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, True)
    assert connection.sock is first
    connection.close()


def test_pipelined_requests_are_answered_in_order_until_one_is_invalid(server):
    answer = server.raw(post(GOOD, length=len(GOOD)) + post(b"{", length=1) + b"NONSENSE\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400", b"400"]


def test_a_body_over_the_limit_is_413_before_it_is_sent(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(post(b"", length=10**12))
        answer = connection.recv(65536)
    assert status_of(answer) == 413


def test_a_client_that_leaves_in_the_middle_disturbs_no_other(server):
    for bytes_sent in (b"POST /pre", post(GOOD[:5], length=len(GOOD)), post(b"5\r\nab", b"Transfer-Encoding: chunked")):
        for _ in range(6):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS)
            connection.sendall(bytes_sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with RST
            connection.close()
    assert server.version() == 1
