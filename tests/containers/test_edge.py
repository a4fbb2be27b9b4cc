"""The profile edge: TLS and client certificates with `docker compose --profile edge up`."""

import contextlib
import json
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.containers]

ROWS = json.dumps({"instances": [[0, 1]]}).encode()


@pytest.fixture(scope="module")
def edge(stack, tmp_path_factory) -> tuple[Path, str, str]:
    """The folder of certificates, and the two URLs."""
    stack.compose("--profile", "edge", "up", "--build", "--wait", "--quiet-pull", "edge")
    folder = tmp_path_factory.mktemp("certificates")
    for file in ("clients.crt", "client.crt", "client.key"):
        stack.compose("--profile", "edge", "cp", f"edge:/certificates/{file}", str(folder / file))
    ports = [stack.compose("--profile", "edge", "port", "edge", port).strip() for port in ("8443", "9443")]
    return folder, *(f"https://{port}" for port in ports)


def predict(folder: Path, address: str, *, certificate: bool = False) -> dict:
    context = ssl.create_default_context(cafile=str(folder / "clients.crt"))
    if certificate:
        context.load_cert_chain(folder / "client.crt", folder / "client.key")
    request = urllib.request.Request(f"{address}/models/xor/predict", ROWS)
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return json.load(answer)


def test_predictions_are_served_over_tls(edge):
    folder, public, _ = edge
    assert len(predict(folder, public)["predictions"]) == 1


def test_the_mtls_port_requires_a_client_certificate(edge):
    folder, _, mutual = edge
    assert len(predict(folder, mutual, certificate=True)["predictions"]) == 1
    with pytest.raises(urllib.error.HTTPError, match="403"):
        predict(folder, mutual)


def test_only_the_mtls_port_serves_metrics(edge, stack):
    folder, public, mutual = edge
    context = ssl.create_default_context(cafile=str(folder / "clients.crt"))
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    with urllib.request.urlopen(f"{mutual}/metrics", timeout=10, context=context) as answer:
        assert b"forward_pass_requests_total" in answer.read()
    for address in (public, f"http://{stack.address}"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/metrics", timeout=10, context=context)


def test_many_large_bodies_at_once_do_not_crash_the_proxy(edge, stack):
    """80 bodies of 8 MB exceed the proxy's memory."""
    folder, public, _ = edge
    context = ssl.create_default_context(cafile=str(folder / "clients.crt"))
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n"
    with contextlib.ExitStack() as held:
        for _ in range(80):
            plain = held.enter_context(socket.create_connection(("127.0.0.1", int(public.rpartition(":")[2])), 10))
            client = held.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            with contextlib.suppress(OSError):  # rejected before the whole body is sent
                client.sendall(head + bytes(8_388_000))
        assert predict(folder, public)["version"] == 1
    state = json.loads(stack.docker("inspect", f"{stack.name}-edge-1").stdout)[0]
    assert (state["State"]["OOMKilled"], state["RestartCount"]) == (False, 0)


def test_stopping_the_proxy_lets_open_requests_complete(edge, stack):
    assert json.loads(stack.docker("inspect", f"{stack.name}-edge").stdout)[0]["Config"]["StopSignal"] == "SIGQUIT"


def test_the_proxy_runs_as_a_user_without_capabilities(edge, stack):
    status = stack.compose("--profile", "edge", "exec", "-T", "edge", "cat", "/proc/1/status")
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    assert found["Uid"].split() == ["10001"] * 4
    assert {found[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
