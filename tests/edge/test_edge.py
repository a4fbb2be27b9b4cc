"""TLS, client certificates and limits of nginx, with the configuration of examples/edge and a running service."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model_store.registry.store import open_store
from tests.edge.proxy import EDGE, NGINX, PATIENCE_SECONDS, Proxy, Recorder, certificates, proxy
from tests.service.conftest import price
from tests.service.server.server_process import GOOD, ROOT, Server, free_port, until
from tests.small_disk import small_disk

SECOND = free_port()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    store = open_store(folder / "models")
    store.publish("price", price())
    server = Server(store, folder, SERVE_ADMIN_PORT=str(SECOND))
    yield server
    server.process.terminate()
    server.process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def edge(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxy(tmp_path_factory.mktemp("edge"), server.port, second=SECOND) as running:
        yield running


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


def ask(
    edge: Proxy,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    mutual: bool = False,
    certificate: bool = False,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    port = edge.mutual if mutual else edge.public
    connection = http.client.HTTPSConnection(
        "localhost", port, context=edge.context(certificate=certificate), timeout=PATIENCE_SECONDS
    )
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if response.headers.get_content_subtype() == "json" else text
    finally:
        connection.close()


def predict(edge: Proxy, **options: Any) -> tuple[int, Any]:
    return ask(edge, "POST", "/models/price/predict", GOOD, **options)


# --- TLS


def test_predictions_pass_through_tls(edge):
    status, body = predict(edge)
    assert (status, body["model"]) == (200, "price")


def test_a_client_rejects_a_name_that_is_not_in_the_certificate(edge):
    with socket.create_connection(("127.0.0.1", edge.public)) as plain, pytest.raises(ssl.SSLCertVerificationError):
        edge.context().wrap_socket(plain, server_hostname="elsewhere.example")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_versions_before_1_2_are_rejected(edge, server, version, tmp_path):
    def shake(running: Proxy) -> str | None:
        context = running.context()
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with running.connected(running.public, context) as connection:
            return connection.version()

    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake(edge)
    # With the version allowed, nginx accepts it: so the configuration is what rejects it.
    lax = {
        "ssl_protocols TLSv1.2 TLSv1.3": "ssl_protocols TLSv1 TLSv1.1 TLSv1.2",
        "ECDHE+AESGCM:ECDHE+CHACHA20": "ALL@SECLEVEL=0",
    }
    with proxy(tmp_path, server.port, lax) as control:
        assert shake(control) == {769: "TLSv1", 770: "TLSv1.1"}[version]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_all_ciphers_have_forward_secrecy(edge, version):
    context = edge.context()
    context.minimum_version = context.maximum_version = version
    with edge.connected(edge.public, context) as connection:
        name, _, bits = connection.cipher()
    assert name.startswith(("ECDHE-", "TLS_"))
    assert bits >= 128


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v2/repository/index"])
def test_every_response_has_hsts_and_a_request_id(edge, path):
    answer = edge.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head = answer.partition(b"\r\n\r\n")[0].decode()
    assert "\r\nStrict-Transport-Security: max-age=" in head
    assert re.search(r"\r\nX-Request-Id: [0-9a-f]{32}(\r\n|$)", head)
    assert "nginx/" not in head  # the version


def test_plain_http_on_a_tls_port_gets_an_error_that_says_so(edge):
    with socket.create_connection(("127.0.0.1", edge.public)) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = plain.makefile("rb").read()
    assert b" 426 " in answer.splitlines()[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "plain_http"


# --- client certificates


def test_the_mtls_port_accepts_a_client_certificate(edge):
    assert predict(edge, mutual=True, certificate=True)[0] == 200


def test_the_mtls_port_rejects_clients_without_a_certificate(edge, server, tmp_path):
    status, body = predict(edge, mutual=True)
    assert (status, body["error"]["code"]) == (403, "no_certificate")
    with proxy(tmp_path, server.port, {"ssl_verify_client on": "ssl_verify_client off"}) as control:
        assert predict(control, mutual=True)[0] == 200


def test_the_mtls_port_rejects_certificates_of_another_authority(edge, tmp_path):
    certificates.make(tmp_path / "another")
    context = edge.context()
    context.load_cert_chain(tmp_path / "another" / "client.crt", tmp_path / "another" / "client.key")
    answer = edge.raw(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", port=edge.mutual, context=context
    )
    assert b" 403 " in answer.splitlines()[0]
    assert b'"no_certificate"' in answer


def test_the_mtls_port_rejects_server_certificates(edge):
    context = edge.context()
    context.load_cert_chain(edge.certificates / "server.crt", edge.certificates / "server.key")
    answer = edge.raw(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", port=edge.mutual, context=context
    )
    assert b" 403 " in answer.splitlines()[0]


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/%6detrics", "/v2/repository/index", "/v2/../metrics"])
def test_metrics_and_the_repository_require_a_client_certificate(edge, path):
    method = "POST" if "repository" in path else "GET"
    status, body = ask(edge, method, path)
    assert (status, "error" in body) == (404, True)
    assert b"forward_pass_requests_total" in ask(edge, "GET", "/metrics", mutual=True, certificate=True)[1]


# --- what reaches the service


def test_a_client_cannot_set_forwarded_headers(recorder, tmp_path):
    lies = {
        "X-Forwarded-Proto": "http",
        "X-Forwarded-For": "192.0.2.1",
        "Forwarded": "for=192.0.2.1;proto=http",
        "Connection": "close, X-Forwarded-Proto",
    }
    with proxy(tmp_path, recorder.port) as running:
        assert ask(running, "GET", "/healthz", headers=lies)[0] == 200
    (head,) = recorder.heads
    found = dict(line.lower().split(": ", 1) for line in head.strip().splitlines()[1:])
    assert found["x-forwarded-proto"] == "https"
    assert found["x-forwarded-for"] == "127.0.0.1"
    assert "192.0.2.1" not in head
    assert "connection" not in found


def test_urls_in_responses_are_https(edge):
    status, body = ask(edge, "POST", "/models/price/predict", b'{"instances": [["x", 1]]}')
    assert status == 422
    assert f"https://localhost:{edge.public}/" in body["error"]["example"]["curl"]


def test_connections_to_the_service_are_kept_open(recorder, tmp_path):
    def connections(running: Proxy) -> int:
        before = len(recorder.connections)
        for _ in range(8):
            assert ask(running, "GET", "/healthz")[0] == 200
        return len(recorder.connections) - before

    one = {"worker_processes 2": "worker_processes 1"}  # each worker has its own connections
    (tmp_path / "kept").mkdir()
    with proxy(tmp_path / "kept", recorder.port, one) as running:
        assert connections(running) == 1
    (tmp_path / "closed").mkdir()
    with proxy(tmp_path / "closed", recorder.port, one | {"keepalive 32;": ""}) as control:
        assert connections(control) == 8


def test_the_proxy_logs_no_query_strings(recorder, tmp_path):
    with proxy(tmp_path, recorder.port) as running:
        assert ask(running, "GET", "/healthz?key=fp_secret")[0] == 200
        assert ask(running, "GET", "/metrics?key=fp_secret")[0] == 404
    told = (tmp_path / "tmp" / "access.log").read_text()
    assert '"GET /healthz HTTP/1.1" 200' in told
    assert '"GET /metrics HTTP/1.1" 404' in told
    assert "fp_" not in told


@pytest.mark.parametrize("how", ["the image's", "SIGTERM"])
def test_an_open_request_completes_when_the_image_is_stopped_by_its_stop_signal(recorder, tmp_path, how):
    """The control is SIGTERM, a container's default signal: nginx then exits at once."""
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition(" AS edge\n")[2].partition("\nFROM ")[0]
    found = re.search(r"^STOPSIGNAL (\w+)$", image, re.MULTILINE)
    assert found is not None
    recorder.may_answer.clear()
    with ThreadPoolExecutor() as pool, proxy(tmp_path, recorder.port) as running:
        asked = pool.submit(ask, running, "GET", "/healthz")
        until(lambda: recorder.heads)
        running.process.send_signal(signal.Signals[found[1] if how != "SIGTERM" else how])
        if how == "SIGTERM":
            with pytest.raises((http.client.HTTPException, OSError)):
                asked.result(PATIENCE_SECONDS)
        until(lambda: not listens(running.public))
        recorder.may_answer.set()
        if how != "SIGTERM":
            assert asked.result(PATIENCE_SECONDS)[0] == 200
        assert running.process.wait(PATIENCE_SECONDS) == 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- limits


def test_a_body_over_the_limit_is_rejected_before_it_is_sent(edge):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777217\r\n\r\n"
    answer = edge.raw(head)
    assert b" 413 " in answer.splitlines()[0]
    assert b'"body_too_large"' in answer


@pytest.mark.parametrize(
    "start",
    [b"", b"POST /predict HTT", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"],
    ids=["silent", "slow head", "slow body"],
)
def test_stalled_clients_are_disconnected_before_they_reach_the_service(recorder, tmp_path, start):
    soon = {
        "client_header_timeout 10s": "client_header_timeout 1s",
        "client_body_timeout 10s": "client_body_timeout 1s",
    }
    with proxy(tmp_path, recorder.port, soon) as running:
        running.raw(start)  # returns once nginx closes
        assert recorder.heads == []


def test_a_body_without_disk_space_is_503_and_shorter_ones_are_accepted(server, tmp_path):
    with small_disk(tmp_path / "room", "1m") as room:
        small = {f"client_body_temp_path {tmp_path / 'tmp' / 'body'}": f"client_body_temp_path {room}"}
        with proxy(tmp_path, server.port, small) as edge:
            status, body = ask(edge, "POST", "/models/price/predict", GOOD + b" " * 2_000_000)
            assert (status, body["error"]["code"]) == (503, "overloaded")
            assert predict(edge)[0] == 200


def test_a_method_that_nginx_rejects_gets_a_json_error(edge):
    assert ask(edge, "TRACE", "/predict")[1]["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET /.. HTTP/1.1", 400),
        (b"GET /%zz HTTP/1.1", 400),
        (b"GET /x%00 HTTP/1.1", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1", 414),
        (b"GET /healthz HTTP/3.0", 505),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 20_000, 400),
    ],
    ids=["..", "%zz", "%00", "long URL", "HTTP/3.0", "long header"],
)
def test_a_request_that_nginx_cannot_read_gets_a_json_error(edge, start, status):
    """A named location cannot be entered before the path is known: these were nginx's own page of a 500."""
    head, _, body = edge.raw(start + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["faults"] == []


def test_the_location_of_errors_is_not_public(edge):
    assert ask(edge, "GET", "/-refused")[0] == 404


@pytest.mark.parametrize("path", ["/predict", "/v2/models/price/infer", "/v1/models/price:predict"])
def test_a_stopped_service_is_reported_in_each_protocols_error_format(tmp_path, path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with proxy(tmp_path, port) as running:
        status, body = ask(running, "POST", path, b"{}")
    assert status == 502
    assert isinstance(body["error"], dict if path == "/predict" else str)


# --- smuggling: an ambiguous request reaches the service as one request, or not at all

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMUGGLED = {
    "both lengths": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(HIDDEN)) + HIDDEN,
    "chunked, then a length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n%x\r\n" % len(HIDDEN)
    + HIDDEN + b"\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: %d\r\nContent-Length: 0\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a list of lengths": b"Content-Length: %d, 0\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a signed length": b"Content-Length: +%d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a length of spaces": b"Content-Length: 0 %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "space before the colon": b"Content-Length : %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an odd coding": b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "two codings": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a vertical tab": b"Transfer-Encoding: \x0bchunked\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a bare carriage return": b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an underscore": b"Content_Length: 0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a nul": b"X: y\x00\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a chunk of odd size": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
    "a chunk that overflows": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff0\r\n\r\n" + HIDDEN,
}  # fmt: skip


def hidden_requests(server: Server) -> int:
    return len(re.findall(r" GET /hidden ", server.log))


def send(edge: Proxy, headers_and_body: bytes) -> bytes:
    """Send a request, and on the same connection one that ends it."""
    end = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return edge.raw(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + headers_and_body + end)


@pytest.mark.parametrize("case", SMUGGLED)
def test_no_request_can_be_smuggled(edge, server, case):
    before = hidden_requests(server)
    answer = send(edge, SMUGGLED[case])
    assert re.match(rb"HTTP/1.1 (4\d\d|501) ", answer)
    assert b"Content-Type: application/json" in answer
    assert predict(edge)[0] == 200  # the next client gets its own response
    assert hidden_requests(server) == before


def test_the_smuggling_test_sees_a_request_that_is_not_hidden(edge, server):
    before = hidden_requests(server)
    send(edge, b"Content-Length: 0\r\n\r\n" + HIDDEN)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while hidden_requests(server) == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_existing_certificates_are_not_replaced(tmp_path: Path):
    words = [sys.executable, EDGE / "certificates.py", tmp_path]
    subprocess.run(words, check=True, capture_output=True)
    before = (tmp_path / "server.key").read_bytes()
    again = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "already" in again.stdout
    assert (tmp_path / "server.key").read_bytes() == before
    assert (tmp_path / "server.key").stat().st_mode & 0o077 == 0
